//! Tier `fake`: the operator on a real control plane with simulated nodes. All tests share the control plane; each has a namespace,
//! an operator and a service account of its own.

mod leaders;
mod life;
mod lost;
mod provers;
mod refusals;
mod shards;
#[path = "../support/mod.rs"]
mod support;

//! Reconciles `UpgraderFleet` resources into upgrader pods, one for each shard of the transactions, and prover pods.
//!
//! What to do is decided by pure functions in [`plan`]; what objects look like by [`build`]; [`reconcile`] puts them in order.
//! All writes go through [`writer`], which asks first whether this process still leads.

pub mod announce;
pub mod args;
pub mod build;
pub mod caches;
pub mod certificate;
pub mod error;
pub mod facts;
pub mod generate;
pub mod http;
pub mod kinds;
pub mod lease;
pub mod metrics;
pub mod observe;
pub mod plan;
pub mod poll;
pub mod rbac;
pub mod reconcile;
pub mod run;
pub mod shelf;
pub mod status;
pub mod token;
pub mod writer;

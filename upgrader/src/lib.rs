//! Watches a node's mempool and upgrades the proofs of its transactions through prover pods: without chain data and without a
//! wallet secret.
//!
//! Decisions are pure: [`shard`] says whose a transaction is, [`policy`] whether it pays, [`choices`] what is chosen freely,
//! and [`jobs`] which claim a step comes down to.

pub mod chain;
pub mod choices;
pub mod cli;
pub mod dag;
pub mod engine;
pub mod explain;
pub mod http;
pub mod jobs;
mod logs;
pub mod mempool;
pub mod metrics;
pub mod node;
pub mod policy;
pub mod recipient;
pub mod ring;
pub mod select;
pub mod shard;
mod txid;

pub use shard::{InvalidShard, Shard};
pub use txid::{InvalidTxId, TxId};

//! Watches a node's mempool and upgrades the proofs of its transactions through prover pods: without chain data and without a
//! wallet secret.
//!
//! Decisions are pure: [`shard`] says whose a transaction is, [`policy`] whether it pays, [`choices`] what is chosen freely,
//! and [`jobs`] which claim a step comes down to.

pub mod choices;
pub mod dag;
pub mod jobs;
pub mod policy;
pub mod ring;
pub mod select;
pub mod shard;
mod txid;

pub use shard::{InvalidShard, Shard};
pub use txid::{InvalidTxId, TxId};

//! What selection sees.

use std::collections::HashSet;
use std::time::Duration;

use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use triton_vm::prelude::Digest;

use crate::TxId;

/// What backs a transaction in the node's mempool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofKind {
    /// Many small proofs. Their number is exact once they were downloaded; before, it is what the kernel needs at least.
    Collection {
        /// Number of proofs.
        at_least_proofs: usize,
    },
    /// One.
    Single,
    /// The node keeps it to itself.
    Hidden,
}

/// Where a transaction stands relative to the tip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// This many blocks behind; 0 is at the tip.
    Behind(usize),
    /// One of its inputs is spent.
    Spent,
    /// On no mutator set that we know.
    Unknown,
}

/// A transaction of the mempool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub txid: TxId,
    /// What it pays.
    pub fee: NativeCurrencyAmount,
    /// Its place in the node's list, which is by fee density.
    pub rank: usize,
    /// What backs it.
    pub proof: ProofKind,
    /// Where it stands.
    pub sync: Sync,
    /// What it spends: hashes of its inputs' absolute indices.
    pub inputs: Vec<Digest>,
    /// Number of outputs.
    pub outputs: usize,
    /// Number of announcements.
    pub announcements: usize,
    /// Whether it retires within the margin that nodes keep.
    pub retires_soon: bool,
    /// How much of it is ours: what we gobbled.
    pub own: Option<NativeCurrencyAmount>,
    /// When we first saw it, since the epoch.
    pub first_seen: Duration,
}

/// A moment of the mempool and the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The mempool.
    pub candidates: Vec<Candidate>,
    /// Transactions that we are upgrading.
    pub busy: HashSet<TxId>,
    /// Height of the tip.
    pub height: u64,
    /// Now, since the epoch.
    pub now: Duration,
    /// The largest log2 padded height that some prover takes; `None` when unknown.
    pub max_log2_padded_height: Option<u8>,
}

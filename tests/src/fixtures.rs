//! Real proofs of the example transactions, stored so that tests need not prove for minutes.
//!
//! `fixtures/proofs/ID.bin` is `bincode(Proof)`, made by triton-vm 9.0.1 (proof version 8); `ID` is the Tip5 hash of the
//! claim. They prove claims about transactions that no network accepts (see [`fleet::transaction::example`]).

use std::path::PathBuf;

use anyhow::Context;
use fleet::transaction::example::Shape;
use prover_api::JobId;
use triton_vm::prelude::{Claim, Proof};

/// The transaction whose six leaf proofs are stored: one input, two outputs, one announcement.
pub const STORED: Shape = Shape { inputs: 1, outputs: 2, announcements: 1 };

/// The folder of stored proofs.
pub fn proofs() -> PathBuf {
    crate::package().join("fixtures/proofs")
}

/// The name of a claim's proof in [`proofs`]: the id of its job.
pub fn name_of(claim: &Claim) -> String {
    JobId::of(claim).to_string()
}

/// The stored proof of a claim.
///
/// # Errors
///
/// When none is stored or the file is damaged.
pub fn stored_proof(claim: &Claim) -> anyhow::Result<Proof> {
    let path = proofs().join(format!("{}.bin", name_of(claim)));
    let bytes = std::fs::read(&path).with_context(|| format!("no stored proof {}", path.display()))?;
    bincode::deserialize(&bytes).with_context(|| format!("damaged proof {}", path.display()))
}

//! One transaction with real proofs, from its ProofCollection to a block: raised, overtaken by a block, updated, mined.
//!
//! The chain is the same every time ([`Chain::at`]), so the two SingleProofs can be made once, on a GPU (`record-proofs`), and
//! stored: `fixtures/node/` holds them by the ids of their jobs, and the transaction with its collection, whose proofs depend on
//! random salts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_primitives::network::Network;
use neptune_primitives::timestamp::Timestamp;
use triton_vm::prelude::BFieldElement;
use upgrader::jobs::CheckedProof;

use crate::devnode::{Chain, DevNode};
use crate::pods::Pod;
use crate::upgraders::{Fleet, Upgrader};

/// A network with real proofs and the newest rules from its first block on.
pub const NETWORK: Network = Network::Testnet(7);

/// When it happens: on 2026-12-01.
const CLOCK: Timestamp = Timestamp(BFieldElement::new(1_796_083_200_000));

/// The file of the transaction in the folder.
const TRANSACTION: &str = "transaction.bin";

/// The folder of what was recorded.
pub fn folder() -> PathBuf {
    crate::package().join("fixtures/node")
}

/// The chain with one coin, and a transaction that spends it.
///
/// # Errors
/// None that can occur.
pub fn begin() -> Result<(Chain, PrimitiveWitness)> {
    let mut chain = Chain::at(NETWORK, 1, CLOCK)?;
    let witness = chain.spend(NativeCurrencyAmount::coins(1))?;
    Ok((chain, witness))
}

/// The stored transaction, which is that of [`begin`] with its ProofCollection.
///
/// # Errors
/// When it is missing, damaged, or another one.
pub fn stored(folder: &Path, witness: &PrimitiveWitness) -> Result<Transaction> {
    let path = folder.join(TRANSACTION);
    let bytes = std::fs::read(&path).with_context(|| format!("no {}", path.display()))?;
    let transaction: Transaction = bincode::deserialize(&bytes).with_context(|| format!("damaged: {}", path.display()))?;
    ensure!(transaction.kernel == witness.kernel, "the stored transaction is another one: record it again");
    Ok(transaction)
}

/// Stores the transaction.
///
/// # Errors
/// Those of the file.
pub fn store(folder: &Path, transaction: &Transaction) -> Result<()> {
    Ok(std::fs::write(folder.join(TRANSACTION), bincode::serialize(transaction)?)?)
}

/// Tells the story, with this pod as the prover. Each SingleProof may take this long. Gives what took part, to look at.
///
/// # Errors
/// When it goes otherwise.
pub async fn tell(mut chain: Chain, transaction: Transaction, pod: Pod, patience: Duration) -> Result<Fleet> {
    let txid = chain.put(transaction);
    let node = DevNode::start(chain, "127.0.0.1:0").await?;
    let for_free = ["--min-gobbling-fee", "0", "--gobbling-fraction", "0"];
    let arguments = [&["--node", node.url(), "--provers", pod.url()][..], &for_free].concat();
    let upgrader = Upgrader::start_on(NETWORK, &arguments.into_iter().map(str::to_owned).collect::<Vec<_>>())?;
    let fleet = Fleet { node, pods: vec![pod], upgraders: vec![upgrader] };
    fleet.until("raised", patience, |fleet| fleet.is_done(txid)).await?;

    fleet.node.chain().mine(0)?;
    let updated = |fleet: &Fleet| matches!(fleet.mempool()[..], [only] if fleet.is_done(only));
    fleet.until("updated", patience, updated).await?;
    ensure!(fleet.node.submissions().0 == 2, "{:?}", fleet.node.submissions());

    let [result] = fleet.mempool()[..] else { anyhow::bail!("{:?}", fleet.mempool()) };
    let Transaction { kernel, proof } = fleet.node.chain().transaction(result).context("in the mempool")?.clone();
    let TransactionProof::SingleProof(proof) = proof else { anyhow::bail!("{proof:?}") };
    CheckedProof::check(kernel, proof, Network::Main).await?;
    ensure!(fleet.node.chain().mine(usize::MAX)? == [result]);
    ensure!(fleet.mempool().is_empty(), "{:?}", fleet.mempool());
    Ok(fleet)
}

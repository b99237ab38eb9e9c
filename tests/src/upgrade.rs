//! Real upgrade jobs: raise, gobbler, merge and update of an example transaction, built on stored real proofs.
//!
//! `fixtures/upgrade/` holds the leaf proofs of a transaction of two inputs and of a gobbler for it, and the SingleProofs of
//! both and of their merge (364 s, 168 s and 56 s on 16 cores), all made by triton-vm 9.0.1.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use fleet::transaction::example::{self, Shape};
use fleet::transaction::{ProofCollectionPlan, VerifiedCollection};
use neptune_consensus::block::mutator_set_update::MutatorSetUpdate;
use neptune_consensus::transaction::lock_script::LockScript;
use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_mutator_set::commit;
use neptune_mutator_set::mutator_set_accumulator::MutatorSetAccumulator;
use neptune_primitives::network::Network;
use prover_api::JobId;
use triton_vm::prelude::{BFieldElement, Digest, Proof, Tip5};
use upgrader::jobs::{self, CheckedProof, Gobbler, Recipient, Step};

/// The transaction that the stored proofs are about: two inputs, two outputs, two announcements.
pub const SHAPE: Shape = Shape { inputs: 2, outputs: 2, announcements: 2 };

/// Seed of the stored merge.
pub const SHUFFLE_SEED: [u8; 32] = [7; 32];

/// What is gobbled.
pub fn gobbled() -> NativeCurrencyAmount {
    NativeCurrencyAmount::coins(1)
}

/// The folder of stored proofs.
pub fn folder() -> PathBuf {
    crate::package().join("fixtures/upgrade")
}

fn stored(name: &str) -> Result<Proof> {
    let path = folder().join(name);
    let bytes = std::fs::read(&path).with_context(|| format!("no stored proof {}", path.display()))?;
    bincode::deserialize(&bytes).with_context(|| format!("damaged proof {}", path.display()))
}

/// The transaction.
///
/// # Errors
/// None that can occur: the shape is a fixed one.
pub fn transaction() -> Result<PrimitiveWitness> {
    Ok(example::transaction(SHAPE)?)
}

/// Its gobbler: one coin to a script that anyone can unlock.
///
/// # Errors
/// Those of neptune-consensus, if it finds the gobbler invalid.
pub async fn gobbler() -> Result<Gobbler> {
    gobbler_of(transaction()?).await
}

/// The same for any transaction.
///
/// # Errors
/// As for [`gobbler`].
pub async fn gobbler_of(transaction: PrimitiveWitness) -> Result<Gobbler> {
    let word = |n| Tip5::hash(&BFieldElement::new(n));
    let recipient = Recipient { lock_script_hash: LockScript::anyone_can_spend().hash(), receiver_digest: word(18) };
    let PrimitiveWitness { mutator_set_accumulator, kernel, .. } = transaction;
    Ok(jobs::gobbler(gobbled(), &recipient, word(17), mutator_set_accumulator, kernel.timestamp, |_| None).await?)
}

/// The ProofCollection of a plan, from stored proofs, accepted under main-net rules.
///
/// # Errors
/// When a proof is not stored, or neptune-consensus refuses one.
pub async fn collection(plan: &ProofCollectionPlan) -> Result<VerifiedCollection> {
    let proof_of = |job: &fleet::transaction::LeafJob| Ok((job.leaf, stored(&format!("{}.bin", JobId::of(&job.job.claim)))?));
    let proofs = plan.jobs.iter().map(proof_of).collect::<Result<BTreeMap<_, _>>>()?;
    Ok(VerifiedCollection::check(plan.frame.clone().assemble(proofs)?, Network::Main).await?)
}

/// The raise of the transaction.
///
/// # Errors
/// As for [`collection`].
pub async fn raise() -> Result<Step> {
    let transaction = transaction()?;
    let plan = ProofCollectionPlan::new(&transaction).await?;
    Ok(jobs::raise(transaction.kernel, collection(&plan).await?)?)
}

/// The raise of the gobbler.
///
/// # Errors
/// As for [`collection`].
pub async fn raise_gobbler() -> Result<Step> {
    let gobbler = gobbler().await?;
    let collection = collection(&gobbler.plan).await?;
    Ok(jobs::raise(gobbler.kernel, collection)?)
}

/// The raised transaction with its stored SingleProof.
///
/// # Errors
/// When the proof is missing or refused.
pub async fn raised() -> Result<CheckedProof> {
    Ok(CheckedProof::check(transaction()?.kernel, stored("sp2in.bin")?.into(), Network::Main).await?)
}

/// The raised gobbler with its stored SingleProof.
///
/// # Errors
/// When the proof is missing or refused.
pub async fn raised_gobbler() -> Result<CheckedProof> {
    Ok(CheckedProof::check(gobbler().await?.kernel, stored("sp-gobbler.bin")?.into(), Network::Main).await?)
}

/// The merge of both, gobbler left.
///
/// # Errors
/// When a stored proof is missing or refused.
pub async fn merge() -> Result<Step> {
    Ok(jobs::merge(raised_gobbler().await?, raised().await?, SHUFFLE_SEED)?)
}

/// The merged transaction with its stored SingleProof.
///
/// # Errors
/// When the proof is missing or refused.
pub async fn merged() -> Result<CheckedProof> {
    let kernel = merge().await?.kernel;
    Ok(CheckedProof::check(kernel, stored("merge.bin")?.into(), Network::Main).await?)
}

/// What two blocks after the transaction change: ten new UTXOs, and the spending of one of them.
///
/// # Errors
/// None that can occur: the blocks are made up here.
pub fn two_blocks(mutator_set: &MutatorSetAccumulator) -> Result<MutatorSetUpdate> {
    let item = |n: u64| (Tip5::hash(&(3 * n)), Tip5::hash(&(3 * n + 1)), Tip5::hash(&(3 * n + 2)));
    let addition = |(item, randomness, preimage): (Digest, Digest, Digest)| commit(item, randomness, Tip5::hash(&preimage));
    let first = MutatorSetUpdate::new(vec![], (0..6).map(|n| addition(item(n))).collect());

    // The first new UTXO, and how to spend it after the first block.
    let (spent, randomness, preimage) = item(0);
    let mut state = mutator_set.clone();
    let mut proof = state.prove(spent, randomness, preimage);
    for (i, addition) in first.additions.iter().enumerate() {
        if i > 0 {
            proof.update_from_addition(spent, &state, addition).map_err(|error| anyhow!("{error}"))?;
        }
        state.add(addition);
    }
    let second = MutatorSetUpdate::new(vec![state.drop(spent, &proof)], (6..10).map(|n| addition(item(n))).collect());
    Ok(MutatorSetUpdate::compose(&[(state, second), (mutator_set.clone(), first)]))
}

/// The update of the raised transaction over [`two_blocks`].
///
/// # Errors
/// When the stored proof is missing or refused.
pub async fn update() -> Result<Step> {
    let mutator_set = transaction()?.mutator_set_accumulator;
    Ok(jobs::update(raised().await?, &mutator_set, &two_blocks(&mutator_set)?)?)
}

/// All four, by the names that files of them have.
///
/// # Errors
/// As for each of them.
pub async fn all() -> Result<Vec<(&'static str, Step)>> {
    Ok(vec![
        ("raise-2in", raise().await?),
        ("raise-gobbler", raise_gobbler().await?),
        ("merge-gobbler-2in", merge().await?),
        ("update-2in", update().await?),
    ])
}

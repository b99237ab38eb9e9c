//! Coins of the dev node, and transactions that spend them.

use anyhow::Result;
use fleet::transaction::{LeafJob, ProofCollectionPlan, VerifiedCollection};
use futures::future::try_join_all;
use neptune_consensus::block::pow::LustrationStatus;
use neptune_consensus::transaction::announcement::Announcement;
use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use neptune_consensus::transaction::transaction_kernel::TransactionKernelProxy;
use neptune_consensus::transaction::transparent_input::TransparentInput;
use neptune_consensus::transaction::utxo::Utxo;
use neptune_consensus::transaction::validity::proof_collection::ProofCollection;
use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_mutator_set::addition_record::AdditionRecord;
use neptune_mutator_set::authenticated_item::AuthenticatedItem;
use neptune_mutator_set::commit;
use neptune_mutator_set::mutator_set_accumulator::MutatorSetAccumulator;
use neptune_primitives::network::Network;
use neptune_primitives::timestamp::Timestamp;
use neptune_wallet::address::generation_address::GenerationSpendingKey;
use prover_api::JobKind;
use prover_api::client::{Client, JobBody, ProveOptions};
use triton_vm::prelude::{Digest, Tip5};

/// A UTXO of the dev node's with its place in the mutator set of some block.
#[derive(Debug, Clone)]
pub struct Coin {
    pub utxo: Utxo,
    pub place: AuthenticatedItem,
}

/// Why there is no transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpendError {
    /// All coins are spent or promised.
    #[error("the dev node has no free coin left; mine a block")]
    NoCoin,
    /// The coins are worth less.
    #[error("the fee is more than a coin of the dev node is worth")]
    FeeTooHigh,
}

/// The dev node's only key. It guards nothing.
pub fn key() -> GenerationSpendingKey {
    GenerationSpendingKey::derive_from_seed(Tip5::hash(&0xde5_u64))
}

/// An output to the dev node, before it is in the mutator set.
#[derive(Debug, Clone)]
pub struct Output {
    pub utxo: Utxo,
    pub sender_randomness: Digest,
}

impl Output {
    pub fn new(amount: NativeCurrencyAmount, seed: u64) -> Self {
        let utxo = Utxo::new_native_currency(key().to_address().lock_script().hash(), amount);
        Self { utxo, sender_randomness: Tip5::hash(&seed) }
    }

    pub fn addition_record(&self) -> AdditionRecord {
        commit(Tip5::hash(&self.utxo), self.sender_randomness, key().to_address().receiver_postimage())
    }
}

/// A transaction that spends one coin: half of it goes back to the dev node, the fee to whoever mines and upgrades.
///
/// Gives its witness. The seed makes it its own. Where old coins need lustration it announces openly which one
/// it spends.
pub fn spend(
    coin: &Coin,
    mutator_set: &MutatorSetAccumulator,
    fee: NativeCurrencyAmount,
    now: Timestamp,
    seed: u64,
    lustration: Option<LustrationStatus>,
) -> Result<PrimitiveWitness, SpendError> {
    let amount = coin.utxo.get_native_currency_amount();
    if fee.is_negative() || fee > amount {
        return Err(SpendError::FeeTooHigh);
    }
    let rest = amount + -fee;
    let change = rest.half();
    let outputs = [Output::new(change, 2 * seed), Output::new(rest + -change, 2 * seed + 1)];
    let key = key();
    let proof = coin.place.ms_membership_proof.clone();
    let spent = TransparentInput {
        utxo: coin.utxo.clone(),
        aocl_leaf_index: proof.aocl_leaf_index,
        sender_randomness: proof.sender_randomness,
        receiver_preimage: proof.receiver_preimage,
    };
    let announcements = lustration.map(|status| Announcement::lustration_announcements(status, &[spent]));
    let kernel = TransactionKernelProxy {
        inputs: vec![mutator_set.drop(Tip5::hash(&coin.utxo), &proof)],
        outputs: outputs.iter().map(Output::addition_record).collect(),
        announcements: announcements.unwrap_or_default(),
        fee,
        coinbase: None,
        timestamp: now,
        mutator_set_hash: mutator_set.hash(),
        merge_bit: false,
    }
    .into_kernel();
    Ok(PrimitiveWitness::generate_primitive_witness(
        vec![(coin.utxo.clone(), key.lock_script_and_witness(), proof)],
        outputs.iter().map(|output| output.utxo.clone()).collect(),
        outputs.iter().map(|output| output.sender_randomness).collect(),
        vec![key.to_address().receiver_postimage(); outputs.len()],
        kernel,
        mutator_set.clone(),
    ))
}

/// The transaction, backed by its witness alone.
pub fn unproven(witness: &PrimitiveWitness) -> Transaction {
    Transaction { kernel: witness.kernel.clone(), proof: TransactionProof::Witness(witness.clone()) }
}

/// The transaction, backed by a ProofCollection of mock proofs.
pub fn proven(witness: &PrimitiveWitness) -> Transaction {
    let collection = ProofCollection::produce_mock(witness, true);
    Transaction { kernel: witness.kernel.clone(), proof: TransactionProof::ProofCollection(collection) }
}

/// The transaction, backed by a ProofCollection that prover pods make, accepted by the network's rules.
///
/// # Errors
/// When a pod makes no proof.
pub async fn prove(witness: &PrimitiveWitness, pods: &Client, network: Network) -> Result<Transaction> {
    let ProofCollectionPlan { jobs, frame } = ProofCollectionPlan::new(witness).await?;
    let proof = |LeafJob { leaf, job }: LeafJob| async move {
        let options = ProveOptions { kind: JobKind::Leaf, ..ProveOptions::default() };
        anyhow::Ok((leaf, pods.prove(JobBody::from_job(&job)?, options).await?.proof))
    };
    let proofs = try_join_all(jobs.into_iter().map(proof)).await?.into_iter().collect();
    let collection = VerifiedCollection::check(frame.assemble(proofs)?, network).await?.into_inner();
    Ok(Transaction { kernel: witness.kernel.clone(), proof: TransactionProof::ProofCollection(collection) })
}

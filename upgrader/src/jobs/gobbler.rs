//! The transaction by which an upgrader keeps part of a fee.
//!
//! No inputs, one output to the operator, a negative fee: merged with the raised transaction, it moves part of that one's fee
//! into its own output. It has to be proven like any transaction, ProofCollection first.

use fleet::transaction::{ProofCollectionPlan, WitnessError};
use neptune_consensus::transaction::announcement::Announcement;
use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use neptune_consensus::transaction::transaction_kernel::{TransactionKernel, TransactionKernelProxy};
use neptune_consensus::transaction::utxo::Utxo;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_mutator_set::commit;
use neptune_mutator_set::mutator_set_accumulator::MutatorSetAccumulator;
use neptune_primitives::timestamp::Timestamp;
use triton_vm::prelude::{Digest, Tip5};

/// Who gets the fee, and how they learn of it.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// Hash of the script that locks the fee.
    pub lock_script_hash: Digest,
    /// The recipient's privacy digest.
    pub receiver_digest: Digest,
}

/// A gobbler on its way to its ProofCollection.
#[derive(Debug)]
pub struct Gobbler {
    /// Its kernel.
    pub kernel: TransactionKernel,
    /// Its five leaf jobs and the frame for their proofs. They hold no secret: there is no input to spend.
    pub plan: ProofCollectionPlan,
    witness: PrimitiveWitness,
}

/// Builds the gobbler that moves `amount` to a recipient.
///
/// It stands on the mutator set and has the timestamp of the transaction that it will be merged with. `announcement` gives
/// the fee's notification, if any, made for the UTXO that it gets.
///
/// # Errors
/// [`WitnessError`] when neptune-consensus finds it invalid: the amount is negative, or not representable.
pub async fn gobbler(
    amount: NativeCurrencyAmount,
    recipient: &Recipient,
    sender_randomness: Digest,
    mutator_set: MutatorSetAccumulator,
    timestamp: Timestamp,
    announcement: impl FnOnce(&Utxo) -> Option<Announcement>,
) -> Result<Gobbler, WitnessError> {
    let utxo = Utxo::new_native_currency(recipient.lock_script_hash, amount);
    let kernel = TransactionKernelProxy {
        inputs: vec![],
        outputs: vec![commit(Tip5::hash(&utxo), sender_randomness, recipient.receiver_digest)],
        announcements: announcement(&utxo).into_iter().collect(),
        fee: -amount,
        coinbase: None,
        timestamp,
        mutator_set_hash: mutator_set.hash(),
        merge_bit: false,
    }
    .into_kernel();
    let witness = PrimitiveWitness::generate_primitive_witness(
        vec![],
        vec![utxo],
        vec![sender_randomness],
        vec![recipient.receiver_digest],
        kernel.clone(),
        mutator_set,
    );
    let plan = ProofCollectionPlan::new(&witness).await?;
    Ok(Gobbler { kernel, plan, witness })
}

impl Gobbler {
    /// The witness behind the jobs.
    pub fn witness(&self) -> &PrimitiveWitness {
        &self.witness
    }
}

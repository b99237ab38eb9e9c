//! The steps of an upgrade as prover jobs: which claim each comes down to, and the program and non-determinism that prove it.
//!
//! Each step is first only *planned* ([`raise()`], [`merge()`], [`update()`]): cheap, on kernels alone, and enough for the
//! claim, hence for looking up whether somebody proves it already. [`Step::into_job`] then builds the whole job, which runs
//! the STARK verifier over every inner proof and makes 20 to 35 MB of non-determinism.
//!
//! Everything is neptune-consensus' own code, called in the order in which a node calls it: program, claim and
//! non-determinism equal the node's word for word. What that code would panic over is checked here first.

mod check;
mod gobbler;
mod height;

pub use check::{CheckedProof, InvalidProof};
pub use gobbler::{Gobbler, Recipient, gobbler};
pub use height::expected_log2_padded_height;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fleet::transaction::{RULE_SET, VerifiedCollection};
use neptune_consensus::block::mutator_set_update::MutatorSetUpdate;
use neptune_consensus::transaction::transaction_kernel::{TransactionKernel, TransactionKernelModifier};
use neptune_consensus::transaction::validity::single_proof::{SingleProofWitness, single_proof_claim};
use neptune_consensus::transaction::validity::tasm::single_proof::merge_branch::MergeWitness;
use neptune_consensus::transaction::validity::tasm::single_proof::update_branch::UpdateWitness;
use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_mutator_set::mutator_set_accumulator::MutatorSetAccumulator;
use neptune_primitives::mast_hash::MastHash;
use prover_api::{JobKind, MockJob, ProverJob};
use tasm_lib::twenty_first::util_types::mmr::mmr_successor_proof::MmrSuccessorProof;
use triton_vm::prelude::{Claim, Digest};

/// The claim that a SingleProof of this kernel proves, whichever step made it.
pub fn claim_of(kernel: &TransactionKernel) -> Claim {
    single_proof_claim(kernel.mast_hash(), RULE_SET)
}

/// One SingleProof to make, and the kernel of the transaction that it will back.
#[derive(Debug, Clone)]
pub struct Step {
    /// Raise, merge or update.
    pub kind: JobKind,
    /// The transaction's kernel once this is proven.
    pub kernel: TransactionKernel,
    witness: Box<SingleProofWitness>,
    log2_padded_height: u8,
}

/// Why transactions cannot be upgraded like this, before anything is proven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The collection is another transaction's.
    #[error("the proof collection belongs to another kernel")]
    ForeignCollection,
    /// The two transactions are synced to different blocks.
    #[error("the transactions are valid for different mutator sets; update one of them first")]
    MutatorSetsDiffer,
    /// Only composers merge those.
    #[error("a coinbase transaction cannot be merged by an upgrader")]
    Coinbase,
    /// The gobbler has to stand left.
    #[error("the right-hand transaction pays a negative fee")]
    NegativeFeeRight,
    /// Both spend one UTXO.
    #[error("the transactions spend the same UTXO")]
    Conflict,
    /// Nothing to re-synchronize.
    #[error("a transaction without inputs cannot be updated")]
    NoInputs,
    /// The given mutator set is not the transaction's.
    #[error("the transaction is not valid for the mutator set that it is to be updated from")]
    OtherMutatorSet,
    /// A block spent one of its inputs.
    #[error("input {0} was spent by a block since")]
    Spent(usize),
    /// The update does not apply.
    #[error("the mutator-set update does not apply; the blocks contradict each other")]
    Inconsistent,
    /// neptune-consensus panicked over an inner proof that its verifier had accepted, or over an unverified one.
    #[error("neptune-consensus cannot verify an inner proof inside its program; the transaction is passed over")]
    Poison,
}

/// The raise of a ProofCollection.
///
/// # Errors
/// [`StepError::ForeignCollection`].
pub fn raise(kernel: TransactionKernel, collection: VerifiedCollection) -> Result<Step, StepError> {
    if collection.collection().kernel_mast_hash != kernel.mast_hash() {
        return Err(StepError::ForeignCollection);
    }
    let log2_padded_height = expected_log2_padded_height(JobKind::Raise, collection.collection().num_proofs());
    let witness = Box::new(SingleProofWitness::from_collection(collection.into_inner()));
    Ok(Step { kind: JobKind::Raise, kernel, witness, log2_padded_height })
}

/// The merge of two transactions. A gobbler, whose fee is negative, stands left.
///
/// # Errors
/// [`StepError`] for each of the node's preconditions that does not hold.
pub fn merge(left: CheckedProof, right: CheckedProof, shuffle_seed: [u8; 32]) -> Result<Step, StepError> {
    if left.kernel().mutator_set_hash != right.kernel().mutator_set_hash {
        return Err(StepError::MutatorSetsDiffer);
    }
    if left.kernel().coinbase.is_some() || right.kernel().coinbase.is_some() {
        return Err(StepError::Coinbase);
    }
    if right.kernel().fee.is_negative() {
        return Err(StepError::NegativeFeeRight);
    }
    let spent_left = |input: &_| left.kernel().inputs.iter().any(|other| other.absolute_indices == *input);
    if right.kernel().inputs.iter().any(|input| spent_left(&input.absolute_indices)) {
        return Err(StepError::Conflict);
    }
    let inputs = left.kernel().inputs.len() + right.kernel().inputs.len();
    let [left, right] = [left, right].map(|checked| {
        let (kernel, proof) = checked.into_parts();
        Transaction { kernel, proof: TransactionProof::SingleProof(proof) }
    });
    let witness = MergeWitness::from_transactions(left, right, shuffle_seed);
    Ok(Step {
        kind: JobKind::Merge,
        kernel: witness.new_kernel.clone(),
        witness: Box::new(SingleProofWitness::from_merge(witness)),
        log2_padded_height: expected_log2_padded_height(JobKind::Merge, inputs),
    })
}

/// The update of a transaction from `mutator_set`, for which it is valid, over all that blocks changed since.
///
/// # Errors
/// [`StepError`] when the transaction cannot be brought forward: spent, without inputs, or not of that mutator set.
pub fn update(old: CheckedProof, mutator_set: &MutatorSetAccumulator, since: &MutatorSetUpdate) -> Result<Step, StepError> {
    let (old_kernel, old_proof) = old.into_parts();
    let (new_kernel, new_mutator_set) = updated_kernel(&old_kernel, mutator_set, since)?;
    let commitments: Vec<Digest> = since.additions.iter().map(|addition| addition.canonical_commitment).collect();
    let successor = MmrSuccessorProof::new_from_batch_append(&mutator_set.aocl, &commitments);
    let log2_padded_height = expected_log2_padded_height(JobKind::Update, old_kernel.inputs.len());
    let witness = UpdateWitness::from_old_transaction(
        old_kernel,
        old_proof,
        mutator_set.clone(),
        new_kernel.clone(),
        new_mutator_set,
        successor,
    );
    let witness = Box::new(SingleProofWitness::from_update(witness));
    Ok(Step { kind: JobKind::Update, kernel: new_kernel, witness, log2_padded_height })
}

/// The kernel as it is after the update, and the mutator set that it is valid for then. Its timestamp stays, as upstream.
///
/// # Errors
/// [`StepError`] as for [`update()`].
pub fn updated_kernel(
    kernel: &TransactionKernel,
    mutator_set: &MutatorSetAccumulator,
    since: &MutatorSetUpdate,
) -> Result<(TransactionKernel, MutatorSetAccumulator), StepError> {
    if kernel.inputs.is_empty() {
        return Err(StepError::NoInputs);
    }
    if kernel.mutator_set_hash != mutator_set.hash() {
        return Err(StepError::OtherMutatorSet);
    }
    let is_spent = |indices: &_| since.removals.iter().any(|removal| removal.absolute_indices == *indices);
    if let Some(index) = kernel.inputs.iter().position(|input| is_spent(&input.absolute_indices)) {
        return Err(StepError::Spent(index));
    }
    let mut inputs = kernel.inputs.clone();
    let mut new_mutator_set = mutator_set.clone();
    // Removal records come from strangers; upstream's arithmetic on them indexes without looking.
    catch_unwind(AssertUnwindSafe(|| {
        let mut records: Vec<_> = inputs.iter_mut().collect();
        since.apply_to_accumulator_and_records(&mut new_mutator_set, &mut records, &mut [])
    }))
    .map_err(|_| StepError::Inconsistent)?
    .map_err(|_| StepError::Inconsistent)?;
    if let Some(index) = inputs.iter().position(|input| !new_mutator_set.can_remove(input)) {
        return Err(StepError::Spent(index));
    }
    let new_kernel =
        TransactionKernelModifier::default().inputs(inputs).mutator_set_hash(new_mutator_set.hash()).clone_modify(kernel);
    Ok((new_kernel, new_mutator_set))
}

impl Step {
    /// What is to be proven: the identity of the job.
    pub fn claim(&self) -> Claim {
        self.witness.claim(RULE_SET)
    }

    /// The padded height that the step will have, from measured jobs of its kind; exact only once it is traced.
    pub fn expected_log2_padded_height(&self) -> u8 {
        self.log2_padded_height
    }

    /// The whole job. Takes about a second and up to 2 GB at its peak; run it where blocking is allowed.
    ///
    /// # Errors
    /// [`StepError::Poison`] when neptune-consensus panics over the inner proofs.
    pub fn into_job(self) -> Result<ProverJob, StepError> {
        let witness = self.witness;
        catch_unwind(AssertUnwindSafe(move || {
            ProverJob::new(witness.program(RULE_SET), witness.claim(RULE_SET), witness.nondeterminism(RULE_SET))
        }))
        .map_err(|_| StepError::Poison)
    }

    /// The job of a network with mock proofs: the same claim, kind and height, and as long as a device would take.
    pub fn into_mock_job(self, duration: Duration) -> MockJob {
        MockJob {
            claim: self.claim(),
            kind: self.kind,
            log2_padded_height: self.log2_padded_height,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

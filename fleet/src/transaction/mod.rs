//! From a Neptune transaction to its proof jobs and back to a proof that the chain accepts.
//!
//! A transaction enters the network with a *ProofCollection*: four proofs about the kernel, one for each input's lock
//! script and one for each type script. [`ProofCollectionPlan::new`] lists their jobs; the proofs that a prover returns
//! are put together by [`Frame::assemble`] and checked by [`VerifiedCollection::check`], which is neptune-consensus'
//! own verifier and nothing else. The *raise* of that collection to a SingleProof is [`single_proof::raise_job`].

mod collection;
pub mod example;
pub mod file;
mod leaf;
pub mod single_proof;

pub use collection::{AssembleError, Frame, NotValid, VerifiedCollection};
pub use leaf::{Leaf, LeafJob, ParseLeafError};

use std::panic::AssertUnwindSafe;

use neptune_consensus::consensus_rule_set::ConsensusRuleSet;
use neptune_consensus::proof_abstractions::SecretWitness;
use neptune_consensus::transaction::primitive_witness::{PrimitiveWitness, WitnessValidationError};
use neptune_consensus::transaction::validity::collect_lock_scripts::CollectLockScriptsWitness;
use neptune_consensus::transaction::validity::collect_type_scripts::CollectTypeScriptsWitness;
use neptune_consensus::transaction::validity::kernel_to_outputs::KernelToOutputsWitness;
use neptune_consensus::transaction::validity::removal_records_integrity::RemovalRecordsIntegrityWitness;
use prover_api::ProverJob;
use triton_vm::prelude::{BFieldElement, Claim, Digest, NonDeterminism, Program};
use triton_vm::proof::CURRENT_VERSION;

/// The rules under which this version of neptune-consensus can prove: proof version 8, `SingleProof` with the chain
/// branches. Earlier rule sets can be verified but not proven, so nothing here offers a choice.
pub const RULE_SET: ConsensusRuleSet = ConsensusRuleSet::HardforkDelta;

/// Every proof job of a transaction's ProofCollection, and the public frame that its proofs fit into.
///
/// The jobs hold the spender's secrets; the frame holds none, so a caller may send the jobs off, drop them, and
/// assemble later.
#[derive(Debug)]
pub struct ProofCollectionPlan {
    /// One job for each proof, in the order in which neptune-core makes them.
    pub jobs: Vec<LeafJob>,
    /// What the collection says beside its proofs.
    pub frame: Frame,
}

/// Why a witness gives no jobs.
///
/// The messages name what is wrong and never show a value from the witness: it holds spending secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WitnessError {
    /// Neptune's own validation says no.
    #[error("the transaction is not valid: {0}; build it again from a synced wallet")]
    Invalid(&'static str),
    /// The parts of the witness do not fit together at all: neptune-consensus panicked over it.
    #[error("the transaction file is damaged: its parts contradict each other (lengths or tree paths); export it again")]
    Inconsistent,
}

impl ProofCollectionPlan {
    /// Validates the witness as a node would, then lists its jobs.
    ///
    /// # Errors
    ///
    /// [`WitnessError`] when the chain would refuse the transaction or the witness is damaged.
    pub async fn new(witness: &PrimitiveWitness) -> Result<Self, WitnessError> {
        validate(witness).await?;
        std::panic::catch_unwind(AssertUnwindSafe(|| Self::of_valid(witness))).map_err(|_| WitnessError::Inconsistent)
    }

    fn of_valid(witness: &PrimitiveWitness) -> Self {
        let frame = Frame::of(witness);
        let kernel = reversed(&[frame.kernel_mast_hash]);
        let type_script_input = reversed(&[frame.kernel_mast_hash, frame.salted_inputs_hash, frame.salted_outputs_hash]);

        let mut jobs = vec![
            kernel_leaf(Leaf::RemovalRecordsIntegrity, &RemovalRecordsIntegrityWitness::from(witness)),
            kernel_leaf(Leaf::CollectLockScripts, &CollectLockScriptsWitness::from(witness)),
            kernel_leaf(Leaf::KernelToOutputs, &KernelToOutputsWitness::from(witness)),
            kernel_leaf(Leaf::CollectTypeScripts, &CollectTypeScriptsWitness::from(witness)),
        ];
        jobs.extend(
            witness
                .lock_scripts_and_witnesses
                .iter()
                .enumerate()
                .map(|(i, script)| script_leaf(Leaf::LockScript(i), script.program.clone(), &kernel, script.nondeterminism())),
        );
        jobs.extend(witness.type_scripts_and_witnesses.iter().enumerate().map(|(i, script)| {
            script_leaf(Leaf::TypeScript(i), script.program.clone(), &type_script_input, script.nondeterminism())
        }));
        Self { jobs, frame }
    }
}

/// Neptune's own validation of the witness, with errors stripped of what the VM held when it stopped.
async fn validate(witness: &PrimitiveWitness) -> Result<(), WitnessError> {
    use futures::FutureExt;

    let outcome = AssertUnwindSafe(witness.validate()).catch_unwind().await;
    let reason = match outcome {
        Ok(Ok(())) => return Ok(()),
        Err(_panic) => return Err(WitnessError::Inconsistent),
        Ok(Err(error)) => match error {
            WitnessValidationError::InvalidLockScript(_) => "a lock script does not unlock its input",
            WitnessValidationError::InvalidMembershipProof { .. } => "an input's membership proof does not fit the mutator set",
            WitnessValidationError::MissingTypeScriptWitness { .. } => "the witness of a type script is missing",
            WitnessValidationError::TooManyTypeScriptWitnesses { .. } => "there are more type scripts than coins need",
            WitnessValidationError::InvalidTypeScript { .. } => "a type script refuses (do the amounts balance?)",
            WitnessValidationError::RemovalRecordsMismatch { .. } => "the kernel's inputs are not those of the witness",
            WitnessValidationError::MutatorSetMismatch { .. } => "the kernel names another mutator set than the witness",
            WitnessValidationError::MergeBitSet => "the merge bit is set, which only a merged transaction may have",
            _ => "neptune-consensus refuses the witness",
        },
    };
    Err(WitnessError::Invalid(reason))
}

fn kernel_leaf(leaf: Leaf, witness: &impl SecretWitness) -> LeafJob {
    let claim = witness.claim().about_version(CURRENT_VERSION);
    LeafJob { leaf, job: ProverJob::new(witness.program(), claim, witness.nondeterminism()) }
}

fn script_leaf(leaf: Leaf, program: Program, input: &[BFieldElement], secret: NonDeterminism) -> LeafJob {
    let claim = Claim::new(program.hash()).about_version(CURRENT_VERSION).with_input(input);
    LeafJob { leaf, job: ProverJob::new(program, claim, secret) }
}

/// Digests as a program reads them: each with its last element first.
fn reversed(digests: &[Digest]) -> Vec<BFieldElement> {
    digests.iter().flat_map(|digest| digest.reversed().values()).collect()
}

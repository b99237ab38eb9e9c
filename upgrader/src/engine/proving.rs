//! One proof: building its job, having it proven, checking the answer.

use std::sync::Arc;

use fleet::transaction::{Leaf, LeafJob};
use neptune_consensus::transaction::validity::neptune_proof::NeptuneProof;
use prover_api::client::{ClientError, JobBody, ProveOptions, Proved};
use prover_api::{JobId, JobKind, MockJob, Priority, ProblemType};
use triton_vm::prelude::Proof;

use super::context::{Context, Proving};
use crate::dag::{Failure, Node};
use crate::jobs::{CheckedProof, Step, StepError};
use crate::policy::Incentive;

/// What came of a proof.
#[derive(Debug)]
pub enum Made {
    /// A proof of the gobbler's collection.
    Leaf(Leaf, Proof),
    /// A SingleProof.
    Single(Box<CheckedProof>),
}

/// Priority of a proof: an update of what is ours is what a node does first after a block; the rest is gobbling.
pub fn priority(node: Node, incentive: Incentive) -> Priority {
    match (node, incentive) {
        (Node::Update, Incentive::BalanceAffecting(_)) => Priority::Highest,
        _ => Priority::Low,
    }
}

/// Makes a SingleProof.
///
/// # Errors
/// [`Failure`], typed.
pub async fn single(context: Arc<Context>, step: Step, priority: Priority) -> Result<Made, Failure> {
    let (kind, kernel, id) = (step.kind, step.kernel.clone(), JobId::of(&step.claim()));
    let options = ProveOptions { priority, kind, ..ProveOptions::default() };
    tracing::debug!(job = %id, kind = kind.name(), "asking for a proof");
    let proved = match context.proving {
        Proving::Mock { time } => {
            let duration = Proving::mock_duration(time, step.expected_log2_padded_height());
            context.provers.prove_mock(&step.into_mock_job(duration), options).await
        }
        Proving::Real => {
            let permit = context.heavy.acquire().await;
            let built = tokio::task::spawn_blocking(move || {
                let job = step.into_job()?;
                JobBody::from_job(&job).map_err(|_| StepError::Poison)
            });
            let body =
                built.await.map_err(|_| poison("building the job panicked"))?.map_err(|error| poison(&error.to_string()))?;
            drop(permit);
            context.provers.prove(body, options).await
        }
    };
    let proof = taken(&context, kind, id, proved)?.proof;
    let checked = CheckedProof::check(kernel, NeptuneProof::from(proof), context.network).await;
    checked.map(|checked| Made::Single(Box::new(checked))).map_err(|error| poison(&error.to_string()))
}

/// Makes a proof of the gobbler's collection.
///
/// # Errors
/// [`Failure`], typed.
pub async fn leaf(context: Arc<Context>, job: LeafJob, priority: Priority) -> Result<Made, Failure> {
    let options = ProveOptions { priority, kind: JobKind::Leaf, ..ProveOptions::default() };
    let id = job.job.id();
    tracing::debug!(job = %id, kind = JobKind::Leaf.name(), "asking for a proof");
    let proved = match context.proving {
        Proving::Mock { time } => {
            let log2_padded_height = expected_leaf_height(job.leaf);
            let duration = Proving::mock_duration(time, log2_padded_height);
            let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let mock = MockJob { claim: job.job.claim, kind: JobKind::Leaf, log2_padded_height, duration_ms };
            context.provers.prove_mock(&mock, options).await
        }
        Proving::Real => {
            let body = JobBody::from_job(&job.job).map_err(|error| poison(&error.to_string()))?;
            context.provers.prove(body, options).await
        }
    };
    Ok(Made::Leaf(job.leaf, taken(&context, JobKind::Leaf, id, proved)?.proof))
}

/// Measured heights of a gobbler's leaf proofs (no inputs, one output).
fn expected_leaf_height(leaf: Leaf) -> u8 {
    match leaf {
        Leaf::RemovalRecordsIntegrity => 15,
        Leaf::CollectLockScripts => 12,
        Leaf::KernelToOutputs | Leaf::CollectTypeScripts => 13,
        Leaf::TypeScript(_) => 14,
        Leaf::LockScript(_) => 8,
    }
}

fn taken(context: &Context, kind: JobKind, id: JobId, proved: Result<Proved, ClientError>) -> Result<Proved, Failure> {
    match proved {
        Ok(proved) => {
            if let Some(status) = &proved.status {
                let seconds = status.seconds.proved.unwrap_or_default() + status.seconds.traced.unwrap_or_default();
                context.metrics.proved(kind, seconds);
            }
            tracing::debug!(job = %id, kind = kind.name(), pod = proved.pod, "proof is there");
            Ok(proved)
        }
        Err(error) => Err(failure(error)),
    }
}

fn poison(because: &str) -> Failure {
    Failure::Poison { because: because.to_owned() }
}

fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::TooBig { log2_padded_height, .. } => Failure::TooBig { log2_padded_height },
        ClientError::Refused { problem, .. }
            if matches!(problem.problem_type, ProblemType::ProgramFailed | ProblemType::MalformedJob) =>
        {
            poison(&problem.to_string())
        }
        ClientError::Encoding(because) => Failure::Poison { because },
        other => Failure::NoProver { because: other.to_string() },
    }
}

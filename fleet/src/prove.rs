//! Many jobs at once, on whatever pods there are, with their progress on a board.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use prover_api::client::{Client, ClientError, JobBody, ProveOptions};
use prover_api::{JobKind, JobStatus, Priority, ProverJob};
use triton_vm::prelude::{Claim, Proof};

use crate::progress::{Board, Line};

/// A job and the name under which a person knows it.
#[derive(Debug, Clone)]
pub struct NamedJob {
    /// Name, for the board and for files.
    pub name: String,
    /// What to prove.
    pub job: ProverJob,
    /// What it is for.
    pub kind: JobKind,
}

/// What the caller wants of all jobs alike.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// How urgent.
    pub priority: Priority,
    /// Not on a GPU.
    pub force_cpu: bool,
    /// When to give up, from now.
    pub deadline: Option<Duration>,
}

/// A verified proof and where it came from.
#[derive(Debug, Clone)]
pub struct Proved {
    /// Verified here, not only by the pod.
    pub proof: Proof,
    /// Base URL of the pod that answered.
    pub pod: String,
    /// What that pod last said of the job; nothing when the proof was cached there.
    pub status: Option<JobStatus>,
    /// Kind of prover that made it; nothing when the proof was cached there.
    pub backend: Option<String>,
    /// From the call to the verified proof, waiting included.
    pub elapsed: Duration,
}

/// What became of a job.
#[derive(Debug)]
pub struct JobResult {
    /// Its name.
    pub name: String,
    /// Its claim.
    pub claim: Claim,
    /// The proof, or why there is none.
    pub outcome: Result<Proved, ClientError>,
}

/// Proves all jobs and returns when each has ended. Dropping the future cancels those that have not.
///
/// Results come in the order of the jobs.
pub async fn prove_all(client: &Client, jobs: Vec<NamedJob>, wishes: Wishes, board: &Board) -> Vec<JobResult> {
    // All lines first: the board shows what is to come, in order.
    let lines: Vec<_> = jobs.iter().map(|job| Arc::new(board.line(job.name.clone()))).collect();
    join_all(jobs.into_iter().zip(lines).map(|(job, line)| prove_one(client, job, wishes, line))).await
}

async fn prove_one(client: &Client, job: NamedJob, wishes: Wishes, line: Arc<Line>) -> JobResult {
    let NamedJob { name, job, kind } = job;
    let claim = job.claim.clone();
    let started = Instant::now();
    line.update(0.0, "sending");
    // A job that is done has no backend any more: its worker has others. What it had last is what counts.
    let backend = Arc::new(Mutex::new(None));
    let outcome = prove(client, job, kind, wishes, line.clone(), backend.clone()).await;
    let outcome = outcome.map(|proved| Proved {
        proof: proved.proof,
        pod: proved.pod,
        status: proved.status,
        backend: backend.lock().unwrap_or_else(PoisonError::into_inner).take(),
        elapsed: started.elapsed(),
    });
    match &outcome {
        Ok(proved) => line.done(&ended(proved)),
        Err(error) => line.finish(&format!("failed: {error}")),
    }
    JobResult { name, claim, outcome }
}

async fn prove(
    client: &Client,
    job: ProverJob,
    kind: JobKind,
    wishes: Wishes,
    line: Arc<Line>,
    backend: Arc<Mutex<Option<String>>>,
) -> Result<prover_api::client::Proved, ClientError> {
    let body = JobBody::from_job(&job).map_err(|error| ClientError::Encoding(error.to_string()))?;
    // From here on the body is the only copy.
    drop(job);
    let Wishes { priority, force_cpu, deadline } = wishes;
    let progress = Arc::new(move |pod: &str, status: &JobStatus| {
        line.update(status.progress, &told(pod, status));
        if let Some(name) = &status.backend {
            *backend.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.clone());
        }
    });
    client.prove(body, ProveOptions { priority, kind, force_cpu, deadline, progress: Some(progress) }).await
}

/// The state of a job in a few words.
fn told(pod: &str, status: &JobStatus) -> String {
    let height = status.log2_padded_height.map_or(String::new(), |height| format!(" 2^{height}"));
    let position = status.position.filter(|&position| position > 0).map_or(String::new(), |ahead| format!(", {ahead} ahead"));
    format!("{}{height} on {pod}{position}", status.state.name())
}

fn ended(proved: &Proved) -> String {
    let height = proved.status.as_ref().and_then(|status| status.log2_padded_height);
    let height = height.map_or(String::new(), |height| format!(" 2^{height}"));
    format!("proven and verified{height} on {} in {:.1} s", proved.pod, proved.elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use prover_api::{JobId, JobState, StageSeconds};
    use triton_vm::prelude::Digest;

    use super::*;

    fn status(state: JobState, position: Option<usize>, log2_padded_height: Option<u8>) -> JobStatus {
        JobStatus {
            id: JobId::of(&Claim::new(Digest::default())),
            state,
            priority: Priority::Normal,
            position,
            progress: 0.5,
            stage: None,
            log2_padded_height,
            backend: None,
            device: None,
            seconds: StageSeconds::default(),
            lost_runs: 0,
            problem: None,
        }
    }

    #[test]
    fn progress_is_told_in_a_few_words() {
        assert_eq!("queued on http://a, 3 ahead", told("http://a", &status(JobState::Queued, Some(3), None)));
        assert_eq!("queued on http://a", told("http://a", &status(JobState::Queued, Some(0), None)));
        assert_eq!("proving 2^16 on http://a", told("http://a", &status(JobState::Proving, None, Some(16))));
    }
}

//! The job scheduler, a pure state machine.
//!
//! Every input is a method that takes the current time and appends [`Effect`]s to a list; nothing here does IO, sleeps or
//! locks. The asynchronous shell around it ([`crate::service`]) carries effects out and reports what happened.
//!
//! # Rules
//! - The claim is the identity of a job: one job runs once, however many callers want it. A caller attaches with an
//!   [`Interest`]; when the last interest goes, so does the job, at whatever stage it is.
//! - Five priorities, first in first out inside one, non-preemptive, no reserved slot. A job has the highest priority of its
//!   callers. The head of the queue gets the next free slot, also when a lower one is traced already; of several GPUs, the next
//!   of that which has its trace, unless another would be sooner.
//! - Only verified proofs are cached. Failures and cancellations are not; a caller that attached with another body gets a run
//!   of its own body when the first fails.
//! - A job whose worker is lost is retried once, elsewhere if there is an elsewhere, then fails typed.
//! - Each interest that was accepted ends in exactly one [`Outcome`], unless the caller itself withdrew it.

mod admission;
mod cache;
mod dispatch;
mod ending;
mod estimate;
mod home;
mod job;
mod reports;
mod routing;
mod state;
#[cfg(test)]
mod tests;
mod view;
mod worker;

use std::time::Duration;

pub use admission::{Admission, MemoryGate};
pub use cache::ProofCache;
pub use estimate::{CostModel, default_rows};
pub use job::{BodyId, Interest, InterestId, JobView, Timings};
use prover_api::{JobId, JobKind, Priority};
pub use routing::{HEIGHTS, Room, Route, Routing, Why};
use serde::{Deserialize, Serialize};
pub use state::Scheduler;
pub use worker::{Backend, Offer, WorkerId, WorkerView};

use crate::memory::LdeMode;

/// Limits of one pod. All are enforced when a job is submitted or dispatched.
#[derive(Debug, Clone)]
pub struct Config {
    /// Jobs that wait for a slot; one more is refused with [`Refusal::QueueFull`].
    pub max_queued: usize,
    /// Bytes of all job bodies held, waiting and running.
    pub max_body_bytes: u64,
    /// How often one body is run when its worker is lost or its proof is wrong. The design's "retried once" is 2.
    pub max_attempts: u32,
    /// Bytes of finished proofs kept for later callers.
    pub proof_cache_bytes: u64,
    /// Statuses of finished jobs kept for `GET /v1/proofs/{id}`.
    pub history: usize,
    /// Wrong proofs after which a device gets no more jobs. 0 never quarantines.
    pub quarantine_after: u32,
    /// Largest log2 padded height this pod takes at all, over and above what memory allows.
    pub max_log2_padded_height: Option<u8>,
    /// CPU or GPU, where there are both.
    pub routing: Routing,
    /// Jobs that a GPU's worker inspects or traces at once beside its proof.
    pub gpu_lanes: usize,
    /// Bytes of the host for jobs that a GPU's worker traces ahead of its proof, times the jobs at once beside the one that is
    /// proven. Bytes and not a number of jobs, or small ones would keep the large one behind them from being ready.
    pub gpu_ahead_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_queued: 16_384,
            max_body_bytes: 2 << 30,
            max_attempts: 2,
            proof_cache_bytes: 256 << 20,
            history: 1_024,
            quarantine_after: 2,
            max_log2_padded_height: None,
            routing: Routing::default(),
            gpu_lanes: 2,
            // Two jobs of 2^22 rows.
            gpu_ahead_bytes: 16 << 30,
        }
    }
}

/// Time since the pod started. The scheduler only compares and subtracts it.
pub type Time = Duration;

/// One caller's request for the proof of one claim.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Identity of the claim.
    pub job: JobId,
    /// Identity of the bytes that came with it: program, non-determinism, limits.
    pub body: BodyId,
    /// Length of those bytes.
    pub bytes: u64,
    /// The caller's priority.
    pub priority: Priority,
    /// Whether the caller asked for the CPU (`X-Force-Cpu`).
    pub force_cpu: bool,
    /// The caller's own limit (`max_log2_padded_height` in the job).
    pub max_log2_padded_height: Option<u8>,
    /// Known height, where the body says it (mock jobs).
    pub log2_padded_height: Option<u8>,
    /// What the job is for.
    pub kind: JobKind,
    /// When the caller no longer wants the answer.
    pub deadline: Option<Time>,
    /// The caller.
    pub interest: InterestId,
}

/// What became of a [`Submission`] at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The proof is in the cache; no interest was registered.
    Cached,
    /// The same claim is in flight; the caller shares its outcome.
    Attached,
    /// A new job waits for a slot.
    Queued,
}

/// Why a [`Submission`] was not accepted. Nothing was registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many jobs or too many bytes are waiting.
    QueueFull {
        /// When to try again.
        retry_after: Duration,
    },
    /// The pod is shutting down.
    Draining,
    /// No device is left that may take jobs.
    NoDevice,
}

/// How an accepted interest ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The proof was made and verified; it is in the cache.
    Proved,
    /// The job failed, and would fail again with this body.
    Failed(Failure),
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// The caller, or another caller with the same client id, cancelled.
    Cancelled,
    /// The pod began to drain before the job got a slot.
    Draining,
}

/// Why a run failed. None of these carries data of the witness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The body does not decode as a job.
    Malformed(String),
    /// The program's digest is not the claim's.
    DigestMismatch,
    /// The program's output is not the claim's.
    OutputMismatch,
    /// The virtual machine crashed.
    ProgramFailed {
        /// Kind of the error, without values.
        error: String,
        /// Clock cycle of the crash.
        cycle: u64,
    },
    /// The program did not halt within the cycle limit.
    Endless {
        /// The limit, in clock cycles.
        cycle_limit: u64,
    },
    /// The padded height is more than the caller or this pod admits.
    TooBig {
        /// log2 of the exact padded height.
        log2_padded_height: u8,
        /// log2 of the largest height admitted.
        limit: u8,
    },
    /// The worker crashed, was killed, or fell silent, as often as the job may be tried.
    WorkerLost,
    /// The device made a proof that does not verify, as often as the job may be tried.
    InvalidProof,
    /// All devices were lost or quarantined.
    NoDevice,
    /// The device had less memory free than the proof needs, as often as the job may be tried.
    DeviceMemory {
        /// Bytes that the proof needs.
        needed: u64,
        /// Bytes that were free.
        free: u64,
    },
    /// The prover itself gave up.
    Prover(String),
}

impl Failure {
    /// Whether another pod might succeed with the same body.
    pub fn is_this_pods_fault(&self) -> bool {
        self.is_worth_a_retry() || matches!(self, Self::WorkerLost | Self::InvalidProof | Self::NoDevice | Self::TooBig { .. })
    }

    /// Whether another device of this pod might succeed with the same body.
    fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Prover(_) | Self::DeviceMemory { .. })
    }
}

/// What the shell must do. Effects are in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Run the program on `worker` only to learn its exact table heights.
    Inspect {
        /// Where.
        worker: WorkerId,
        /// What.
        job: JobId,
        /// With which bytes.
        body: BodyId,
    },
    /// Trace the program on `worker` and keep the trace there.
    Trace {
        /// Where.
        worker: WorkerId,
        /// What.
        job: JobId,
        /// With which bytes.
        body: BodyId,
    },
    /// Prove on `worker`, tracing first unless it holds the trace.
    Prove {
        /// Where.
        worker: WorkerId,
        /// What.
        job: JobId,
        /// With which bytes.
        body: BodyId,
        /// How to spend memory.
        lde: LdeMode,
        /// Why this kind of prover has it.
        why: Why,
    },
    /// Forget a trace or an inspection; the answer, if one comes, is ignored.
    Discard {
        /// Where.
        worker: WorkerId,
        /// What.
        job: JobId,
    },
    /// Stop the proof of `job` on `worker` at once.
    Abort {
        /// Where.
        worker: WorkerId,
        /// What.
        job: JobId,
    },
    /// Kill and restart the worker process; it made a wrong proof.
    Restart {
        /// Which.
        worker: WorkerId,
    },
    /// Verify the proof that `worker` has just returned for `job`, and report under `run`.
    Verify {
        /// Where it was made.
        worker: WorkerId,
        /// What.
        job: JobId,
        /// Number of this verification: a job may end and come again while one is under way.
        run: u64,
    },
    /// Tell a caller.
    Answer {
        /// Whom.
        interest: InterestId,
        /// About which job.
        job: JobId,
        /// What.
        outcome: Outcome,
    },
    /// The public status of a job changed.
    Changed {
        /// Which.
        job: JobId,
    },
    /// The bytes of a body are no longer needed.
    DropBody {
        /// Of which job.
        job: JobId,
        /// Which body.
        body: BodyId,
    },
    /// A proof left the cache.
    DropProof {
        /// Which.
        job: JobId,
    },
}

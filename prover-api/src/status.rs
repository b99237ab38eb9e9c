//! What a pod says of its jobs and of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{JobId, Priority, Problem};

/// Stage of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Waits for a slot.
    Queued,
    /// A worker runs the program, for its height or its trace.
    Tracing,
    /// The trace is ready, the job waits for a slot.
    Traced,
    /// A worker proves.
    Proving,
    /// The pod verifies the proof.
    Verifying,
    /// The proof can be fetched, as long as it is cached.
    Done,
    /// There will be no proof; `problem` says why.
    Failed,
    /// Nobody wanted it any more.
    Cancelled,
}

impl JobState {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Tracing => "tracing",
            Self::Traced => "traced",
            Self::Proving => "proving",
            Self::Verifying => "verifying",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Seconds that a job spent in each stage; absent while the stage is not over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StageSeconds {
    /// From acceptance to a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<f64>,
    /// From the slot to the complete trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traced: Option<f64>,
    /// From the trace to the proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proved: Option<f64>,
    /// From the proof to its verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<f64>,
}

/// Answer of `GET /v1/proofs/{id}`, and the data of each server-sent event of `GET /v1/proofs/{id}/events`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobStatus {
    /// Which.
    #[schema(value_type = String, example = "08a3a707886734ca5f794f464afb396c6d2db4b12e8ea761eb6775b9b8271d3c79436fd5bdf07755")]
    pub id: JobId,
    /// Stage.
    pub state: JobState,
    /// The highest priority among the callers.
    pub priority: Priority,
    /// Jobs that get a slot first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// Estimated progress of the whole job, 0 to 1. The CPU prover offers nothing to measure: inside a proof this is elapsed time
    /// over expected time. A GPU tells its stages.
    #[schema(minimum = 0.0, maximum = 1.0)]
    pub progress: f64,
    /// Stage of the proof: `commit-main`, `commit-aux`, `commit-quotient`, `out-of-domain`, `deep`, `fri`, `open`. Only a GPU
    /// tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Exact, once a worker has run the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log2_padded_height: Option<u8>,
    /// Kind of prover: `cpu`, `gpu`, `mock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The device that has the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Where the time went.
    #[serde(default)]
    pub seconds: StageSeconds,
    /// Runs that were lost and repeated.
    #[serde(default)]
    pub lost_runs: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// One device, as in `GET /v1/devices`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceInfo {
    /// Number of its worker in the pod.
    pub worker: u32,
    /// Kind of prover: `cpu`, `gpu`, `mock`.
    pub backend: String,
    /// Name, for people.
    pub device: String,
    /// Whether it takes jobs: up, self-test passed, not quarantined.
    pub ready: bool,
    /// Whether it made too many wrong proofs and gets no more jobs.
    pub quarantined: bool,
    /// Wrong proofs so far.
    pub wrong_proofs: u32,
    /// Jobs at once.
    pub slots: usize,
    /// Jobs now.
    #[schema(value_type = Vec<String>)]
    pub running: Vec<JobId>,
    /// Process id of the worker; absent while it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Resident bytes of the worker.
    pub rss_bytes: u64,
    /// Times that the worker process was started again.
    pub restarts: u64,
    /// Largest log2 padded height that it takes with nothing else running.
    pub max_log2_padded_height: u8,
    /// About a GPU; absent for other kinds, and until the worker was up once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuInfo>,
}

/// What there is to know of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GpuInfo {
    /// The worker's `CUDA_VISIBLE_DEVICES`: an ordinal, `GPU-...`, or `MIG-...`.
    pub visible_device: String,
    /// UUID of the device, as the vendor's tools show it.
    pub uuid: String,
    /// Compute capability, such as `9.0`.
    pub compute_capability: String,
    /// Bytes of memory in all.
    pub memory_bytes: u64,
    /// Bytes that were free when the worker started: what the plans are made for.
    pub free_memory_bytes: u64,
    /// Jobs at once beside the one that is proven. For each, jobs that are traced ahead of the device may take 16 GiB of the host's
    /// memory, which two of 2^22 rows do.
    pub jobs_ahead: usize,
    /// How a proof of each height fits, up to the largest that does.
    pub plans: Vec<HeightPlan>,
}

/// How a proof of one height fits into a device's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeightPlan {
    /// log2 of the padded height.
    pub log2_padded_height: u8,
    /// `full`, `3 of 8 cosets kept`, or `coset by coset`: the fewer cosets of the low-degree extension are kept, the more are
    /// computed a second time.
    pub plan: String,
}

/// What waits at one priority.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueLength {
    /// Jobs.
    pub jobs: usize,
    /// Their estimated seconds.
    pub seconds: f64,
}

/// Answer of `GET /v1/capacity`: what a client needs to choose a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Capacity {
    /// Whether a job sent now would get a slot at once.
    pub idle: bool,
    /// Whether the pod takes jobs at all: some device is ready, and it is not draining.
    pub ready: bool,
    /// Whether the pod is shutting down.
    pub draining: bool,
    /// Largest log2 padded height that it takes; absent while no device is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_log2_padded_height: Option<u8>,
    /// Jobs at once, over all ready devices.
    pub slots: usize,
    /// Jobs now.
    pub running: usize,
    /// What waits, by priority.
    pub queue: BTreeMap<Priority, QueueLength>,
    /// Bytes of job bodies held, and how many may be.
    pub body_bytes: u64,
    /// Most bytes of job bodies held at once; past it jobs get 429.
    pub max_body_bytes: u64,
    /// Proof versions served.
    pub proof_versions: Vec<u32>,
    /// Kinds of prover: `cpu`, `gpu`, `mock`.
    pub backends: Vec<String>,
    /// Whether this pod serves the mock networks, and only them.
    pub mock: bool,
}

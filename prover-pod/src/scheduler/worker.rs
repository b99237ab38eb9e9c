//! What the scheduler knows of a worker process.

use std::collections::BTreeSet;
use std::fmt;

use prover_api::JobId;
use serde::{Deserialize, Serialize};

use super::Config;

/// A place where proofs are made: one process, one device. The id stays when the process is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Kind of prover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// `triton-vm` on the host's cores.
    Cpu,
    /// Our CUDA prover.
    Gpu,
    /// No proofs at all: the mock networks.
    Mock,
}

impl Backend {
    /// The name in metrics, statuses and flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Mock => "mock",
        }
    }

    /// Whether stopping one job means killing the process: `triton-vm` has no way to stop inside a proof.
    pub fn abort_kills(self) -> bool {
        self == Self::Cpu
    }
}

/// What a worker offers when it comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Kind of prover.
    pub backend: Backend,
    /// Jobs at once. A GPU proves one of them, the others are traced ahead of it.
    pub jobs: usize,
    /// Largest log2 padded height that its device takes, where it has memory of its own.
    pub max_log2_padded_height: Option<u8>,
}

/// Starts in a row that came to nothing, after which a worker no longer counts as one that will come up.
const FAILED_STARTS: u32 = 3;

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub backend: Backend,
    /// Proofs at once. A GPU has one slot: the next job for it is chosen when it is free, not when there is room for a trace.
    pub slots: usize,
    /// Jobs inspected or traced at once outside the slots.
    pub max_lanes: usize,
    /// Bytes of jobs that are traced ahead of a slot, done or under way. None on the CPU: there the trace is a small part of the
    /// proof, and takes its cores.
    pub max_ahead_bytes: u64,
    pub max_log2_height: Option<u8>,
    pub up: bool,
    pub quarantined: bool,
    pub wrong_proofs: u32,
    /// Starts in a row that came to nothing.
    pub failed_starts: u32,
    /// Jobs that hold a slot.
    pub running: BTreeSet<JobId>,
    /// Jobs that are inspected or traced outside a slot.
    pub lanes: BTreeSet<JobId>,
}

impl Worker {
    /// One that was not up yet.
    pub fn expected(backend: Backend, config: &Config) -> Self {
        let mut worker = Self {
            backend,
            slots: 1,
            max_lanes: 1,
            max_ahead_bytes: 0,
            max_log2_height: None,
            up: false,
            quarantined: false,
            wrong_proofs: 0,
            failed_starts: 0,
            running: BTreeSet::new(),
            lanes: BTreeSet::new(),
        };
        worker.take(Offer { backend, jobs: 1, max_log2_padded_height: None }, config);
        worker
    }

    pub fn take(&mut self, offer: Offer, config: &Config) {
        let jobs = offer.jobs.max(1);
        self.backend = offer.backend;
        (self.slots, self.max_lanes, self.max_ahead_bytes) = match (offer.backend, jobs) {
            (Backend::Gpu, 1) => (1, 1, 0),
            // One lane for a trace, and one for looking at others.
            (Backend::Gpu, _) => (1, config.gpu_lanes.max(2), config.gpu_ahead_bytes.saturating_mul(jobs as u64 - 1)),
            _ => (jobs, 1, 0),
        };
        self.max_log2_height = offer.max_log2_padded_height;
    }

    pub fn usable(&self) -> bool {
        self.up && !self.quarantined
    }

    /// Whether it takes jobs, or will when it has started.
    pub fn counts(&self) -> bool {
        !self.quarantined && (self.up || self.failed_starts < FAILED_STARTS)
    }

    pub fn has_free_lane(&self) -> bool {
        self.usable() && self.lanes.len() < self.max_lanes
    }

    pub fn has_free_slot(&self) -> bool {
        self.usable() && self.running.len() < self.slots
    }
}

/// What the pod tells about a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerView {
    /// Which.
    pub id: WorkerId,
    /// Kind of prover.
    pub backend: Backend,
    /// Jobs at once.
    pub slots: usize,
    /// Jobs now.
    pub running: Vec<JobId>,
    /// Whether the process is up and has passed its self-test.
    pub up: bool,
    /// Whether it made too many wrong proofs.
    pub quarantined: bool,
    /// How many.
    pub wrong_proofs: u32,
}

//! What the scheduler knows of a worker process.

use std::collections::BTreeSet;
use std::fmt;

use prover_api::JobId;
use serde::{Deserialize, Serialize};

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

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub backend: Backend,
    pub slots: usize,
    pub up: bool,
    pub quarantined: bool,
    pub wrong_proofs: u32,
    /// Jobs that hold a slot.
    pub running: BTreeSet<JobId>,
    /// The one job that is inspected or traced outside a slot.
    pub lane: Option<JobId>,
}

impl Worker {
    pub fn usable(&self) -> bool {
        self.up && !self.quarantined
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

//! One job: a claim in flight, its callers and its bodies.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use prover_api::{JobKind, JobState, Priority};

use super::{Time, WorkerId};

/// Identity of a caller's wish for one proof, unique within a pod's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterestId(pub u64);

/// SHA-256 of a job's bytes. Two callers with the same claim but other bytes must not share a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyId(pub [u8; 32]);

/// A caller's wish.
#[derive(Debug, Clone, Copy)]
pub struct Interest {
    /// With which bytes the caller came.
    pub body: BodyId,
    /// How urgent it is to the caller.
    pub priority: Priority,
    /// When the caller stops waiting.
    pub deadline: Option<Time>,
    /// The caller's own limit on the height.
    pub max_log2_padded_height: Option<u8>,
}

/// What runs, or what will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Body {
    pub id: BodyId,
    pub bytes: u64,
    pub force_cpu: bool,
}

/// What a worker is doing for the job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing.
    Idle,
    /// Learning the heights.
    Inspecting(WorkerId),
    /// Tracing ahead of a slot.
    TracingAhead(WorkerId),
    /// Tracing in a slot.
    Tracing(WorkerId),
    /// Proving in a slot.
    Proving(WorkerId),
    /// The service verifies what that worker returned, under this number; the slot is free again.
    Verifying(WorkerId, u64),
}

impl Phase {
    pub fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Idle => None,
            Self::Inspecting(w) | Self::TracingAhead(w) | Self::Tracing(w) | Self::Proving(w) | Self::Verifying(w, _) => {
                Some(w)
            }
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Job {
    /// Place in its priority: the order of arrival.
    pub seq: u64,
    /// The highest priority of the interests.
    pub priority: Priority,
    /// The front one runs; the others wait for it to fail.
    pub bodies: VecDeque<Body>,
    pub interests: BTreeMap<InterestId, Interest>,
    pub phase: Phase,
    /// The worker whose slot the job holds.
    pub slot: Option<WorkerId>,
    /// The worker that holds a finished trace.
    pub traced_on: Option<WorkerId>,
    /// The GPU's worker that looks at the job or traces it, or has its trace or table from that.
    pub home: Option<WorkerId>,
    pub log2_padded_height: Option<u8>,
    /// What its first caller says that it is for.
    pub kind: JobKind,
    /// Runs of the front body that a worker lost or got wrong.
    pub attempts: u32,
    /// The worker that lost it last; not used again while another one is up.
    pub avoid: Option<WorkerId>,
    pub timings: Timings,
}

impl Job {
    pub fn body(&self) -> Body {
        *self.bodies.front().expect("a live job has a body: the last one's failure ends the job")
    }

    pub fn state(&self) -> JobState {
        match (self.phase, self.slot, self.traced_on) {
            (Phase::Verifying(..), ..) => JobState::Verifying,
            (Phase::Proving(_), ..) => JobState::Proving,
            (Phase::Inspecting(_) | Phase::TracingAhead(_) | Phase::Tracing(_), ..) => JobState::Tracing,
            (Phase::Idle, _, Some(_)) => JobState::Traced,
            (Phase::Idle, ..) => JobState::Queued,
        }
    }
}

/// When a job reached each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Accepted.
    pub submitted: Time,
    /// Got a slot.
    pub started: Option<Time>,
    /// Began to prove, its trace complete.
    pub proving: Option<Time>,
    /// The worker returned the proof.
    pub proved: Option<Time>,
    /// The service verified it, or the job ended otherwise.
    pub ended: Option<Time>,
}

impl Timings {
    /// Seconds spent waiting, tracing, proving and verifying, as far as they are over.
    pub fn seconds(&self) -> prover_api::StageSeconds {
        let between = |from: Option<Time>, to: Option<Time>| {
            from.zip(to).map(|(from, to)| to.saturating_sub(from)).as_ref().map(Duration::as_secs_f64)
        };
        prover_api::StageSeconds {
            queued: between(Some(self.submitted), self.started.or(self.ended)),
            traced: between(self.started, self.proving),
            proved: between(self.proving, self.proved),
            verified: between(self.proved, self.ended),
        }
    }
}

/// What the pod tells about a job, live or finished.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Stage.
    pub state: JobState,
    /// The job's effective priority.
    pub priority: Priority,
    /// Jobs that get a slot before this one; `None` once it has one.
    pub position: Option<usize>,
    /// Exact height, once known.
    pub log2_padded_height: Option<u8>,
    /// The worker that has it.
    pub worker: Option<WorkerId>,
    /// When what happened.
    pub timings: Timings,
    /// Callers that still want it.
    pub interests: usize,
    /// Runs lost so far.
    pub attempts: u32,
    /// Why it failed.
    pub failure: Option<super::Failure>,
    /// Whether a draining pod gave it back before it had a slot.
    pub given_back: bool,
}

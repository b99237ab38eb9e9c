//! What to do about a pod's answer, and which pod to send a job to: pure functions.

use crate::{Capacity, JobState, Priority, Problem, ProblemType, Retry};

/// What a problem means for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No pod will ever prove this job.
    Final,
    /// This pod will not, another may.
    NotHere,
    /// A pod that admits this log2 padded height may.
    Bigger(u8),
    /// This pod may, later; another at once.
    Later,
    /// Not with this token.
    NewToken,
}

/// Judges a problem. `callers_limit` is the job's own `max_log2_padded_height`: past it no pod may prove.
pub fn judge(problem: &Problem, callers_limit: Option<u8>) -> Verdict {
    match problem.problem_type {
        ProblemType::PaddedHeightTooBig => match problem.log2_padded_height {
            Some(height) if callers_limit.is_some_and(|limit| height > limit) => Verdict::Final,
            Some(height) => Verdict::Bigger(height),
            None => Verdict::NotHere,
        },
        ProblemType::Unauthorized => Verdict::NewToken,
        // What is missing is this job's state, not the job: the pod started anew, or its cache is short.
        ProblemType::NotFound | ProblemType::Draining => Verdict::Later,
        // A type that this build does not know: its status tells.
        ProblemType::Internal if (400..500).contains(&problem.status) => Verdict::NotHere,
        kind => match kind.retry() {
            Retry::Never => Verdict::Final,
            Retry::Elsewhere => Verdict::NotHere,
            Retry::Later => Verdict::Later,
        },
    }
}

/// What a pod said when it was asked for a job.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// State of the very job there; nothing when the pod does not know it, or was not asked.
    pub held: Option<JobState>,
    /// What it can take; nothing when it did not answer.
    pub capacity: Option<Capacity>,
    /// Where clients have said to send the job, when the pod does not know it.
    pub sent_to: Option<Box<str>>,
}

impl View {
    /// Whether the proof is there, or somebody's run of it.
    pub fn is_found(&self) -> bool {
        self.held.is_some_and(|state| state == JobState::Done || !state.is_final())
    }

    /// Whether the pod may have jobs: it is up, be it that it takes no new ones.
    pub fn may_hold(&self) -> bool {
        self.capacity.as_ref().is_some_and(|capacity| capacity.ready || capacity.draining)
    }
}

/// What a job needs of a pod.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Exact log2 padded height, once some pod has found it.
    pub log2_padded_height: Option<u8>,
    /// Proof version of the claim.
    pub proof_version: u32,
    /// For a mock network.
    pub mock: bool,
    /// How urgent.
    pub priority: Priority,
}

impl Need {
    /// Why a pod with this capacity will never take the job, whatever it does now.
    pub fn refusal(self, capacity: &Capacity) -> Option<ProblemType> {
        if capacity.mock != self.mock {
            return Some(ProblemType::WrongNetwork);
        }
        let served = self.mock || capacity.proof_versions.contains(&self.proof_version);
        (!served).then_some(ProblemType::ProofVersion)
    }

    /// Whether the pod admits the height. One that does not say how much it takes is asked.
    pub fn admitted_by(self, capacity: &Capacity) -> bool {
        match (self.log2_padded_height, capacity.max_log2_padded_height) {
            (Some(height), Some(most)) => height <= most,
            _ => true,
        }
    }

    /// Whether the pod can take the job, as far as it said.
    pub fn can_go_to(self, view: &View) -> bool {
        view.capacity.as_ref().is_some_and(|capacity| {
            capacity.ready && !capacity.draining && self.refusal(capacity).is_none() && self.admitted_by(capacity)
        })
    }

    /// Estimated seconds before a job of this priority gets a slot.
    fn queued_seconds(self, capacity: &Capacity) -> f64 {
        capacity.queue.range(self.priority..).map(|(_, waiting)| waiting.seconds).sum::<f64>() / capacity.slots.max(1) as f64
    }
}

/// Where a job goes. Indices are those of the views.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The proof lies there.
    Fetch(usize),
    /// Somebody else's run of it is there: join it.
    Join(usize),
    /// A slot is free there.
    Idle(usize),
    /// No slot is free anywhere that was asked; wait there.
    Queue(usize),
    /// Nowhere.
    Nowhere,
}

/// Chooses among pods in the order of [`super::rendezvous::order`]: who has the proof, else who works on it, else the first
/// with nothing to do, else the first with a free slot (a GPU has two, and the second only waits for the device), else of the
/// first two that can take it the one with less to do before it. Only two: other clients look for the job in the first two.
pub fn choose(views: &[View], need: &Need) -> Choice {
    let held = |wanted: fn(JobState) -> bool| views.iter().position(|view| view.held.is_some_and(wanted));
    if let Some(pod) = held(|state| state == JobState::Done) {
        return Choice::Fetch(pod);
    }
    if let Some(pod) = held(|state| !state.is_final()) {
        return Choice::Join(pod);
    }
    let able: Vec<_> = (0..views.len()).filter(|&pod| need.can_go_to(&views[pod])).collect();
    let capacity = |pod: usize| views[pod].capacity.as_ref();
    let idle = |pod: usize| capacity(pod).filter(|capacity| capacity.idle);
    // The first of those with the least to do.
    if let Some(&pod) =
        able.iter().filter(|&&pod| idle(pod).is_some()).min_by_key(|&&pod| idle(pod).map(|idle| idle.running > 0))
    {
        return Choice::Idle(pod);
    }
    let wait = |pod: usize| capacity(pod).map_or(f64::INFINITY, |capacity| need.queued_seconds(capacity));
    match able.as_slice() {
        [] => Choice::Nowhere,
        [only] => Choice::Queue(*only),
        [first, second, ..] => Choice::Queue(if wait(*second) < wait(*first) { *second } else { *first }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::QueueLength;

    fn capacity(idle: bool, height: u8) -> Capacity {
        Capacity {
            idle,
            ready: true,
            draining: false,
            max_log2_padded_height: Some(height),
            slots: 1,
            running: usize::from(!idle),
            queue: BTreeMap::new(),
            body_bytes: 0,
            max_body_bytes: 1 << 30,
            proof_versions: vec![8],
            backends: vec!["cpu".to_owned()],
            mock: false,
        }
    }

    fn view(idle: bool) -> View {
        View { held: None, sent_to: None, capacity: Some(capacity(idle, 21)) }
    }

    fn holding(state: JobState) -> View {
        View { held: Some(state), ..view(false) }
    }

    const NEED: Need = Need { log2_padded_height: None, proof_version: 8, mock: false, priority: Priority::Normal };

    #[test]
    fn each_problem_has_its_verdict() {
        let verdict = |kind, height, limit| judge(&Problem { log2_padded_height: height, ..Problem::new(kind) }, limit);
        assert_eq!(verdict(ProblemType::PaddedHeightTooBig, Some(22), Some(21)), Verdict::Final);
        assert_eq!(verdict(ProblemType::PaddedHeightTooBig, Some(22), Some(22)), Verdict::Bigger(22));
        assert_eq!(verdict(ProblemType::PaddedHeightTooBig, Some(22), None), Verdict::Bigger(22));
        assert_eq!(verdict(ProblemType::PaddedHeightTooBig, None, Some(21)), Verdict::NotHere);
        let of = |kind| verdict(kind, None, None);
        for kind in [
            ProblemType::MalformedJob,
            ProblemType::PayloadTooLarge,
            ProblemType::ProgramFailed,
            ProblemType::ProgramEndless,
            ProblemType::ProgramDigestMismatch,
            ProblemType::OutputMismatch,
            ProblemType::DeadlineExceeded,
        ] {
            assert_eq!(of(kind), Verdict::Final, "{kind}");
        }
        for kind in [
            ProblemType::ProofVersion,
            ProblemType::WrongNetwork,
            ProblemType::WorkerLost,
            ProblemType::InvalidProof,
            ProblemType::ProverFailed,
        ] {
            assert_eq!(of(kind), Verdict::NotHere, "{kind}");
        }
        for kind in [
            ProblemType::QueueFull,
            ProblemType::NoDevice,
            ProblemType::Draining,
            ProblemType::Cancelled,
            ProblemType::Internal,
        ] {
            assert_eq!(of(kind), Verdict::Later, "{kind}");
        }
        assert_eq!(of(ProblemType::Unauthorized), Verdict::NewToken);
        let from_the_future = Problem { status: 418, ..Problem::new(ProblemType::Internal) };
        assert_eq!(judge(&from_the_future, None), Verdict::NotHere);
    }

    #[test]
    fn who_has_the_job_is_first_then_who_is_idle() {
        let done = holding(JobState::Done);
        let proving = holding(JobState::Proving);
        assert_eq!(choose(&[view(true), proving.clone(), done], &NEED), Choice::Fetch(2));
        assert_eq!(choose(&[view(true), proving], &NEED), Choice::Join(1));
        assert_eq!(choose(&[view(false), view(true), view(true)], &NEED), Choice::Idle(1));
        for ended in [JobState::Failed, JobState::Cancelled] {
            assert_eq!(choose(&[holding(ended), view(true)], &NEED), Choice::Idle(1), "{ended:?}");
        }
        assert_eq!(choose(&[View::default(), View::default()], &NEED), Choice::Nowhere);
        assert_eq!(choose(&[], &NEED), Choice::Nowhere);
    }

    #[test]
    fn a_device_with_nothing_to_do_comes_before_one_with_a_slot_left() {
        let with_running = |running| {
            let capacity = Capacity { slots: 2, running, ..capacity(true, 22) };
            View { held: None, sent_to: None, capacity: Some(capacity) }
        };
        assert_eq!(choose(&[with_running(1), with_running(0)], &NEED), Choice::Idle(1));
        assert_eq!(choose(&[with_running(0), with_running(0)], &NEED), Choice::Idle(0));
        assert_eq!(choose(&[with_running(1), with_running(1)], &NEED), Choice::Idle(0));
        assert_eq!(choose(&[view(false), with_running(1)], &NEED), Choice::Idle(1));
    }

    #[test]
    fn with_nobody_idle_the_shorter_of_the_first_two_queues_counts() {
        let queued = |priority, seconds| {
            let mut capacity = capacity(false, 21);
            capacity.queue = BTreeMap::from([(priority, QueueLength { jobs: 1, seconds })]);
            View { held: None, sent_to: None, capacity: Some(capacity) }
        };
        let views = [queued(Priority::High, 60.0), queued(Priority::Normal, 30.0), view(false)];
        assert_eq!(choose(&views, &NEED), Choice::Queue(1));
        // A lower priority waits behind nothing that it does not have to.
        let views = [queued(Priority::Low, 600.0), queued(Priority::Normal, 30.0)];
        assert_eq!(choose(&views, &NEED), Choice::Queue(0));
        assert_eq!(choose(&[view(false), view(false)], &NEED), Choice::Queue(0), "equal: the one that others ask first");
    }

    #[test]
    fn only_pods_that_can_take_the_job_are_chosen() {
        let with = |change: fn(&mut Capacity)| {
            let mut capacity = capacity(true, 21);
            change(&mut capacity);
            View { held: None, sent_to: None, capacity: Some(capacity) }
        };
        let unable = [
            with(|capacity| capacity.ready = false),
            with(|capacity| capacity.draining = true),
            with(|capacity| capacity.proof_versions = vec![5]),
            with(|capacity| capacity.mock = true),
        ];
        assert_eq!(choose(&unable, &NEED), Choice::Nowhere);
        let need = Need { log2_padded_height: Some(22), ..NEED };
        let views = [view(true), View { held: None, sent_to: None, capacity: Some(capacity(false, 22)) }];
        assert_eq!(choose(&views, &need), Choice::Queue(1));
        assert_eq!(choose(&views[..1], &need), Choice::Nowhere);
        let mock = Need { mock: true, ..NEED };
        assert_eq!(choose(&unable, &mock), Choice::Idle(3));
    }
}

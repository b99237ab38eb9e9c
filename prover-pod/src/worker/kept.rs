//! Traces of programs that were run to learn their height, for the proof that often follows at once: the program need not run
//! twice.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gpu_prover::trace::Trace;
use prover_api::JobId;
use triton_vm::prelude::Claim;

use crate::scheduler::BodyId;

/// Bytes of traces kept together; a paid raise begins with two SingleProofs, and the larger takes most of a gibibyte. Part of what
/// a GPU worker counts for ([`crate::memory::GPU_WORKER_BYTES`]).
const MAX_BYTES: usize = 2 << 30;

/// How long a trace is kept: it holds the witness of a job.
const KEPT_FOR: Duration = Duration::from_mins(1);

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    body: BodyId,
    since: Instant,
    claim: Claim,
    trace: Trace,
}

impl Kept {
    /// Keeps a trace while there is room. What came first stays: its job is further ahead in the queue.
    pub(super) fn keep(&self, body: BodyId, claim: Claim, trace: Trace) {
        self.keep_within(MAX_BYTES, body, claim, trace);
    }

    fn keep_within(&self, max_bytes: usize, body: BodyId, claim: Claim, trace: Trace) {
        let mut entries = self.lock();
        let held: usize = entries.iter().map(|entry| entry.trace.bytes()).sum();
        if held + trace.bytes() <= max_bytes && entries.iter().all(|entry| entry.body != body) {
            entries.push(Entry { body, since: Instant::now(), claim, trace });
        }
    }

    /// Gives the trace of those bytes away, if it is there.
    pub(super) fn take(&self, body: BodyId) -> Option<(Claim, Trace)> {
        let mut entries = self.lock();
        let at = entries.iter().position(|entry| entry.body == body)?;
        let Entry { claim, trace, .. } = entries.remove(at);
        Some((claim, trace))
    }

    /// Whether there is a trace of this job.
    pub(super) fn has(&self, job: JobId) -> bool {
        self.lock().iter().any(|entry| JobId::of(&entry.claim) == job)
    }

    /// Forgets the traces of a job that is cancelled, or proven elsewhere.
    pub(super) fn forget(&self, job: JobId) {
        self.lock().retain(|entry| JobId::of(&entry.claim) != job);
    }

    /// Forgets what nobody came for.
    pub(super) fn forget_old(&self) {
        self.forget_older_than(KEPT_FOR);
    }

    fn forget_older_than(&self, age: Duration) {
        self.lock().retain(|entry| entry.since.elapsed() < age);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use triton_vm::prelude::*;

    use super::*;

    fn trace() -> Trace {
        Trace::execute(triton_program!(halt), PublicInput::default(), NonDeterminism::default()).expect("runs")
    }

    #[test]
    fn a_trace_is_given_once_and_only_for_its_own_bytes() {
        let (kept, body) = (Kept::default(), BodyId([1; 32]));
        let trace = trace();
        let claim = trace.claim();
        kept.keep(body, claim.clone(), trace);
        assert!(kept.take(BodyId([2; 32])).is_none());
        assert_eq!(kept.take(body).map(|(claim, _)| claim), Some(claim));
        assert!(kept.take(body).is_none());
    }

    #[test]
    fn what_is_cancelled_is_forgotten_and_nothing_else() {
        let kept = Kept::default();
        let (ours, trace) = (BodyId([1; 32]), trace());
        let (claim, others) = (trace.claim(), trace.claim().with_input(bfe_vec![1]));
        kept.keep(ours, claim.clone(), trace);
        kept.forget(JobId::of(&others));
        assert!(kept.has(JobId::of(&claim)) && !kept.has(JobId::of(&others)));
        kept.forget(JobId::of(&claim));
        assert!(!kept.has(JobId::of(&claim)) && kept.take(ours).is_none());
        kept.keep(ours, claim, self::trace());
        kept.forget(JobId::of(&others));
        assert!(kept.take(ours).is_some());
    }

    #[test]
    fn room_and_time_are_bounded() {
        let kept = Kept::default();
        let room = trace().bytes() * 5 / 2;
        for n in 0..4 {
            let trace = trace();
            kept.keep_within(room, BodyId([n; 32]), trace.claim(), trace);
        }
        assert!(kept.take(BodyId([0; 32])).is_some() && kept.take(BodyId([3; 32])).is_none(), "the first two stay");
        kept.forget_old();
        kept.forget_older_than(Duration::ZERO);
        assert!(kept.take(BodyId([1; 32])).is_none());
    }
}

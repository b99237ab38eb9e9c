//! What a job has met with so far, pod by pod: decides who may be asked when, and when there is nobody left to ask.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use crate::Problem;

/// Runs that a pod may lose or cancel of one job before the job is taken elsewhere for good.
const MAX_FAILED_RUNS: u32 = 5;
/// Times that a pod may refuse a height that its capacity promised.
const MAX_BROKEN_PROMISES: u32 = 2;
/// Rounds in which pods that do not answer keep a job alive that all others find too big.
const MAX_SILENT_ROUNDS: u32 = 3;

#[derive(Debug, Default)]
struct Record {
    excluded: bool,
    /// The last that was heard of it is that nothing is.
    silent: bool,
    not_before: Option<Instant>,
    /// Since the last success.
    failures: u32,
    failed_runs: u32,
    too_big: u32,
}

/// When a pod may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Now.
    Now,
    /// Not before.
    At(Instant),
    /// Not for this job.
    Never,
}

/// One job's experience.
#[derive(Debug)]
pub struct Ledger {
    backoff: Backoff,
    records: BTreeMap<String, Record>,
    needed_height: Option<u8>,
    silent_rounds: u32,
    last: Option<(String, Trouble)>,
}

/// The last thing that went wrong.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// The pod said no.
    Problem(Box<Problem>),
    /// The pod did not answer, or with nonsense.
    Unreachable(String),
    /// The pod's proof does not verify.
    WrongProof,
}

impl Ledger {
    /// Nothing has happened yet.
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, records: BTreeMap::new(), needed_height: None, silent_rounds: 0, last: None }
    }

    fn record(&mut self, pod: &str, trouble: Trouble) -> &mut Record {
        let silent = matches!(trouble, Trouble::Unreachable(_));
        self.last = Some((pod.to_owned(), trouble));
        let record = self.records.entry(pod.to_owned()).or_default();
        record.silent = silent;
        record
    }

    /// The pod is out for this job.
    pub fn exclude(&mut self, pod: &str, trouble: Trouble) {
        self.record(pod, trouble).excluded = true;
    }

    /// The pod is asked again later. `chance` is uniform in 0..1.
    pub fn postpone(&mut self, pod: &str, trouble: Trouble, told: Option<Duration>, now: Instant, chance: f64) {
        let backoff = self.backoff;
        let record = self.record(pod, trouble);
        record.failures += 1;
        record.not_before = Some(now + backoff.wait_as_told(told, record.failures, chance));
    }

    /// The pod took the job and then failed in a way that may pass.
    pub fn run_failed(&mut self, pod: &str, trouble: Trouble, told: Option<Duration>, now: Instant, chance: f64) {
        self.postpone(pod, trouble, told, now, chance);
        if let Some(record) = self.records.get_mut(pod) {
            record.failed_runs += 1;
            record.excluded |= record.failed_runs >= MAX_FAILED_RUNS;
        }
    }

    /// The pod finds the job too big.
    pub fn too_big(&mut self, pod: &str, height: u8, problem: Problem) {
        self.needed_height = Some(height);
        let record = self.record(pod, Trouble::Problem(Box::new(problem)));
        record.too_big += 1;
        record.excluded |= record.too_big >= MAX_BROKEN_PROMISES;
    }

    /// The pod can be reached.
    pub fn answered(&mut self, pod: &str) {
        if let Some(record) = self.records.get_mut(pod) {
            record.silent = false;
        }
    }

    /// Whether the pod could not be reached the last time.
    pub fn is_silent(&self, pod: &str) -> bool {
        self.records.get(pod).is_some_and(|record| record.silent)
    }

    /// The pod took the job.
    pub fn succeeded(&mut self, pod: &str) {
        if let Some(record) = self.records.get_mut(pod) {
            record.silent = false;
            record.failures = 0;
            record.not_before = None;
        }
    }

    /// Exact log2 padded height, once a pod has told.
    pub fn needed_height(&self) -> Option<u8> {
        self.needed_height
    }

    /// What went wrong last, and where.
    pub fn last(&self) -> Option<&(String, Trouble)> {
        self.last.as_ref()
    }

    /// When the pod may be asked.
    pub fn availability(&self, pod: &str, now: Instant) -> Availability {
        match self.records.get(pod) {
            Some(record) if record.excluded => Availability::Never,
            Some(Record { not_before: Some(at), .. }) if *at > now => Availability::At(*at),
            _ => Availability::Now,
        }
    }

    /// A round in which nobody could be chosen although the height is known, `silent` telling whether some pod did not answer.
    /// `true` once that is final.
    pub fn nobody_admits(&mut self, silent: bool) -> bool {
        self.silent_rounds += 1;
        !silent || self.silent_rounds >= MAX_SILENT_ROUNDS
    }

    /// How long to wait when nobody could be chosen for the `round`th time in a row (from 1): until the first pod may be asked
    /// again, but not so long that a change among the others goes unseen.
    pub fn pause<'a>(&self, pods: impl Iterator<Item = &'a str>, round: u32, now: Instant, chance: f64) -> Duration {
        let (mut next, mut some_can_be_asked) = (self.backoff.most, false);
        for pod in pods {
            match self.availability(pod, now) {
                Availability::At(at) => next = next.min(at.saturating_duration_since(now)),
                Availability::Now => some_can_be_asked = true,
                Availability::Never => {}
            }
        }
        let pause = if some_can_be_asked { next.min(self.backoff.wait(round, chance)) } else { next };
        pause.max(Duration::from_millis(5))
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Problem(problem) => write!(f, "{problem}"),
            Self::Unreachable(why) => f.write_str(why),
            Self::WrongProof => f.write_str("its proof does not verify"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProblemType;

    const BACKOFF: Backoff = Backoff { least: Duration::from_secs(1), most: Duration::from_secs(30) };

    fn trouble() -> Trouble {
        Trouble::Unreachable("refused".to_owned())
    }

    #[test]
    fn a_postponed_pod_is_asked_again_later_and_later() {
        let now = Instant::now();
        let mut ledger = Ledger::new(BACKOFF);
        assert_eq!(ledger.availability("a", now), Availability::Now);
        ledger.postpone("a", trouble(), None, now, 1.0);
        assert_eq!(ledger.availability("a", now), Availability::At(now + Duration::from_secs(1)));
        ledger.postpone("a", trouble(), None, now, 1.0);
        assert_eq!(ledger.availability("a", now), Availability::At(now + Duration::from_secs(2)));
        assert_eq!(ledger.pause(["a"].into_iter(), 1, now, 1.0), Duration::from_secs(2), "until it may be asked");
        assert_eq!(ledger.pause(["a", "b"].into_iter(), 1, now, 1.0), Duration::from_secs(1), "the other may change its mind");
        assert_eq!(ledger.pause(["a", "b"].into_iter(), 9, now, 1.0), Duration::from_secs(2));
        assert!(ledger.is_silent("a") && !ledger.is_silent("b"));
        assert_eq!(ledger.availability("a", now + Duration::from_secs(3)), Availability::Now);
        assert_eq!(ledger.availability("b", now), Availability::Now, "pods are independent");
        ledger.succeeded("a");
        ledger.postpone("a", trouble(), Some(Duration::from_secs(9)), now, 0.0);
        assert_eq!(ledger.availability("a", now), Availability::At(now + Duration::from_secs(9)));
    }

    #[test]
    fn runs_that_fail_again_and_again_end() {
        let now = Instant::now();
        let mut ledger = Ledger::new(BACKOFF);
        for _ in 0..MAX_FAILED_RUNS {
            assert_ne!(ledger.availability("a", now), Availability::Never);
            ledger.run_failed("a", trouble(), None, now, 0.5);
        }
        assert_eq!(ledger.availability("a", now), Availability::Never);
    }

    #[test]
    fn a_height_is_final_when_nobody_admits_it() {
        let problem = Problem::new(ProblemType::PaddedHeightTooBig);
        let now = Instant::now();
        let mut ledger = Ledger::new(BACKOFF);
        ledger.too_big("a", 22, problem.clone());
        assert_eq!(ledger.needed_height(), Some(22));
        assert_eq!(ledger.availability("a", now), Availability::Now, "its capacity may grow");
        ledger.too_big("a", 22, problem);
        assert_eq!(ledger.availability("a", now), Availability::Never, "it promised what it did not keep");
        assert!(!ledger.nobody_admits(true), "who does not answer may admit it");
        assert!(!ledger.nobody_admits(true));
        assert!(ledger.nobody_admits(true), "but not for ever");
        assert!(Ledger::new(BACKOFF).nobody_admits(false));
    }
}

//! What happens to one process, as a state machine: starts, answers, exits and the clock go in. No IO and no time of its own.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// When a process that ended is started again, and when a silent one is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// Pause after the first end; twice as long after each further one.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
    /// Whoever ran for so long ran well: the next pause is the first again.
    pub well_after: Duration,
    /// Silence of a process that has answered before, after which it is killed.
    pub silence: Duration,
    /// Silence of one that has not answered yet.
    pub start_within: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            most: Duration::from_mins(1),
            well_after: Duration::from_secs(30),
            // As the probes of the operator's pods: a minute, and ten minutes for a start.
            silence: Duration::from_mins(1),
            start_within: Duration::from_mins(10),
        }
    }
}

impl RestartPolicy {
    /// The pause after so many ends in a row, the last one included.
    pub fn pause(&self, ends: u32) -> Duration {
        let doublings = ends.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

/// Where a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It was not started yet: something else has to be ready before.
    Waiting,
    /// It runs and does not say that it is ready.
    Starting,
    /// It runs and says so.
    Ready,
    /// It was ready and says that it is not, or does not answer.
    Unready,
    /// It ended and is started again after a pause.
    Resting,
    /// It was told to end.
    Stopping,
    /// It ended because it was told to.
    Ended,
}

impl Phase {
    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Unready => "not ready",
            Self::Resting => "restarting",
            Self::Stopping => "draining",
            Self::Ended => "ended",
        }
    }

    /// Whether there is a process.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Starting | Self::Ready | Self::Unready | Self::Stopping)
    }
}

/// The life of one process.
#[derive(Debug, Clone)]
pub struct Life {
    policy: RestartPolicy,
    phase: Phase,
    /// Of the process that runs, or ran last.
    started: Option<Instant>,
    /// When it last answered.
    heard: Option<Instant>,
    /// Starts after the first.
    restarts: u32,
    /// Ends in a row without a run that went well.
    ends: u32,
    /// When it may start again, or has to have ended.
    until: Option<Instant>,
}

impl Life {
    /// Of a process that was not started yet.
    pub fn new(policy: RestartPolicy) -> Self {
        Self { policy, phase: Phase::Waiting, started: None, heard: None, restarts: 0, ends: 0, until: None }
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Starts after the first.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// When the process that runs was started.
    pub fn started_at(&self) -> Option<Instant> {
        self.started
    }

    /// Whether it is time to start it, once its gate is open.
    pub fn may_start(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Waiting => true,
            Phase::Resting => self.until.is_none_or(|until| now >= until),
            _ => false,
        }
    }

    /// It was started.
    pub fn start(&mut self, now: Instant) {
        if self.started.is_some() {
            self.restarts += 1;
        }
        self.started = Some(now);
        self.heard = None;
        self.until = None;
        self.phase = Phase::Starting;
    }

    /// What it answered to a question that was asked at `asked`: nothing, or whether it is ready. True when its phase is another
    /// now. An answer to a question that is older than the process is another process's.
    pub fn hear(&mut self, asked: Instant, answer: Option<bool>) -> bool {
        if self.started.is_none_or(|started| asked < started) {
            return false;
        }
        if answer.is_some() {
            self.heard = Some(asked);
        }
        let before = self.phase;
        self.phase = match (before, answer) {
            (Phase::Starting | Phase::Unready, Some(true)) => Phase::Ready,
            (Phase::Ready, None | Some(false)) => Phase::Unready,
            (same, _) => same,
        };
        self.phase != before
    }

    /// Whether it has been silent for too long.
    pub fn is_silent(&self, now: Instant) -> bool {
        if !matches!(self.phase, Phase::Starting | Phase::Ready | Phase::Unready) {
            return false;
        }
        let (since, most) = match (self.heard, self.started) {
            (Some(heard), _) => (heard, self.policy.silence),
            (None, Some(started)) => (started, self.policy.start_within),
            (None, None) => return false,
        };
        now.saturating_duration_since(since) > most
    }

    /// It ended, or could not be started. Gives the pause until it is started again; nothing when it was told to end.
    pub fn end(&mut self, now: Instant) -> Option<Duration> {
        if matches!(self.phase, Phase::Stopping | Phase::Ended) {
            self.phase = Phase::Ended;
            return None;
        }
        let ran = self.started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started));
        self.ends = if self.phase.is_up() && ran >= self.policy.well_after { 1 } else { self.ends.saturating_add(1) };
        let pause = self.policy.pause(self.ends);
        self.phase = Phase::Resting;
        self.until = Some(now + pause);
        Some(pause)
    }

    /// It is told to end within `grace`. True when there is a process to tell.
    pub fn stop(&mut self, now: Instant, grace: Duration) -> bool {
        let up = self.phase.is_up();
        if self.phase != Phase::Stopping {
            self.phase = if up { Phase::Stopping } else { Phase::Ended };
            self.until = Some(now + grace);
        }
        up
    }

    /// Whether it had its time to end and did not.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.phase == Phase::Stopping && self.until.is_some_and(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_after_a_good_run() {
        let policy = RestartPolicy::default();
        let pauses: Vec<u128> = (1..=9).map(|ends| policy.pause(ends).as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(policy.pause(u32::MAX), policy.most);

        let mut now = Instant::now();
        let mut life = Life::new(policy);
        for expected in [500, 1000, 2000] {
            assert!(life.may_start(now));
            life.start(now);
            now += SECOND;
            assert_eq!(life.end(now), Some(Duration::from_millis(expected)));
            assert!(!life.may_start(now));
            now += Duration::from_millis(expected);
        }
        life.start(now);
        now += policy.well_after;
        assert_eq!(life.end(now), Some(policy.first), "it ran well");
        assert_eq!(life.restarts(), 3);
    }

    #[test]
    fn a_program_that_cannot_be_started_is_tried_later_and_later() {
        let mut life = Life::new(RestartPolicy::default());
        let now = Instant::now();
        assert_eq!(life.end(now), Some(Duration::from_millis(500)));
        assert_eq!(life.end(now + SECOND), Some(SECOND));
        assert_eq!((life.restarts(), life.phase()), (0, Phase::Resting));
    }

    #[test]
    fn answers_to_older_questions_are_not_its_own() {
        let mut life = Life::new(RestartPolicy::default());
        let asked = Instant::now();
        assert!(!life.hear(asked, Some(true)), "it was not even started");
        life.start(asked + SECOND);
        assert!(!life.hear(asked, Some(true)));
        assert_eq!(life.phase(), Phase::Starting);
        assert!(!life.hear(asked + SECOND, Some(false)), "not ready is what it was");
        assert!(life.hear(asked + SECOND, Some(true)));
        assert!(life.hear(asked + 2 * SECOND, None));
        assert_eq!(life.phase(), Phase::Unready);
        assert!(life.hear(asked + 3 * SECOND, Some(true)));
    }

    #[test]
    fn silence_is_counted_from_the_last_answer_and_a_start_has_more_time() {
        let policy = RestartPolicy::default();
        let mut life = Life::new(policy);
        let now = Instant::now();
        life.start(now);
        assert!(!life.is_silent(now + policy.start_within));
        assert!(life.is_silent(now + policy.start_within + SECOND));
        life.hear(now + SECOND, Some(false));
        assert!(!life.is_silent(now + SECOND + policy.silence));
        assert!(life.is_silent(now + 2 * SECOND + policy.silence));
        life.stop(now, SECOND);
        assert!(!life.is_silent(now + policy.start_within), "who is told to end may be silent");
    }

    #[test]
    fn whoever_is_told_to_end_is_not_started_again() {
        let now = Instant::now();
        let mut waiting = Life::new(RestartPolicy::default());
        assert!(!waiting.stop(now, SECOND));
        assert_eq!((waiting.phase(), waiting.may_start(now)), (Phase::Ended, false));

        let mut running = Life::new(RestartPolicy::default());
        running.start(now);
        assert!(running.stop(now, SECOND));
        assert!(!running.hear(now, Some(true)), "it stays told");
        assert!(!running.is_overdue(now) && running.is_overdue(now + SECOND));
        assert_eq!(running.end(now + SECOND), None);
        assert_eq!((running.phase(), running.may_start(now + 9 * SECOND)), (Phase::Ended, false));
    }

    #[derive(Debug, Clone)]
    enum Event {
        Start,
        Hear(Option<bool>),
        End,
        Stop,
        Wait(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Start),
            proptest::option::of(any::<bool>()).prop_map(Event::Hear),
            Just(Event::End),
            Just(Event::Stop),
            (0_u64..100_000).prop_map(Event::Wait),
        ]
    }

    proptest! {
        #[test]
        fn in_any_history_an_end_is_followed_by_a_start_unless_it_was_told(events in proptest::collection::vec(event(), 0..60)) {
            let mut life = Life::new(RestartPolicy::default());
            let mut now = Instant::now();
            let mut told = false;
            for event in events {
                match event {
                    Event::Start if life.may_start(now) => life.start(now),
                    Event::Hear(answer) => { life.hear(now, answer); }
                    Event::End if life.phase().is_up() => prop_assert_eq!(life.end(now).is_none(), told),
                    // Neither may happen now.
                    Event::Start | Event::End => {}
                    Event::Stop => { life.stop(now, SECOND); told = true; }
                    Event::Wait(milliseconds) => now += Duration::from_millis(milliseconds),
                }
                prop_assert_eq!(told, matches!(life.phase(), Phase::Stopping | Phase::Ended));
            }
            if !told && !life.phase().is_up() {
                prop_assert!(life.may_start(now + RestartPolicy::default().most), "{:?}", life);
            }
        }
    }
}

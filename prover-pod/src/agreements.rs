//! Where clients have agreed to send jobs.
//!
//! A client looks for a job on the pods and, when nobody has it, sends it to one of them. Between its look and the job's arrival
//! another client may look and choose another pod, because what the pods have to do has changed meanwhile. The first to say where
//! it goes decides for the others, for as long as the job may be on its way. Later the record is a hint where to look for the job.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prover_api::{Destination, JobId};

/// How long a choice counts: longer than a job is on its way, of which the largest ones of transactions have 33 MB. One that is sent
/// again within this time, because its client gave it up and another one wants it, may find that its destination has more to do
/// than other pods.
const COUNTS_FOR: Duration = Duration::from_secs(10);

/// How long it is remembered: longer than any job takes.
const REMEMBERED_FOR: Duration = Duration::from_hours(1);

/// Choices that are remembered: 16 MB by the sizes of the tables, 32 with the longest names. The oldest ones go first.
const MOST: usize = 1 << 16;

/// The agreements of a pod's clients. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Agreements {
    table: Arc<Mutex<Table>>,
}

impl Agreements {
    /// The pod that counts for this job from now on.
    pub fn agree(&self, job: JobId, choice: Destination) -> String {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).agree(Instant::now(), job, choice)
    }

    /// The pod that counted last.
    pub fn sent_to(&self, job: JobId) -> Option<String> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).sent_to(Instant::now(), job)
    }
}

#[derive(Debug, Default)]
struct Table {
    choices: HashMap<JobId, (String, Instant)>,
    /// In the order of their times; of a job that has several the last one is that of its choice.
    written: VecDeque<(JobId, Instant)>,
}

impl Table {
    fn agree(&mut self, now: Instant, job: JobId, choice: Destination) -> String {
        if let Some((pod, since)) = self.choices.get(&job)
            && is_within(COUNTS_FOR, *since, now)
            && choice.instead_of.as_ref() != Some(pod)
        {
            return pod.clone();
        }
        while let Some(&(oldest, since)) = self.written.front()
            && (self.written.len() >= MOST || !is_within(REMEMBERED_FOR, since, now))
        {
            self.written.pop_front();
            if self.choices.get(&oldest).is_some_and(|(_, at)| *at == since) {
                self.choices.remove(&oldest);
            }
        }
        self.choices.insert(job, (choice.pod.clone(), now));
        self.written.push_back((job, now));
        choice.pod
    }

    fn sent_to(&self, now: Instant, job: JobId) -> Option<String> {
        let (pod, since) = self.choices.get(&job)?;
        is_within(REMEMBERED_FOR, *since, now).then(|| pod.clone())
    }
}

fn is_within(time: Duration, since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < time
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use triton_vm::prelude::*;

    use super::*;

    fn id(number: u64) -> JobId {
        JobId::of(&Claim::new(Digest::default()).with_input(bfe_vec![number]))
    }

    fn choice(pod: &str, instead_of: Option<&str>) -> Destination {
        Destination { pod: pod.to_owned(), instead_of: instead_of.map(str::to_owned) }
    }

    #[test]
    fn the_first_choice_counts_for_a_moment() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert_eq!(table.agree(now, id(1), choice("a", None)), "a");
        assert_eq!(table.agree(now, id(2), choice("b", None)), "b", "of another job");
        let later = now + COUNTS_FOR.saturating_sub(Duration::from_millis(1));
        assert_eq!(table.agree(later, id(1), choice("b", None)), "a");
        assert_eq!(table.agree(now + COUNTS_FOR, id(1), choice("b", None)), "b", "asking for it does not prolong it");
    }

    #[test]
    fn who_could_not_use_it_replaces_it_once() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.agree(now, id(1), choice("a", None));
        assert_eq!(table.agree(now, id(1), choice("b", Some("a"))), "b");
        assert_eq!(table.agree(now, id(1), choice("c", Some("a"))), "b", "another one was faster");
        assert_eq!(table.agree(now, id(1), choice("c", None)), "b");
    }

    #[test]
    fn a_choice_is_remembered_when_it_counts_no_more() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert_eq!(table.sent_to(now, id(1)), None);
        table.agree(now, id(1), choice("a", None));
        let late = now + REMEMBERED_FOR.saturating_sub(Duration::from_millis(1));
        assert_eq!(table.sent_to(late, id(1)).as_deref(), Some("a"));
        assert_eq!(table.sent_to(now + REMEMBERED_FOR, id(1)), None);
        table.agree(late, id(1), choice("b", None));
        assert_eq!(table.sent_to(now + REMEMBERED_FOR, id(1)).as_deref(), Some("b"));
        table.agree(now + REMEMBERED_FOR, id(2), choice("a", None));
        assert_eq!((table.choices.len(), table.written.len()), (2, 2), "what is forgotten takes no room");
    }

    #[test]
    fn the_oldest_make_room() {
        let (mut table, now) = (Table::default(), Instant::now());
        // One job that is agreed on again and again, and one after the other.
        for turn in 0..MOST as u64 {
            let (pod, instead_of) = (format!("pod-{turn}"), format!("pod-{}", turn.wrapping_sub(1)));
            table.agree(now + Duration::from_nanos(turn), id(0), choice(&pod, Some(&instead_of)));
        }
        assert_eq!((table.choices.len(), table.written.len()), (1, MOST));
        for job in 1..=MOST as u64 {
            table.agree(now + Duration::from_millis(job), id(job), choice("a", None));
        }
        assert_eq!((table.choices.len(), table.written.len()), (MOST, MOST));
        assert_eq!(table.sent_to(now, id(0)), None);
        assert_eq!(table.sent_to(now, id(1)).as_deref(), Some("a"));
    }

    proptest! {
        /// Whatever they ask for, and in whatever order: as long as nobody gives up a destination, all go to one pod.
        #[test]
        fn all_who_come_within_the_time_are_told_the_same(wishes in prop::collection::vec((0_u64..3, 0_u8..5, 0_u64..100), 1..60)) {
            let (mut table, mut now) = (Table::default(), Instant::now());
            let mut told: HashMap<u64, (String, Instant)> = HashMap::new();
            for (job, pod, wait) in wishes {
                now += Duration::from_millis(wait * 40);
                let wish = format!("pod-{pod}");
                let answer = table.agree(now, id(job), choice(&wish, None));
                let (first, since) = told.entry(job).or_insert_with(|| (wish.clone(), now));
                if now - *since >= COUNTS_FOR {
                    (*first, *since) = (wish, now);
                }
                prop_assert_eq!(&answer, &*first);
                let sent_to = table.sent_to(now, id(job));
                prop_assert_eq!(sent_to.as_ref(), Some(&*first));
            }
        }
    }
}

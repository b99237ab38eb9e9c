//! How a client agrees with others, that look for the same job at the same moment, on the pod that it goes to.
//!
//! Each asks its first two pods that are up, one after the other in the order of the job, and keeps to what the last one says.
//! Clients whose lists of pods differ, because a pod has just come or gone, have one of the two in common: whoever is the first
//! there has decided, unless its choice is a pod that the other one cannot find. What the first of the two has on record is put
//! right afterwards, for those who may ask there only.

use crate::Destination;

/// Questions in all. Three are enough when nothing but the lists differ; more are asked where what counts cannot be used.
const MOST_QUESTIONS: usize = 6;

/// One client's way to an agreement: a pure state machine, [`Self::next`] tells whom to ask and [`Self::told`] takes the answer.
#[derive(Debug)]
pub struct Agreement {
    choice: String,
    /// How many pods are to be asked.
    pods: usize,
    /// What those have on record that were asked.
    records: Vec<String>,
    questions: usize,
}

impl Agreement {
    /// Begins with the client's own choice.
    pub fn new(choice: String, pods: usize) -> Self {
        Self { choice, pods, records: Vec::with_capacity(pods), questions: 0 }
    }

    /// The choice so far.
    pub fn choice(&self) -> &str {
        &self.choice
    }

    /// Which pod to ask next, by its place among them, and what; nothing when the choice stands.
    pub fn next(&self) -> Option<(usize, Destination)> {
        if self.questions == MOST_QUESTIONS {
            return None;
        }
        let ask = |pod, instead_of: Option<&String>| {
            Some((pod, Destination { pod: self.choice.clone(), instead_of: instead_of.cloned() }))
        };
        if let Some(pod) = self.records.iter().position(|record| *record != self.choice) {
            return ask(pod, Some(&self.records[pod]));
        }
        if self.records.len() < self.pods { ask(self.records.len(), None) } else { None }
    }

    /// The answer to [`Self::next`]: the pod that counts there, nothing when there was none; and whether this client can go to it.
    pub fn told(&mut self, pod: usize, counts: Option<String>, is_usable: bool) {
        self.questions += 1;
        let is_last = pod + 1 >= self.records.len();
        let record = match counts {
            Some(counts) if is_last => {
                if is_usable {
                    self.choice.clone_from(&counts);
                }
                counts
            }
            // Who asked later there has their own way to the same end, and is not fought with.
            Some(_) | None => self.choice.clone(),
        };
        if pod < self.records.len() {
            self.records[pod] = record;
        } else {
            self.records.push(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// What pods do with it, without the time.
    #[derive(Default)]
    struct Records(BTreeMap<usize, String>);

    impl Records {
        fn agree(&mut self, pod: usize, choice: Destination) -> String {
            let record = self.0.entry(pod).or_insert_with(|| choice.pod.clone());
            if choice.instead_of.as_ref() == Some(record) {
                *record = choice.pod;
            }
            record.clone()
        }
    }

    fn run(records: &mut Records, asks: &[usize], choice: &str, unusable: &[&str]) -> (String, usize) {
        let mut agreement = Agreement::new(choice.to_owned(), asks.len());
        let mut questions = 0;
        while let Some((pod, wish)) = agreement.next() {
            questions += 1;
            let counts = records.agree(asks[pod], wish);
            let is_usable = !unusable.contains(&&*counts);
            agreement.told(pod, Some(counts), is_usable);
        }
        (agreement.choice().to_owned(), questions)
    }

    #[test]
    fn the_first_one_decides() {
        let mut records = Records::default();
        assert_eq!(run(&mut records, &[1, 2], "a", &[]), ("a".to_owned(), 2));
        assert_eq!(run(&mut records, &[1, 2], "b", &[]).0, "a");
        assert_eq!(run(&mut records, &[0, 1], "b", &[]), ("a".to_owned(), 3), "sees a pod more");
        assert_eq!(run(&mut records, &[0], "b", &[]).0, "a", "put right");
        assert_eq!(run(&mut records, &[2, 3], "b", &[]).0, "a", "sees a pod less");
    }

    #[test]
    fn what_is_of_no_use_is_replaced() {
        let mut records = Records::default();
        run(&mut records, &[1, 2], "a", &[]);
        assert_eq!(run(&mut records, &[1, 2], "b", &["a"]).0, "b");
        assert_eq!(records.0, BTreeMap::from([(1, "b".to_owned()), (2, "b".to_owned())]));
        assert_eq!(run(&mut records, &[1, 2], "c", &["a"]).0, "b");
        // Nobody is waited for: a record that changes each time ends it, too.
        let mut agreement = Agreement::new("a".to_owned(), 2);
        for question in 0..MOST_QUESTIONS {
            let (pod, _) = agreement.next().expect("a question");
            agreement.told(pod, Some(format!("gone-{question}")), false);
        }
        assert_eq!(agreement.next().map(drop), None);
        assert_eq!(agreement.choice().to_owned(), "a");
    }

    #[test]
    fn pods_that_do_not_know_the_question_are_passed_by() {
        let mut agreement = Agreement::new("a".to_owned(), 2);
        for pod in 0..2 {
            assert_eq!(agreement.next(), Some((pod, Destination { pod: "a".to_owned(), instead_of: None })));
            agreement.told(pod, None, true);
        }
        assert_eq!(agreement.next(), None);
    }

    proptest! {
        /// Clients with different lists that have a pod in common go to the same pod, however their questions mix.
        #[test]
        fn lists_with_a_pod_in_common_lead_to_one_pod(
            lists in prop::collection::vec(prop::sample::select(vec![vec![0, 1], vec![1, 2], vec![1, 3], vec![1]]), 2..6),
            turns in prop::collection::vec(any::<prop::sample::Index>(), 64),
        ) {
            let mut records = Records::default();
            let mut clients: Vec<_> =
                (0..lists.len()).map(|client| Agreement::new(format!("choice-{client}"), lists[client].len())).collect();
            for turn in turns {
                let waiting: Vec<_> = (0..clients.len()).filter(|&client| clients[client].next().is_some()).collect();
                if waiting.is_empty() {
                    break;
                }
                let client = *turn.get(&waiting);
                let (pod, wish) = clients[client].next().expect("waits");
                let counts = records.agree(lists[client][pod], wish);
                clients[client].told(pod, Some(counts), true);
            }
            prop_assert!(clients.iter().all(|client| client.next().is_none()), "comes to an end");
            let ends: BTreeSet<_> = clients.iter().map(Agreement::choice).collect();
            prop_assert_eq!(ends.len(), 1);
        }
    }
}

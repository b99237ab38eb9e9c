//! From one set of shards to another without a gap.

use std::collections::BTreeSet;

use super::{Coverage, ResidueClass};

/// What distinguishes the shards that there are from those that there should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transition {
    /// In both: never touched.
    pub kept: BTreeSet<ResidueClass>,
    /// To be started.
    pub added: BTreeSet<ResidueClass>,
    /// To be retired, once others cover their transactions.
    pub retired: BTreeSet<ResidueClass>,
}

impl Transition {
    /// From the classes that exist to the classes that are wanted.
    pub fn between(existing: &BTreeSet<ResidueClass>, wanted: &BTreeSet<ResidueClass>) -> Self {
        Self { kept: existing & wanted, added: wanted - existing, retired: existing - wanted }
    }

    /// Whether nothing has to change.
    pub fn is_done(&self) -> bool {
        self.added.is_empty() && self.retired.is_empty()
    }

    /// The retired classes that may go now: their transactions all have a ready owner among the wanted classes.
    ///
    /// Make before break: one that has no ready heir stays, ready or not. Ready heirs that are themselves to be retired do not
    /// count, so that the answer is the same whatever is removed first.
    pub fn retirable(&self, ready: &BTreeSet<ResidueClass>) -> BTreeSet<ResidueClass> {
        let heirs: Coverage = self.kept.union(&self.added).filter(|class| ready.contains(class)).copied().collect();
        self.retired.iter().filter(|class| heirs.covered.covers(class.mask())).copied().collect()
    }

    /// The added classes to start now: all whose transactions nobody ready has, and up to `room` of the others, largest first.
    ///
    /// A gap is worse than a slow resize, so it does not wait for room.
    pub fn startable(&self, ready: &BTreeSet<ResidueClass>, room: usize) -> Vec<ResidueClass> {
        let owned = ready.iter().copied().collect::<Coverage>().covered;
        let (spare, gaps): (Vec<_>, Vec<_>) = self.added.iter().copied().partition(|class| owned.covers(class.mask()));
        gaps.into_iter().chain(spare.into_iter().take(room)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::plan;
    use super::*;

    fn set(shards: i64) -> BTreeSet<ResidueClass> {
        plan(shards).expect("in range").into_iter().collect()
    }

    #[test]
    fn growing_by_one_retires_one_when_both_halves_are_ready() {
        let transition = Transition::between(&set(4), &set(5));
        assert_eq!((transition.kept.len(), transition.added.len(), transition.retired.len()), (3, 2, 1));
        let mut ready = set(4);
        assert!(transition.retirable(&ready).is_empty());
        ready.insert("8:0".parse().expect("a class"));
        assert!(transition.retirable(&ready).is_empty());
        ready.insert("8:4".parse().expect("a class"));
        assert_eq!(transition.retirable(&ready), transition.retired);
    }

    proptest! {
        /// Random resizes, with classes that become ready in any order: once covered, never uncovered; each byte value has at
        /// most two owners; what is in both sets stays.
        #[test]
        fn a_resize_never_uncovers(sizes in prop::collection::vec(1_i64..=128, 1..6), seed in any::<u64>()) {
            let mut random = seed;
            let mut existing = set(sizes[0]);
            let mut ready = existing.clone();
            for size in &sizes[1..] {
                let wanted = set(*size);
                let untouched = existing.intersection(&wanted).copied().collect::<BTreeSet<_>>();
                for _ in 0..1000 {
                    let transition = Transition::between(&existing, &wanted);
                    if transition.is_done() && ready == existing {
                        break;
                    }
                    for class in transition.retirable(&ready) {
                        existing.remove(&class);
                        ready.remove(&class);
                    }
                    let starting = existing.difference(&ready).count();
                    existing.extend(transition.startable(&ready, 3_usize.saturating_sub(starting)));
                    // One of those that start becomes ready.
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let waiting: Vec<_> = existing.difference(&ready).copied().collect();
                    if !waiting.is_empty() {
                        ready.insert(waiting[(random >> 33) as usize % waiting.len()]);
                    }
                    let coverage: Coverage = ready.iter().copied().collect();
                    prop_assert!(coverage.covered.is_full());
                    prop_assert!((0..=u8::MAX).all(|byte| ready.iter().filter(|class| class.owns(byte)).count() <= 2));
                    prop_assert!(untouched.is_subset(&ready));
                }
                prop_assert_eq!(&existing, &wanted);
                prop_assert_eq!(&ready, &wanted);
            }
        }
    }
}

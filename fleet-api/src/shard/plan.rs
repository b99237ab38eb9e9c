//! Which classes a fleet of so many shards has.

use super::{Coverage, ResidueClass};

/// The largest number of shards: a class holds at least two byte values.
pub const MAX_SHARDS: u16 = 128;

/// No fleet has so many shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} shards; a fleet has 1 to 128")]
pub struct ShardCountOutOfRange(pub i64);

/// Classes that do not cover each transaction exactly once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotExactCover {
    /// Two classes share transactions.
    #[error("classes {0} and {1} overlap: a transaction would be upgraded twice")]
    Overlap(ResidueClass, ResidueClass),
    /// Some transactions have no class.
    #[error("classes leave out {missing} of 256 values of a transaction id's last byte, the first of them {first}")]
    Gap {
        /// How many byte values have no owner.
        missing: u16,
        /// The least of them.
        first: u8,
    },
}

/// The classes of a fleet with `shards` shards, in order.
///
/// Starts from the whole and always splits the largest class with the smallest remainder. So no class is more than twice as
/// large as another, one shard more replaces one class by its halves, and a power of two gives exactly `N:0` to `N:N-1`.
///
/// # Errors
/// When the number is not from 1 to 128.
pub fn plan(shards: i64) -> Result<Vec<ResidueClass>, ShardCountOutOfRange> {
    if !(1..=i64::from(MAX_SHARDS)).contains(&shards) {
        return Err(ShardCountOutOfRange(shards));
    }
    let shards = shards as u16;
    let floor = 1 << shards.ilog2(); // the divisor of the classes that are not split
    let split = shards - floor;
    let mut classes = Vec::with_capacity(usize::from(shards));
    classes.extend((split..floor).filter_map(|remainder| ResidueClass::new(floor, remainder).ok()));
    let halves = (0..split).chain(floor..floor + split);
    classes.extend(halves.filter_map(|remainder| ResidueClass::new(2 * floor, remainder).ok()));
    Ok(classes)
}

/// Whether each transaction belongs to exactly one of the classes.
///
/// # Errors
/// Two classes that overlap, or what is left out.
pub fn check_exact_cover(classes: &[ResidueClass]) -> Result<(), NotExactCover> {
    for (index, one) in classes.iter().enumerate() {
        if let Some(other) = classes[index + 1..].iter().find(|other| one.overlaps(**other)) {
            return Err(NotExactCover::Overlap(*one, *other));
        }
    }
    let missing = !classes.iter().copied().collect::<Coverage>().covered;
    match (0..=u8::MAX).find(|byte| missing.contains(*byte)) {
        Some(first) => Err(NotExactCover::Gap { missing: missing.count(), first }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::any_class;
    use super::*;

    /// The definition, step by step.
    fn by_splitting(shards: usize) -> Vec<ResidueClass> {
        let mut classes = BTreeSet::from([ResidueClass::WHOLE]);
        while classes.len() < shards {
            let largest = classes.pop_first().expect("never empty");
            classes.extend(largest.split().expect("128 shards need divisor 128 at most"));
        }
        classes.into_iter().collect()
    }

    #[test]
    fn every_plan_covers_exactly_and_evenly() {
        for shards in 1..=128 {
            let classes = plan(shards).expect("in range");
            assert_eq!(classes, by_splitting(shards as usize));
            assert_eq!(check_exact_cover(&classes), Ok(()));
            let weights = || classes.iter().map(|class| class.weight());
            assert!(weights().max() <= weights().min().map(|least| 2 * least), "{shards}");
        }
    }

    #[test]
    fn one_shard_more_changes_one_class() {
        for shards in 1..128 {
            let before = BTreeSet::from_iter(plan(shards).expect("in range"));
            let after = BTreeSet::from_iter(plan(shards + 1).expect("in range"));
            let retired: Vec<_> = before.difference(&after).copied().collect();
            let added: Vec<_> = after.difference(&before).copied().collect();
            assert_eq!(retired.len(), 1);
            assert_eq!(retired[0].split().map(Vec::from), Some(added));
        }
    }

    #[test]
    fn small_plans_are_as_written_down() {
        let text = |shards| plan(shards).expect("in range").iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(text(1), "1:0");
        assert_eq!(text(3), "2:1 4:0 4:2");
        assert_eq!(text(4), "4:0 4:1 4:2 4:3");
        assert_eq!(text(5), "4:1 4:2 4:3 8:0 8:4");
        for bad in [i64::MIN, -1, 0, 129, 256, i64::MAX] {
            assert_eq!(plan(bad), Err(ShardCountOutOfRange(bad)));
        }
    }

    #[test]
    fn any_single_failure_is_covered_by_widening_one_neighbour() {
        for shards in 2..=128 {
            let classes = plan(shards).expect("in range");
            for dead in &classes {
                let live: Vec<_> = classes.iter().copied().filter(|class| class != dead).collect();
                let rescued = live.iter().any(|rescuer| {
                    let mut wider = *rescuer;
                    while let Some(parent) = wider.parent() {
                        wider = parent;
                        let all = live.iter().copied().filter(|class| class != rescuer).chain([wider]);
                        if all.collect::<Coverage>().covered.is_full() {
                            return true;
                        }
                    }
                    false
                });
                assert!(rescued, "{shards} shards without {dead}");
            }
        }
    }

    #[test]
    fn overlaps_and_gaps_are_named() {
        let parse = |text: &str| text.split(' ').map(|class| class.parse().expect("a class")).collect::<Vec<ResidueClass>>();
        let message = |text| check_exact_cover(&parse(text)).expect_err(text).to_string();
        assert_eq!(message("2:0 4:2 2:1"), "classes 2:0 and 4:2 overlap: a transaction would be upgraded twice");
        assert_eq!(message("2:1 2:1 2:0"), "classes 2:1 and 2:1 overlap: a transaction would be upgraded twice");
        assert_eq!(
            message("4:0 4:1 4:3"),
            "classes leave out 64 of 256 values of a transaction id's last byte, the first of them 2"
        );
        assert!(check_exact_cover(&[]).is_err());
        assert_eq!(check_exact_cover(&parse("2:0 4:1 8:3 8:7")), Ok(()));
    }

    proptest! {
        #[test]
        fn exact_cover_is_one_owner_for_each_byte(classes in prop::collection::vec(any_class(), 0..6)) {
            let exact = (0..=u8::MAX).all(|byte| classes.iter().filter(|class| class.owns(byte)).count() == 1);
            prop_assert_eq!(check_exact_cover(&classes).is_ok(), exact);
        }

        #[test]
        fn random_splits_stay_exact(choices in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
            let mut classes = vec![ResidueClass::WHOLE];
            for choice in choices {
                let index = choice.index(classes.len());
                if let Some(halves) = classes[index].split() {
                    classes.swap_remove(index);
                    classes.extend(halves);
                }
            }
            prop_assert_eq!(check_exact_cover(&classes), Ok(()));
        }
    }
}

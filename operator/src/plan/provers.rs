//! How many prover pods a fleet should have.

use std::time::Duration;

use fleet_api::v1alpha1::Autoscaling;

/// What the pods of one kind said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Pods that there are now, ready or not.
    pub replicas: i32,
    /// Estimated seconds of work that waits or runs, over all pods; `None` when no pod could be asked.
    pub work_seconds: Option<f64>,
}

/// What has to be remembered between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// How long fewer pods would have done.
    pub low_for: Option<Duration>,
}

/// How far below the next smaller number of pods the work has to be before that counts as enough: against flapping.
const HYSTERESIS: f64 = 0.9;

/// The number of pods to have now, and what to remember.
///
/// Grows at once to `ceil(work / target)`; shrinks by one pod, when less work has been waiting for the whole of
/// `scaleDownAfterSeconds`. When no pod answers nothing changes, except that the bounds hold. `elapsed` is the time since the
/// last look.
pub fn desired(scaling: &Autoscaling, load: Load, memory: Memory, elapsed: Duration) -> (i32, Memory) {
    let bounded = load.replicas.clamp(scaling.min, scaling.max);
    // With no pod at all nobody can be asked, and nobody queues: one pod has to be there to take the first job.
    let Some(work) = load.work_seconds else { return (bounded.max(scaling.min), Memory::default()) };
    let target = f64::from(scaling.target_seconds.max(1));
    let needed = (work.max(0.0) / target).ceil().min(f64::from(scaling.max)) as i32;
    let needed = needed.clamp(scaling.min, scaling.max);
    if needed >= bounded {
        return (needed, Memory::default());
    }
    let enough_with_one_less = work <= f64::from(bounded - 1) * target * HYSTERESIS;
    if !enough_with_one_less {
        return (bounded, Memory::default());
    }
    let low_for = memory.low_for.map_or(Duration::ZERO, |before| before + elapsed);
    if low_for >= Duration::from_secs(u64::from(scaling.scale_down_after_seconds.unsigned_abs())) {
        (bounded - 1, Memory { low_for: Some(Duration::ZERO) })
    } else {
        (bounded, Memory { low_for: Some(low_for) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scaling(min: i32, max: i32) -> Autoscaling {
        Autoscaling { min, max, target_seconds: 100, scale_down_after_seconds: 300 }
    }

    fn run(scaling: &Autoscaling, mut replicas: i32, work: impl IntoIterator<Item = f64>) -> Vec<i32> {
        let mut memory = Memory::default();
        let mut history = Vec::new();
        for work_seconds in work {
            let load = Load { replicas, work_seconds: Some(work_seconds) };
            (replicas, memory) = desired(scaling, load, memory, Duration::from_mins(1));
            history.push(replicas);
        }
        history
    }

    #[test]
    fn it_grows_at_once_and_shrinks_one_by_one() {
        assert_eq!(run(&scaling(1, 8), 1, [450.0, 5000.0]), [5, 8]);
        assert_eq!(run(&scaling(1, 8), 3, [0.0; 12]), [3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 1, 1]);
        // A burst in between starts the wait anew.
        assert_eq!(
            run(&scaling(1, 8), 3, [0.0, 0.0, 0.0, 0.0, 299.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2]
        );
    }

    #[test]
    fn a_queue_just_at_the_edge_does_not_flap() {
        let edge = [201.0, 199.0].into_iter().cycle().take(60);
        assert!(run(&scaling(1, 8), 3, edge).iter().all(|replicas| *replicas == 3));
    }

    #[test]
    fn silence_changes_nothing_but_bounds_hold() {
        let silent =
            |replicas| desired(&scaling(2, 4), Load { replicas, work_seconds: None }, Memory::default(), Duration::ZERO).0;
        assert_eq!([0, 3, 9].map(silent), [2, 3, 4]);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_shrinking_is_by_one(
            min in 0_i32..10, more in 0_i32..10, replicas in 0_i32..30, work in prop::option::of(0.0_f64..1e7), low in prop::option::of(0_u64..1000)
        ) {
            let scaling = scaling(min, (min + more).max(1));
            let memory = Memory { low_for: low.map(Duration::from_secs) };
            let (next, _) = desired(&scaling, Load { replicas, work_seconds: work }, memory, Duration::from_secs(5));
            prop_assert!((scaling.min..=scaling.max).contains(&next));
            prop_assert!(next >= replicas.clamp(scaling.min, scaling.max) - 1);
        }

        #[test]
        fn steady_work_ends_in_a_steady_number(work in 0.0_f64..3000.0, start in 1_i32..20) {
            let history = run(&scaling(1, 20), start, std::iter::repeat_n(work, 400));
            let last = history[history.len() - 1];
            prop_assert!(history[history.len() - 20..].iter().all(|replicas| *replicas == last));
            prop_assert!(f64::from(last) * 100.0 >= work.min(2000.0));
        }
    }
}

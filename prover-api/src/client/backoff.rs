//! How long to wait before asking again.

use std::time::Duration;

/// Exponential backoff with equal jitter (half of each wait is chance), from `least` to `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Upper end of the first wait.
    pub least: Duration,
    /// Upper end of all waits.
    pub most: Duration,
}

impl Backoff {
    /// Wait before the retry that follows failure number `failures` (from 1). `chance` is uniform in 0..1: clients that were
    /// turned away together must not come back together.
    pub fn wait(self, failures: u32, chance: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let ceiling = self.least.saturating_mul(1 << doublings).min(self.most);
        ceiling.mul_f64(0.5 + 0.5 * chance.clamp(0.0, 1.0))
    }

    /// The same after an answer with `Retry-After`: never earlier than the pod asks, and spread over the following quarter.
    pub fn wait_as_told(self, told: Option<Duration>, failures: u32, chance: f64) -> Duration {
        let Some(told) = told else { return self.wait(failures, chance) };
        told.min(MOST_TOLD).mul_f64(1.0 + 0.25 * chance.clamp(0.0, 1.0))
    }
}

/// A pod that asks for more than this is asked again anyway.
const MOST_TOLD: Duration = Duration::from_mins(10);

/// `Retry-After` in seconds (RFC 9110, 10.2.3). The form with a date is not used by pods and gives `None`.
pub fn retry_after(header: Option<&str>) -> Option<Duration> {
    header?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BACKOFF: Backoff = Backoff { least: Duration::from_millis(200), most: Duration::from_secs(10) };

    proptest! {
        #[test]
        fn waits_grow_up_to_the_most(failures in 1_u32..200, chance in 0.0..1.0_f64) {
            let wait = BACKOFF.wait(failures, chance);
            prop_assert!(wait <= BACKOFF.most);
            prop_assert!(wait >= BACKOFF.least / 2);
            prop_assert!(wait <= BACKOFF.wait(failures + 1, chance));
        }

        #[test]
        fn nobody_comes_earlier_than_told(seconds in 0_u64..600, failures in 1_u32..9, chance in 0.0..1.0_f64) {
            let told = Duration::from_secs(seconds);
            let wait = BACKOFF.wait_as_told(Some(told), failures, chance);
            prop_assert!(told <= wait && wait <= told.mul_f64(1.25));
        }
    }

    #[test]
    fn retry_after_is_read() {
        assert_eq!(retry_after(Some(" 7 ")), Some(Duration::from_secs(7)));
        for nothing in [None, Some("-1"), Some("Wed, 21 Oct 2015 07:28:00 GMT"), Some("")] {
            assert_eq!(retry_after(nothing), None);
        }
        assert!(BACKOFF.wait_as_told(Some(Duration::MAX), 1, 1.0) < Duration::from_secs(1_000));
    }
}

//! Quantiles of measurements.

use std::time::Duration;

/// Measured durations, in order.
#[derive(Debug, Clone)]
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Sorts the measurements. There must be at least one.
    pub fn of(mut measured: Vec<Duration>) -> Self {
        measured.sort_unstable();
        Self(measured)
    }

    /// The measurement that at least `fraction` of all do not exceed (nearest rank); zero when there are none.
    pub fn quantile(&self, fraction: f64) -> Duration {
        let rank = (fraction * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The largest.
    pub fn max(&self) -> Duration {
        self.quantile(1.0)
    }
}

/// Milliseconds with two digits.
pub fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measurements() {
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!([50, 99, 100], [0.5, 0.99, 1.0].map(|q| spread.quantile(q).as_millis()));
        assert_eq!(Duration::from_millis(100), spread.max());
        assert_eq!(Duration::from_millis(7), Spread::of(vec![Duration::from_millis(7)]).quantile(0.5));
        assert_eq!("7.00 ms", ms(Duration::from_millis(7)));
    }
}

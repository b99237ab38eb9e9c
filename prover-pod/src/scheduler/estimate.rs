//! How long a proof takes, to tell callers when to come back and autoscalers how much work waits.

use super::Backend;

/// Seconds to prove per kind of prover and log2 padded height. Shipped with measured defaults, then learned from the pod's own proofs.
#[derive(Debug, Clone)]
pub struct CostModel {
    learned: [[Option<f64>; Self::HEIGHTS]; Self::BACKENDS],
    cores: f64,
}

/// Seconds of one core and padded row on the CPU: a 2^18 proof took 16.1 s on 16 cores, a 2^16 one 13.0 s on two
/// (docs/benchmarks.md).
const CORE_SECONDS_PER_ROW: f64 = 4.0e-4;

/// Height assumed for a job that nobody has looked at: a typical leaf of a ProofCollection.
const UNKNOWN_LOG2_HEIGHT: u8 = 14;

/// How much of a new measurement enters the learned figure.
const LEARNING_RATE: f64 = 0.3;

/// Padded rows for a log2 height.
pub fn default_rows(log2_height: u8) -> f64 {
    f64::from(log2_height.min(40)).exp2()
}

impl CostModel {
    const HEIGHTS: usize = 33;
    const BACKENDS: usize = 3;

    /// A model for a host with `cores` cores.
    pub fn new(cores: usize) -> Self {
        Self { learned: [[None; Self::HEIGHTS]; Self::BACKENDS], cores: cores.max(1) as f64 }
    }

    /// Estimated seconds from trace to proof.
    pub fn seconds(&self, backend: Backend, log2_height: Option<u8>) -> f64 {
        let log2_height = log2_height.unwrap_or(UNKNOWN_LOG2_HEIGHT);
        if let Some(seconds) = self.learned[backend as usize].get(usize::from(log2_height)).copied().flatten() {
            return seconds;
        }
        match backend {
            Backend::Cpu => 0.05 + CORE_SECONDS_PER_ROW * default_rows(log2_height) / self.cores,
            // One H200 took 0.76 s for 2^20 rows and 3.5 s for 2^22 (docs/benchmarks.md).
            Backend::Gpu => 0.02 + 1.0e-6 * default_rows(log2_height),
            Backend::Mock => 0.01,
        }
    }

    /// Learns from a finished proof.
    pub fn learn(&mut self, backend: Backend, log2_height: u8, seconds: f64) {
        let Some(slot) = self.learned[backend as usize].get_mut(usize::from(log2_height)) else { return };
        if seconds.is_finite() && seconds >= 0.0 {
            *slot = Some(slot.map_or(seconds, |old| old + LEARNING_RATE * (seconds - old)));
        }
    }
}

//! The host's threads that fill tables.

use std::sync::{Mutex, PoisonError};

use gpu_prover::error::GpuError;
use gpu_prover::main_table::MainTable;
use gpu_prover::trace::Trace;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::backend::Cancelled;
use crate::memory::MAX_LOG2_HEIGHT;
use crate::scheduler::Failure;

/// Padded height from which on tables are filled one after the other. Smaller ones are soon done, and do not wait for one that
/// takes half a second.
const LARGE: usize = 1 << 18;

/// A thread for each core, not those that rayon has anyway: what the proof on the device has for the host takes milliseconds, and
/// would wait behind what another job's table has to do, with the device idle.
#[derive(Debug)]
pub(super) struct Hands {
    pool: ThreadPool,
    large: Mutex<()>,
}

impl Hands {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`GpuError::NoThreads`].
    pub(super) fn new() -> Result<Self, GpuError> {
        let pool = ThreadPoolBuilder::new().thread_name(|index| format!("hand-{index}")).build();
        let pool = pool.map_err(|error| GpuError::NoThreads { detail: error.to_string() })?;
        Ok(Self { pool, large: Mutex::default() })
    }

    /// Fills a trace's table. All cores are at one large table at a time: the job that comes first has its table first. Together
    /// they would all be late, each thread that waits for a part of one taking up a part of another.
    ///
    /// # Errors
    /// The trace is too high, or the job was cancelled before it was its turn.
    pub(super) fn fill(&self, trace: &Trace, cancelled: &Cancelled) -> Result<MainTable, Failure> {
        let height = trace.heights().padded_height();
        let _turn = (height >= LARGE).then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
        if cancelled.is_set() {
            // Those who wait behind it are still wanted.
            return Err(Failure::Prover("cancelled".to_owned()));
        }
        let filled = self.pool.install(|| MainTable::from_trace(trace));
        filled.map_err(|_| Failure::TooBig { log2_padded_height: height.ilog2() as u8, limit: MAX_LOG2_HEIGHT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpu_prover::workloads;

    #[test]
    fn small_tables_pass_large_ones_and_cancelled_jobs_get_none() {
        let hands = Hands::new().expect("threads");
        let _held = hands.large.lock().expect("nobody panicked");
        let small = workloads::spin(9);
        let trace = Trace::record(small.state(), |_| std::ops::ControlFlow::Continue(())).expect("it runs");
        let cancelled = Cancelled::default();
        let table = hands.fill(&trace, &cancelled).expect("a legal height");
        assert_eq!(table, MainTable::from_trace(&trace).expect("a legal height"));
        cancelled.set();
        assert!(matches!(hands.fill(&trace, &cancelled), Err(Failure::Prover(_))), "nobody wants it");
    }
}

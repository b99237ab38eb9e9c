//! What the machine can not do, and why: the next step after a ProofCollection is its raise to a SingleProof.

use fleet::trace::Heights;
use upgrader_fleet_tests::machine::{Machine, gib};

/// Peak bytes per padded row with the low-degree extension kept: 53.1 GiB at 2^20, triton-vm 9.0.1 (docs/benchmarks.md).
const CACHED_BYTES_PER_ROW: u64 = 54_000;

/// Peak bytes per padded row with the extension recomputed: 28.0 GiB at 2^21, triton-vm 9.0.1 (docs/benchmarks.md).
const JUST_IN_TIME_BYTES_PER_ROW: u64 = 14_300;

/// Seconds and cores of the measured SingleProof of 2^21 rows, extension recomputed (docs/benchmarks.md).
const MEASURED: (f64, usize) = (168.2, 16);

/// What this run showed of the machine's speed.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Padded rows of the largest proof made here.
    pub rows: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The last words of the demo.
pub fn report(raise: Heights, traced_seconds: f64, machine: Machine, pace: Option<Pace>) -> String {
    let log2 = raise.log2_padded_height();
    let rows = 1_u64 << log2;
    let (kept, recomputed) = (rows * CACHED_BYTES_PER_ROW, rows * JUST_IN_TIME_BYTES_PER_ROW);
    let fits = recomputed < machine.available;
    let mut lines = vec![
        format!(
            "The next step is the raise of this collection to a SingleProof, which a block can take. Traced here in {traced_seconds:.1} s:"
        ),
        format!("  rows    {raise}, so a padded height of 2^{log2}"),
        format!(
            "  memory  {} with the low-degree extension kept, {} with it recomputed; this machine has {} ({} free)",
            gib(kept),
            gib(recomputed),
            gib(machine.memory),
            gib(machine.available),
        ),
        format!("  time    {:.0} s measured for 2^21 rows on {} cores, extension recomputed", MEASURED.0, MEASURED.1),
    ];
    if let Some(Pace { rows: proven, seconds }) = pace {
        let minutes = seconds * rows as f64 / proven as f64 / 60.0;
        lines.push(format!(
            "          at least {minutes:.0} min on these {} cores: {seconds:.1} s for 2^{} rows in this run, in proportion",
            machine.cores,
            proven.ilog2(),
        ));
    }
    lines.push(if fits {
        "This machine can do it, slowly. A prover pod with a GPU is what that step is for.".to_owned()
    } else {
        "This machine can not do it: the proof does not fit into its memory in any mode. That step is for a prover pod with a GPU, \
         or a larger host."
            .to_owned()
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use triton_vm::prelude::TableId;

    use super::*;

    const RAISE: Heights = Heights { longest: TableId::Ram, rows: 1_806_289 };

    fn machine(gigabytes: u64) -> Machine {
        Machine { cores: 2, memory: gigabytes << 30, available: gigabytes << 30 }
    }

    #[test]
    fn a_small_machine_is_told_why() {
        let text = report(RAISE, 9.5, machine(8), Some(Pace { rows: 1 << 16, seconds: 15.0 }));
        for part in ["2^21", "1806289 (Ram)", "105.5 GiB", "27.9 GiB", "8.0 GiB", "at least 8 min", "can not do it"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_large_machine_is_not_told_that_it_is_small() {
        let text = report(RAISE, 9.5, machine(64), None);
        assert!(text.contains("can do it, slowly") && !text.contains("can not"), "{text}");
    }
}

//! How a proof fits into a device's memory, decided before the first launch.
//!
//! A proof always keeps the main table, the coefficients of all 652 base field columns, three trees, the quotient and FRI. What it can
//! trade for time is the low-degree extension, 8 cosets of 5,216 bytes a row: a coset that is not kept is computed a
//! second time, because the quotient needs it again after its weights are known.

use thiserror::Error;

use crate::domain::{Domains, NUM_COSETS};
use crate::stages::{NUM_AUX_COLUMNS, NUM_MAIN_COLUMNS};
use triton_vm::table::NUM_RANDOMIZED_QUOTIENT_SEGMENTS;

const BASE_ELEMENT: u64 = 8;
const EXTENSION_ELEMENT: u64 = 24;
const DIGEST: u64 = 40;

/// Bytes that do not grow with the trace: challenges, weights, openings, staging buffers, alignment of the arena.
const FIXED_BYTES: u64 = 64 << 20;

/// Heights below this one are proven on a trace domain of 512 points all the same.
const LOG2_HEIGHT_LIMIT: u32 = crate::domain::LOG2_HEIGHT_LIMIT;

/// How much of the low-degree extension stays on the device. Ordered from the slowest to the fastest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Plan {
    /// No coset stays: one buffer, each coset computed twice.
    CosetByCoset,
    /// This many cosets (1 to 6) stay; the others share one buffer and are computed twice.
    CachedCosets(u32),
    /// All eight cosets stay.
    Full,
}

impl Plan {
    /// All plans, the fastest first.
    pub fn fastest_first() -> impl Iterator<Item = Self> {
        let most_cached = NUM_COSETS as u32 - 2;
        let cached = (1..=most_cached).rev().map(Self::CachedCosets);
        std::iter::once(Self::Full).chain(cached).chain(std::iter::once(Self::CosetByCoset))
    }

    /// How many coset buffers the plan holds at once.
    pub fn coset_buffers(self) -> u32 {
        match self {
            Self::Full => NUM_COSETS as u32,
            Self::CachedCosets(cached) => cached + 1,
            Self::CosetByCoset => 1,
        }
    }

    /// How many cosets the quotient finds where the commitment left them.
    pub fn kept_cosets(self) -> u32 {
        match self {
            Self::Full => NUM_COSETS as u32,
            Self::CachedCosets(cached) => cached,
            Self::CosetByCoset => 0,
        }
    }

    /// Where coset `coset` stays between commitment and quotient, if it does.
    pub fn place(self, coset: usize) -> Option<usize> {
        COSET_PRIORITY.iter().position(|&c| c == coset).filter(|&place| place < self.kept_cosets() as usize)
    }

    /// The order in which a commitment walks the cosets: the least wanted first, so that the one that is left in the shared
    /// buffer is the most wanted of those that are not kept.
    pub fn walk() -> impl Iterator<Item = usize> {
        COSET_PRIORITY.into_iter().rev()
    }
}

/// Cosets in the order in which they are worth memory: the four on which all constraints are evaluated, the one on which
/// only boundary constraints are, and those that only an opening looks at again.
pub const COSET_PRIORITY: [usize; NUM_COSETS] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Device memory of one proof, by what it holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// The main table's values on the trace domain, which the auxiliary table is made from. Later the segments' values and
    /// FRI lie there.
    pub trace: u64,
    /// Coefficients of all columns, and the batch randomizer's own randomizer.
    pub coefficients: u64,
    /// Coset buffers.
    pub cosets: u64,
    /// The three table trees.
    pub trees: u64,
    /// Constraint sums, the quotient on five cosets, its coefficients, its segments as coefficients.
    pub quotient: u64,
    /// The segments' values on eight cosets.
    pub segments: u64,
    /// Combinations of all columns, as coefficients and on one coset; powers of the out-of-domain points.
    pub combination: u64,
    /// All FRI codewords and trees.
    pub fri: u64,
    /// Twiddle factors, randomizers and all that hardly grows.
    pub fixed: u64,
}

impl Footprint {
    /// The footprint of a proof with these domains under `plan`.
    pub fn new(domains: &Domains, plan: Plan) -> Self {
        let n = domains.trace_length() as u64;
        let fri_length = domains.fri_length() as u64;
        let main_columns = NUM_MAIN_COLUMNS as u64 * BASE_ELEMENT;
        let columns = main_columns + NUM_AUX_COLUMNS as u64 * EXTENSION_ELEMENT;
        let segments = NUM_RANDOMIZED_QUOTIENT_SEGMENTS as u64;
        let tree = 2 * fri_length * DIGEST;
        // Four kinds of constraints, four cosets for most of them and five for the few of highest degree, five blocks
        // of coefficients, and each segment as coefficients.
        let quotient_columns = 4 + 4 + 5 + 5 + segments;
        // W, P, R as coefficients and on one coset, W's upper half, powers of two points.
        let combination_columns = 3 + 3 + 1 + 2;
        Self {
            trace: n * main_columns,
            coefficients: n * (columns + EXTENSION_ELEMENT),
            cosets: u64::from(plan.coset_buffers()) * n * columns,
            trees: 3 * tree,
            quotient: quotient_columns * n * EXTENSION_ELEMENT,
            segments: segments * fri_length * EXTENSION_ELEMENT,
            combination: combination_columns * n * EXTENSION_ELEMENT,
            // Codewords and trees of lengths 8 n, 4 n, 2 n, ..
            fri: 2 * (fri_length * EXTENSION_ELEMENT + tree),
            fixed: FIXED_BYTES,
        }
    }

    /// All bytes together.
    pub fn bytes(&self) -> u64 {
        let Self { trace, coefficients, cosets, trees, quotient, segments, combination, fri, fixed } = *self;
        trace.max(segments + fri) + coefficients + cosets + trees + quotient + combination + fixed
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PlanError {
    /// Even coset by coset the proof does not fit.
    #[error(
        "a proof of padded height 2^{log2_height} needs {needed} bytes of device memory, {free} are free{}",
        hint(*max_log2_height)
    )]
    TooBig {
        /// Height of the job.
        log2_height: u32,
        /// Bytes it needs at least.
        needed: u64,
        /// Bytes there are.
        free: u64,
        /// The greatest height that would fit, if any does.
        max_log2_height: Option<u32>,
    },

    /// No verifier accepts a proof of that height.
    #[error("padded height 2^{log2_height} cannot be proven: verifiers accept less than 2^30")]
    Height {
        /// Height of the job.
        log2_height: u32,
    },
}

fn hint(max_log2_height: Option<u32>) -> String {
    match max_log2_height {
        Some(max) => format!(": this device takes up to 2^{max}; use a larger one"),
        None => ": free some memory or use another device".to_owned(),
    }
}

/// The fastest plan for a proof of padded height `2^log2_height` in `free_bytes` of device memory.
///
/// # Errors
/// If none fits, with what it would take.
pub fn memory_plan(log2_height: u32, free_bytes: u64) -> Result<Plan, PlanError> {
    let domains = domains(log2_height)?;
    let fits = |plan: &Plan| Footprint::new(&domains, *plan).bytes() <= free_bytes;
    Plan::fastest_first().find(fits).ok_or_else(|| PlanError::TooBig {
        log2_height,
        needed: Footprint::new(&domains, Plan::CosetByCoset).bytes(),
        free: free_bytes,
        max_log2_height: max_log2_height(free_bytes),
    })
}

/// The greatest log2 height that fits into `free_bytes` at all.
pub fn max_log2_height(free_bytes: u64) -> Option<u32> {
    (0..LOG2_HEIGHT_LIMIT)
        .rev()
        .find(|&log2_height| domains(log2_height).is_ok_and(|d| Footprint::new(&d, Plan::CosetByCoset).bytes() <= free_bytes))
}

fn domains(log2_height: u32) -> Result<Domains, PlanError> {
    1_usize.checked_shl(log2_height).and_then(|height| Domains::new(height).ok()).ok_or(PlanError::Height { log2_height })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn plans_for_the_cards_that_exist() {
        // A 80 GB card with 78 GiB to give, a 141 GB card with 139 GiB.
        assert_eq!(memory_plan(20, 78 * GIB), Ok(Plan::Full));
        assert!(matches!(memory_plan(21, 78 * GIB), Ok(Plan::CachedCosets(3..))));
        assert_eq!(memory_plan(22, 78 * GIB), Ok(Plan::CosetByCoset));
        assert_eq!(memory_plan(21, 139 * GIB), Ok(Plan::Full));
        assert!(matches!(memory_plan(22, 139 * GIB), Ok(Plan::CachedCosets(_))));
        assert_eq!(memory_plan(23, 139 * GIB), Ok(Plan::CosetByCoset));
        assert!(memory_plan(24, 178 * GIB).is_err());
        assert_eq!(max_log2_height(78 * GIB), Some(22));
        let refused = memory_plan(23, 78 * GIB).expect_err("2^23 needs more");
        assert!(matches!(refused, PlanError::TooBig { max_log2_height: Some(22), .. }));
        assert!(refused.to_string().contains("2^22"));
    }

    #[test]
    fn the_shared_buffer_is_left_with_what_the_quotient_wants_next() {
        for plan in Plan::fastest_first().filter(|&plan| plan != Plan::Full) {
            let last = Plan::walk().filter(|&coset| plan.place(coset).is_none()).last();
            assert_eq!(last, Some(COSET_PRIORITY[plan.kept_cosets() as usize]), "{plan:?}");
        }
        let mut places: Vec<_> = Plan::walk().filter_map(|coset| Plan::Full.place(coset)).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn illegal_heights_are_refused_whatever_the_memory() {
        for log2_height in [30, 31, 63, 64, u32::MAX] {
            assert_eq!(memory_plan(log2_height, u64::MAX), Err(PlanError::Height { log2_height }));
        }
    }

    #[test]
    fn the_parts_are_what_the_protocol_keeps() {
        let domains = Domains::new(1 << 20).expect("a legal height");
        let full = Footprint::new(&domains, Plan::Full);
        assert_eq!(full.cosets, 41_728 << 20);
        assert_eq!(full.trees, 3 * (640 << 20));
        assert_eq!(full.fri, (384 + 1280) << 20);
    }

    proptest! {
        #[test]
        fn a_plan_fits_and_no_faster_one_would(log2_height in 0_u32..30, free in 0_u64..(1 << 45)) {
            let domains = domains(log2_height).expect("a legal height");
            let bytes = |plan| Footprint::new(&domains, plan).bytes();
            match memory_plan(log2_height, free) {
                Ok(plan) => {
                    prop_assert!(bytes(plan) <= free);
                    for faster in Plan::fastest_first().take_while(|&faster| faster != plan) {
                        prop_assert!(faster > plan && bytes(faster) > free);
                    }
                }
                Err(PlanError::TooBig { needed, max_log2_height, .. }) => {
                    prop_assert!(needed > free);
                    prop_assert!(max_log2_height.is_none_or(|max| max < log2_height));
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }

        #[test]
        fn more_memory_never_gives_a_slower_plan(log2_height in 0_u32..30, free in 0_u64..(1 << 42), more in 0_u64..(1 << 42)) {
            if let Ok(plan) = memory_plan(log2_height, free) {
                let with_more = memory_plan(log2_height, free + more).expect("more memory than enough");
                prop_assert!(with_more >= plan);
                prop_assert!(max_log2_height(free) >= Some(log2_height));
            }
        }

        #[test]
        fn a_higher_trace_never_takes_less(log2_height in 0_u32..29, plan in 0_usize..8) {
            let plan = Plan::fastest_first().nth(plan).expect("there are eight plans");
            let bytes = |log2| Footprint::new(&domains(log2).expect("a legal height"), plan).bytes();
            prop_assert!(bytes(log2_height) <= bytes(log2_height + 1));
        }
    }
}

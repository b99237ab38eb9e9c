//! The device memory of one proof.

use std::cell::Cell;

use ndarray::Array2;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, XFieldElement};

use super::arena::{Arena, Region, padded};
use super::columns::Columns;
use super::launch::Launcher;
use super::ntt::{Ntt, PowerTable};
use crate::domain::{Domains, NUM_COSETS};
use crate::error::GpuError;
use crate::matrix::Matrix;
use crate::plan::{COSET_PRIORITY, Plan};
use crate::stages::{NUM_AUX_COLUMNS, NUM_MAIN_COLUMNS};

/// Auxiliary columns as base columns.
pub(crate) const AUX_BASE_COLUMNS: usize = 3 * NUM_AUX_COLUMNS;

/// First base column of the batch randomizer.
pub(crate) const BATCH_COLUMN: usize = AUX_BASE_COLUMNS - 3;

/// The quotient's five randomized segments as base columns.
pub(crate) const SEGMENT_COLUMNS: usize = 15;

/// Rows kept for coefficients of segments beyond the first `n`. A segment of the quotient has at most `n + 104`
/// coefficients, the last randomized one 530, which for n = 512 is `n + 18`.
pub(crate) const SEGMENT_TAIL: usize = 128;

/// Cosets on which the constraints are evaluated, the boundary ones on all, the rest on the first four.
pub(crate) const QUOTIENT_COSETS: [usize; 5] = {
    let [a, b, c, d, e, ..] = COSET_PRIORITY;
    [a, b, c, d, e]
};

/// Words that any stage may use for a short time: partial sums, openings, lists of indices.
const SCRATCH: usize = 1 << 21;

/// A tree of `leaves` digests in heap order, node 0 unused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tree {
    pub nodes: Region<u64>,
    pub leaves: usize,
}

/// A table on one coset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CosetBuffer {
    pub main: Columns,
    pub aux: Columns,
}

/// A FRI round: three base columns of 8 cosets, and the tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub codeword: Region<u64>,
    pub length: usize,
    pub tree: Tree,
}

/// What the host prepares for the auxiliary table while the device works on the main one.
#[derive(Debug)]
pub(crate) struct ForAux {
    pub batch_values: Vec<XFieldElement>,
    pub batch_randomizer: Vec<XFieldElement>,
}

/// Regions and state of one proof.
#[derive(Debug)]
pub(crate) struct Job {
    pub domains: Domains,
    pub plan: Plan,
    pub ntt: Ntt,
    /// Powers of `w_8n^-1`.
    pub inverse_points: PowerTable,
    /// Powers of `3^4`, for the segments.
    pub segment_powers: PowerTable,

    /// Main table on the trace domain, until the auxiliary table is made. Then the segments' values and FRI lie there.
    pub main_values: Columns,
    /// Main coefficients, bit-reversed.
    pub main: Columns,
    /// Auxiliary coefficients, bit-reversed, and after them the batch randomizer's own randomizer.
    pub aux: Columns,
    /// Randomizers of main columns, natural order.
    pub main_tail: Columns,
    /// Randomizers of auxiliary columns but the last.
    pub aux_tail: Columns,
    /// Cosets that stay.
    pub cached: Vec<CosetBuffer>,
    /// The coset buffer of those that do not, and which coset's main and auxiliary table are in there.
    pub shared: Option<CosetBuffer>,
    pub shared_main: Cell<Option<usize>>,
    pub shared_aux: Cell<Option<usize>>,

    /// Constraint sums of one coset by kind; a set for each coset of the quotient where they are worked on at once.
    pub sums: Vec<[Columns; 4]>,
    /// Residues of the quotient on the four even cosets.
    pub regular: Columns,
    /// Residues of the boundary quotients on five cosets.
    pub boundary: Columns,
    /// Coefficients of the quotient, five blocks.
    pub quotient: Columns,
    pub segments: Columns,
    pub segment_tail: Columns,
    pub segment_random: Region<u64>,
    /// Segments on the eight cosets.
    pub segment_cosets: Vec<Columns>,

    /// Combinations W, its tail, and P, R; then the three on one coset.
    pub combination: Columns,
    pub combination_tail: Columns,
    pub combination_values: Columns,
    /// Tails of P and R.
    pub combined_segment_tail: Columns,
    pub combination_weights: Region<u64>,
    /// Powers of two points.
    pub powers: Columns,

    pub main_tree: Tree,
    pub aux_tree: Tree,
    pub quotient_tree: Tree,
    pub rounds: Vec<Round>,
    pub scratch: Region<u64>,

    /// What later stages need of the host's part.
    pub for_aux: Option<ForAux>,
    pub main_randomizers: Option<Matrix<BFieldElement>>,
    pub aux_randomizers: Option<Matrix<XFieldElement>>,
    pub challenges: Option<Challenges>,
    pub newest_round: usize,
}

/// Takes regions, or only counts what they would take.
trait Layout {
    fn words(&mut self, length: usize) -> Result<Region<u64>, GpuError>;
}

impl Layout for Arena {
    fn words(&mut self, length: usize) -> Result<Region<u64>, GpuError> {
        self.take(length)
    }
}

/// Trace length up to which cosets are worked on at the same time: a small one does not fill the device.
const LONGEST_ON_LANES: usize = 1 << 14;

/// Whether cosets are worked on at the same time.
fn uses_lanes(n: usize, plan: Plan) -> bool {
    plan == Plan::Full && n <= LONGEST_ON_LANES
}

fn sets_of_sums(n: usize, plan: Plan) -> usize {
    if uses_lanes(n, plan) { QUOTIENT_COSETS.len() } else { 1 }
}

/// Cuts up a region whose content is no longer wanted when the parts are.
struct Within {
    region: Region<u64>,
    used: usize,
}

impl Layout for Within {
    fn words(&mut self, length: usize) -> Result<Region<u64>, GpuError> {
        let bytes = padded::<u64>(length);
        let free = 8 * (self.region.len() - self.used) as u64;
        if bytes > free {
            return Err(GpuError::OutOfMemory { requested: bytes, free });
        }
        let part = self.region.slice(self.used, length);
        self.used += (bytes / 8) as usize;
        Ok(part)
    }
}

/// Bytes of device memory of a proof under `plan`: what [`Job::new`] takes.
pub(crate) fn bytes(domains: &Domains, plan: Plan) -> u64 {
    let n = domains.trace_length();
    let words = |length| padded::<u64>(length);
    let buffers = u64::from(plan.coset_buffers());
    let coset = words(NUM_MAIN_COLUMNS * n) + words(AUX_BASE_COLUMNS * n);
    let tree = |leaves: usize| words(2 * 5 * leaves);
    let fixed = words(105 * NUM_MAIN_COLUMNS)
        + words(105 * BATCH_COLUMN)
        + words(SEGMENT_COLUMNS * SEGMENT_TAIL)
        + words(6 * SEGMENT_TAIL)
        + words(3 * 530)
        + words(7 * (NUM_MAIN_COLUMNS + NUM_AUX_COLUMNS))
        + words(SCRATCH);
    Ntt::bytes(n)
        + PowerTable::bytes(8 * n)
        + PowerTable::bytes(n + SEGMENT_TAIL)
        + 2 * words(NUM_MAIN_COLUMNS * n)
        + words((AUX_BASE_COLUMNS + 3) * n)
        + buffers * coset
        + sets_of_sums(n, plan) as u64 * 4 * words(3 * n)
        + words(12 * n)
        + words(15 * n)
        + words(15 * n)
        + words(SEGMENT_COLUMNS * n)
        + words(9 * n)
        + words(3 * n)
        + words(9 * n)
        + words(6 * n)
        + 3 * tree(domains.fri_length())
        + fixed
}

impl Job {
    pub(crate) fn new(launcher: &Launcher, arena: &mut Arena, domains: &Domains, plan: Plan) -> Result<Self, GpuError> {
        arena.clear();
        let n = domains.trace_length();
        let ntt = Ntt::new(launcher, arena, domains)?;
        let inverse_root = twenty_first::prelude::Inverse::inverse(&domains.fri_generator());
        let inverse_points = PowerTable::new(launcher, arena, inverse_root, 8 * n)?;
        let segment_powers = PowerTable::new(launcher, arena, BFieldElement::new(81), n + SEGMENT_TAIL)?;

        let mut columns = |count: usize, rows: usize| Ok::<_, GpuError>(Columns::new(arena.words(count * rows)?, rows));
        let mut coset = || -> Result<CosetBuffer, GpuError> {
            Ok(CosetBuffer { main: columns(NUM_MAIN_COLUMNS, n)?, aux: columns(AUX_BASE_COLUMNS, n)? })
        };
        let cached = (0..plan.kept_cosets()).map(|_| coset()).collect::<Result<Vec<_>, _>>()?;
        let shared = (plan.coset_buffers() > plan.kept_cosets()).then(&mut coset).transpose()?;

        let main_values = columns(NUM_MAIN_COLUMNS, n)?;
        let main = columns(NUM_MAIN_COLUMNS, n)?;
        let aux = columns(AUX_BASE_COLUMNS + 3, n)?;
        let main_tail = columns(NUM_MAIN_COLUMNS, 105)?;
        let aux_tail = columns(BATCH_COLUMN, 105)?;
        let mut sums = vec![];
        for _ in 0..sets_of_sums(n, plan) {
            sums.push([columns(3, n)?, columns(3, n)?, columns(3, n)?, columns(3, n)?]);
        }
        let regular = columns(12, n)?;
        let boundary = columns(15, n)?;
        let quotient = columns(15, n)?;
        let segments = columns(SEGMENT_COLUMNS, n)?;
        let segment_tail = columns(SEGMENT_COLUMNS, SEGMENT_TAIL)?;
        let combination = columns(9, n)?;
        let combination_tail = columns(3, n)?;
        let combination_values = columns(9, n)?;
        let combined_segment_tail = columns(6, SEGMENT_TAIL)?;
        let powers = columns(6, n)?;

        let segment_random = arena.words(3 * 530)?;
        let combination_weights = arena.words(7 * (NUM_MAIN_COLUMNS + NUM_AUX_COLUMNS))?;
        let mut tree = |leaves: usize| Ok::<_, GpuError>(Tree { nodes: arena.words(10 * leaves)?, leaves });
        let main_tree = tree(domains.fri_length())?;
        let aux_tree = tree(domains.fri_length())?;
        let quotient_tree = tree(domains.fri_length())?;
        // The main table's values are not wanted any more when the auxiliary table is made: segments and FRI come after.
        let mut later = Within { region: main_values.region(), used: 0 };
        let mut segment_cosets = vec![];
        for _ in 0..NUM_COSETS {
            segment_cosets.push(Columns::new(later.words(SEGMENT_COLUMNS * n)?, n));
        }
        let mut rounds = vec![];
        for round in 0..=domains.num_fri_rounds() {
            let length = domains.fri_length() >> round;
            let codeword = later.words(3 * length)?;
            let tree = Tree { nodes: later.words(10 * length)?, leaves: length };
            rounds.push(Round { codeword, length, tree });
        }
        let scratch = arena.words(SCRATCH)?;
        Ok(Self {
            domains: *domains,
            plan,
            ntt,
            inverse_points,
            segment_powers,
            main_values,
            main,
            aux,
            main_tail,
            aux_tail,
            cached,
            shared,
            shared_main: Cell::new(None),
            shared_aux: Cell::new(None),
            sums,
            regular,
            boundary,
            quotient,
            segments,
            segment_tail,
            segment_random,
            segment_cosets,
            combination,
            combination_tail,
            combination_values,
            combined_segment_tail,
            combination_weights,
            powers,
            main_tree,
            aux_tree,
            quotient_tree,
            rounds,
            scratch,
            for_aux: None,
            main_randomizers: None,
            aux_randomizers: None,
            challenges: None,
            newest_round: 0,
        })
    }

    /// Makes the job ready for another proof of the same shape: what only depends on the shape stays on the device.
    pub(crate) fn renew(&mut self) {
        self.shared_main.set(None);
        self.shared_aux.set(None);
        self.for_aux = None;
        self.main_randomizers = None;
        self.aux_randomizers = None;
        self.challenges = None;
        self.newest_round = 0;
    }

    /// Whether cosets may be worked on at the same time.
    pub(crate) fn uses_lanes(&self) -> bool {
        uses_lanes(self.domains.trace_length(), self.plan)
    }

    /// The buffer that holds coset `coset` while it is worked on.
    pub(crate) fn buffer(&self, coset: usize) -> CosetBuffer {
        match (self.plan.place(coset), self.shared) {
            (Some(place), _) => self.cached[place],
            (None, Some(shared)) => shared,
            (None, None) => unreachable!("a plan that does not keep all cosets has a shared buffer"),
        }
    }

    /// Whether coset `coset` stays where it was computed.
    pub(crate) fn is_cached(&self, coset: usize) -> bool {
        self.plan.place(coset).is_some()
    }
}

/// Extension columns of short length as the base columns that a transform's tail is read from.
pub(crate) fn base_columns(matrix: &Matrix<XFieldElement>) -> Vec<u64> {
    let rows = matrix.rows();
    let mut out = Array2::zeros((3 * matrix.columns(), rows));
    for (c, column) in matrix.iter_columns().enumerate() {
        for (r, x) in column.iter().enumerate() {
            for (k, coefficient) in x.coefficients.iter().enumerate() {
                out[[3 * c + k, r]] = coefficient.raw_u64();
            }
        }
    }
    out.into_raw_vec_and_offset().0
}

/// Raw words of base field elements.
pub(crate) fn words(elements: &[BFieldElement]) -> &[u64] {
    // SAFETY: `BFieldElement` is `repr(transparent)` over its Montgomery word.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), elements.len()) }
}

/// Raw words of extension field elements, three each.
pub(crate) fn extension_words(elements: &[XFieldElement]) -> &[u64] {
    // SAFETY: `XFieldElement` is three `BFieldElement`s; size and alignment are checked at compile time below.
    unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), 3 * elements.len()) }
}
const _: () = assert!(size_of::<XFieldElement>() == 24 && align_of::<XFieldElement>() == 8);
const _: () = assert!(size_of::<BFieldElement>() == 8 && align_of::<BFieldElement>() == 8);

/// A field element from its raw words.
pub(crate) fn extension(words: &[u64]) -> XFieldElement {
    XFieldElement::new([0, 1, 2].map(|i| BFieldElement::from_raw_u64(words[i])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Footprint;

    /// What callers plan with, before there is a device, covers what a job takes, and not by much where it is much.
    #[test]
    fn the_footprint_covers_what_a_job_takes() {
        for log2 in 8..24 {
            let domains = Domains::new(1 << log2).expect("a legal height");
            for plan in Plan::fastest_first() {
                let (taken, planned) = (bytes(&domains, plan), Footprint::new(&domains, plan).bytes());
                assert!(taken <= planned, "2^{log2} {plan:?}: {taken} bytes taken, {planned} planned");
                assert!(log2 < 18 || planned < taken + taken / 50, "2^{log2} {plan:?}: {taken} bytes taken, {planned} planned");
            }
        }
    }

    #[test]
    fn segments_and_fri_fit_where_the_main_table_was() {
        for log2 in 9..24 {
            let domains = Domains::new(1 << log2).expect("a legal height");
            let n = domains.trace_length();
            let words = |length| padded::<u64>(length);
            let rounds = (0..=domains.num_fri_rounds()).map(|round| domains.fri_length() >> round);
            let fri: u64 = rounds.map(|length| words(3 * length) + words(10 * length)).sum();
            assert!(NUM_COSETS as u64 * words(SEGMENT_COLUMNS * n) + fri <= words(NUM_MAIN_COLUMNS * n), "2^{log2}");
        }
    }
}

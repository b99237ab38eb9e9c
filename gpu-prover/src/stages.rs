//! The seam between the protocol and the machine that does the heavy work.
//!
//! [`crate::prover::prove`] runs the STARK protocol of triton-vm 9.0.1 once, for every machine: it absorbs the claim,
//! draws challenges, computes the few scalars that need no table, and encodes the proof. A machine implements
//! [`Stages`]: it keeps the tables, their commitments and the FRI codewords, and answers each call with little data.
//! [`crate::cpu::CpuStages`] is the reference for every other implementation.
//!
//! Conventions, for all methods:
//! - Field elements are `BFieldElement` (one `u64` in Montgomery form, canonical) and `XFieldElement` (three of them,
//!   lowest degree first, modulus `x^3 - x + 1`), exactly as in memory of the twenty-first crate.
//! - `n` is the trace domain's length, [`Domains::trace_length`]; tables have `n` rows; matrices are column-major.
//! - The FRI domain has `8 n` points. Row `i` of a committed table is the value at point `7 w_8n^i`; coset `i mod 8`
//!   holds it as its row `i / 8`.
//! - Trees are binary heaps of `2 * 8 n` digests: the root is node 1, leaf `i` is node `8 n + i`, and a node is
//!   `Tip5::hash_pair` of its two children.
//! - Methods are called once per proof, in the order in which they are declared, [`Stages::fri_fold`] once per round.
//!   After an error the next call is again [`Stages::begin`].

use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, Digest, XFieldElement};
use triton_vm::table::master_table::{MasterAuxTable, MasterMainTable};
use triton_vm::table::{
    AuxiliaryRow, MainRow, NUM_QUOTIENT_SEGMENTS, NUM_RANDOMIZED_QUOTIENT_SEGMENTS, OodQuotientSegments, RandQuotientSegments,
};

use crate::domain::Domains;
use crate::error::ProtocolError;
use crate::main_table::MainTable;
use crate::randomness::RandomStreams;

/// Main columns: 149 of the nine tables, then 230 derived by degree lowering.
pub const NUM_MAIN_COLUMNS: usize = MasterMainTable::NUM_COLUMNS;

/// Main columns of the nine tables, the ones that the host fills.
pub const NUM_ORIGINAL_MAIN_COLUMNS: usize = triton_air::table::NUM_MAIN_COLUMNS;

/// Auxiliary columns: 49 of the nine tables, 41 derived by degree lowering, and the batch randomizer as the last.
pub const NUM_AUX_COLUMNS: usize = MasterAuxTable::NUM_COLUMNS;

/// Auxiliary columns of the nine tables.
pub const NUM_ORIGINAL_AUX_COLUMNS: usize = triton_air::table::NUM_AUX_COLUMNS;

/// Number of constraints of the AIR, and so of quotient weights.
pub const NUM_CONSTRAINTS: usize = MasterAuxTable::NUM_CONSTRAINTS;

/// Number of components of the DEEP codeword.
pub const NUM_DEEP_COMPONENTS: usize = 4;

/// A machine that can do the heavy part of a proof. See the [module](self) for conventions.
pub trait Stages {
    /// What can go wrong. Errors of the protocol itself (cancelled, zero-knowledge check) arrive as the same type.
    type Error: From<ProtocolError>;

    /// Make room for one proof with these domains and forget the proof before.
    ///
    /// # Errors
    /// If the machine cannot hold a proof of that size.
    fn begin(&mut self, domains: &Domains) -> Result<(), Self::Error>;

    /// Commit to the main table: derive the 230 degree-lowering columns (transition ones stay 0 in the last row),
    /// interpolate all 379 columns, add `(X^n - 1) r_i(X)` with the randomizers of
    /// [`RandomStreams::main_randomizers`], evaluate on the FRI domain, hash each row of 379 elements with
    /// `Tip5::hash_varlen`, build the tree, return its root.
    ///
    /// # Errors
    /// If the machine fails.
    fn commit_main(&mut self, main: &MainTable, randomness: &RandomStreams) -> Result<Digest, Self::Error>;

    /// Commit to the auxiliary table: extend the nine tables to 49 columns with the 63 challenges, derive 41
    /// degree-lowering columns, set the batch randomizer column to [`RandomStreams::batch_values`]; then as for the main
    /// table, with [`RandomStreams::aux_randomizers`] for columns 0..90 and the `n` coefficients of
    /// [`RandomStreams::batch_randomizer`] for column 90. A row is hashed as its 91 * 3 = 273 base field coefficients.
    ///
    /// # Errors
    /// If the machine fails.
    fn commit_aux(&mut self, challenges: &Challenges, randomness: &RandomStreams) -> Result<Digest, Self::Error>;

    /// Commit to the quotient: on the FRI domain, sum all 611 constraints times their weight and zerofier inverse;
    /// interpolate; split the coefficients into four segments (coefficient `k` belongs to segment `k mod 4`); randomize
    /// from the right with `s_4 =` [`RandomStreams::quotient_randomizer`] and
    /// `s_i(X) = q_i(X) - 3^i s_{i+1}(3^4 X)`; evaluate the five on the FRI domain, hash rows of 5 * 3 = 15 base field
    /// elements, build the tree, return its root.
    ///
    /// `weights` has [`NUM_CONSTRAINTS`] elements: initial, consistency, transition, terminal; in each, base field
    /// constraints come first.
    ///
    /// # Errors
    /// If the machine fails.
    fn commit_quotient(&mut self, weights: &[XFieldElement], randomness: &RandomStreams) -> Result<Digest, Self::Error>;

    /// Evaluate all committed polynomials outside of their domain.
    ///
    /// # Errors
    /// If the machine fails.
    fn out_of_domain(&mut self, points: &OutOfDomainPoints) -> Result<OutOfDomainRows, Self::Error>;

    /// Combine all columns into one codeword and commit to it as FRI round 0, returning the root. With
    /// `W = sum main_i M_i + sum aux_j A_j`, `P = sum_{i<4} segments_i s_i`, `R = sum_{i>=1} segments_i s_i`, and the
    /// points and [`CombinationValues`] given, the codeword on the FRI domain is
    ///
    /// `d_0 (W - W(a)) / (x - a) + d_1 (W - W(w a)) / (x - w a) + d_2 (P - P(a^4)) / (x - a^4)
    /// + d_3 (R - R((3a)^4)) / (x - (3a)^4)`.
    ///
    /// The tree's leaves are the codeword's elements as digests `[c_0, c_1, c_2, 0, 0]`, not hashed.
    ///
    /// # Errors
    /// If the machine fails.
    fn commit_deep(
        &mut self,
        points: &OutOfDomainPoints,
        values: &CombinationValues,
        weights: &CombinationWeights,
    ) -> Result<Digest, Self::Error>;

    /// Fold the newest FRI codeword `f` of length `N` to half its length and commit to the result:
    /// `g_i = ((1 + c / x_i) f_i + (1 - c / x_i) f_{i + N/2}) / 2`, where `x_i` is the `i`-th point of the round's
    /// domain (round `k`: `7^(2^k) <w_8n^(2^k)>`) and `c` the challenge. Returns the new codeword's root.
    ///
    /// # Errors
    /// If the machine fails.
    fn fri_fold(&mut self, challenge: XFieldElement) -> Result<Digest, Self::Error>;

    /// The newest (and last) FRI codeword, 512 elements.
    ///
    /// # Errors
    /// If the machine fails.
    fn fri_last_codeword(&mut self) -> Result<Vec<XFieldElement>, Self::Error>;

    /// Gather elements and tree nodes of FRI rounds, one [`FriOpening`] for each query, in order.
    ///
    /// # Errors
    /// If the machine fails.
    fn open_fri(&mut self, queries: &[FriQuery]) -> Result<Vec<FriOpening>, Self::Error>;

    /// Gather rows of the three committed tables and nodes of their trees.
    ///
    /// # Errors
    /// If the machine fails.
    fn open_rows(&mut self, query: &RowQuery) -> Result<RowOpenings, Self::Error>;
}

/// Where polynomials are evaluated out of their domain, all derived from one challenge `a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfDomainPoints {
    /// `a`, the current row.
    pub current: XFieldElement,
    /// `w_n a`, the next row.
    pub next: XFieldElement,
    /// `a^4`, where segments 0..4 of the quotient are evaluated.
    pub segments: XFieldElement,
    /// `(3 a)^4`, where segments 1..5 of the quotient are evaluated.
    pub shifted_segments: XFieldElement,
}

/// What [`Stages::out_of_domain`] answers. Values include the trace randomizers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfDomainRows {
    /// The 379 main polynomials in `a`.
    pub main: Box<MainRow<XFieldElement>>,
    /// The 91 auxiliary polynomials in `a`.
    pub aux: Box<AuxiliaryRow>,
    /// The 379 main polynomials in `w_n a`.
    pub next_main: Box<MainRow<XFieldElement>>,
    /// The 91 auxiliary polynomials in `w_n a`.
    pub next_aux: Box<AuxiliaryRow>,
    /// `s_0 .. s_3` in `a^4`.
    pub segments: OodQuotientSegments,
    /// `s_1 .. s_4` in `(3 a)^4`.
    pub shifted_segments: OodQuotientSegments,
}

/// Weights of the linear combinations, all drawn at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CombinationWeights {
    /// For the 379 main columns.
    pub main: Vec<XFieldElement>,
    /// For the 91 auxiliary columns.
    pub aux: Vec<XFieldElement>,
    /// For the five randomized quotient segments.
    pub segments: [XFieldElement; NUM_RANDOMIZED_QUOTIENT_SEGMENTS],
    /// For the four DEEP components.
    pub deep: [XFieldElement; NUM_DEEP_COMPONENTS],
}

impl CombinationWeights {
    /// How many scalars [`Self::from_scalars`] takes.
    pub const COUNT: usize = NUM_MAIN_COLUMNS + NUM_AUX_COLUMNS + NUM_RANDOMIZED_QUOTIENT_SEGMENTS + NUM_DEEP_COMPONENTS;

    /// Split the scalars as drawn from the sponge. `None` if there are not [`Self::COUNT`] of them.
    pub fn from_scalars(scalars: &[XFieldElement]) -> Option<Self> {
        let (main, rest) = scalars.split_at_checked(NUM_MAIN_COLUMNS)?;
        let (aux, rest) = rest.split_at_checked(NUM_AUX_COLUMNS)?;
        let (segments, deep) = rest.split_at_checked(NUM_RANDOMIZED_QUOTIENT_SEGMENTS)?;
        Some(Self { main: main.to_vec(), aux: aux.to_vec(), segments: segments.try_into().ok()?, deep: deep.try_into().ok()? })
    }
}

/// Values of the combined polynomials in the four out-of-domain points. The protocol gets them from the out-of-domain
/// rows, so that no machine evaluates the combinations again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CombinationValues {
    /// `W(a)`.
    pub current: XFieldElement,
    /// `W(w_n a)`.
    pub next: XFieldElement,
    /// `P(a^4)`.
    pub segments: XFieldElement,
    /// `R((3 a)^4)`.
    pub shifted_segments: XFieldElement,
}

impl CombinationValues {
    /// The combined values for these rows and weights.
    pub fn new(rows: &OutOfDomainRows, weights: &CombinationWeights) -> Self {
        let table = |main: &[XFieldElement], aux: &[XFieldElement]| {
            inner_product(main, &weights.main) + inner_product(aux, &weights.aux)
        };
        Self {
            current: table(rows.main.as_slice(), rows.aux.as_slice()),
            next: table(rows.next_main.as_slice(), rows.next_aux.as_slice()),
            segments: inner_product(&rows.segments, &weights.segments[..NUM_QUOTIENT_SEGMENTS]),
            shifted_segments: inner_product(&rows.shifted_segments, &weights.segments[1..]),
        }
    }
}

fn inner_product(values: &[XFieldElement], weights: &[XFieldElement]) -> XFieldElement {
    values.iter().zip(weights).map(|(&value, &weight)| value * weight).sum()
}

/// Which elements of which FRI round to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FriQuery {
    /// 0 is the DEEP codeword, `k` the result of the `k`-th [`Stages::fri_fold`].
    pub round: usize,
    /// Indices into the round's codeword, in the order to be answered; may repeat.
    pub indices: Vec<usize>,
    /// Indices of tree nodes, in the order to be answered.
    pub nodes: Vec<usize>,
}

/// The answer to one [`FriQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FriOpening {
    /// The codeword's elements at [`FriQuery::indices`].
    pub values: Vec<XFieldElement>,
    /// The tree's nodes at [`FriQuery::nodes`].
    pub nodes: Vec<Digest>,
}

/// Which rows and nodes of the three tables to open. Their trees have the same shape, so one list of nodes serves all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowQuery {
    /// Row indices on the FRI domain, in the order to be answered; may repeat.
    pub rows: Vec<usize>,
    /// Indices of tree nodes, in the order to be answered.
    pub nodes: Vec<usize>,
}

/// The answer to a [`RowQuery`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowOpenings {
    /// Rows of the main table.
    pub main: Vec<MainRow<BFieldElement>>,
    /// Rows of the auxiliary table.
    pub aux: Vec<AuxiliaryRow>,
    /// Rows of the randomized quotient segments.
    pub quotient: Vec<RandQuotientSegments>,
    /// Nodes of the main tree.
    pub main_nodes: Vec<Digest>,
    /// Nodes of the auxiliary tree.
    pub aux_nodes: Vec<Digest>,
    /// Nodes of the quotient tree.
    pub quotient_nodes: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_split_in_the_order_they_are_drawn() {
        let scalars: Vec<XFieldElement> = (0..CombinationWeights::COUNT as u64).map(XFieldElement::from).collect();
        let weights = CombinationWeights::from_scalars(&scalars).expect("the right number");
        assert_eq!(CombinationWeights::COUNT, 479);
        assert_eq!(weights.aux[0], XFieldElement::from(379_u64));
        assert_eq!(weights.segments[0], XFieldElement::from(470_u64));
        assert_eq!(weights.deep[3], XFieldElement::from(478_u64));
        assert!(CombinationWeights::from_scalars(&scalars[1..]).is_none());
    }
}

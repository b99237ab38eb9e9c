//! The auxiliary table: running products, evaluations and log-derivatives that link the nine tables to each other
//! ([triton-vm specification](https://triton-vm.org/spec/), chapter "Table Linking").
//!
//! Every column is a scan over the rows of the main table ([`scan`]): a running value that each row maps by an affine
//! map which depends on that row, or two neighbouring ones, alone. A device can therefore run each as a prefix scan.

mod cascade;
mod hash;
mod jump_stack;
mod lookup;
mod op_stack;
mod processor;
mod program;
mod ram;
pub mod scan;
mod u32;

use triton_air::challenge_id::ChallengeId;
use triton_air::table as air;
use triton_air::table_column::MasterMainColumn;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, XFieldElement};
use triton_vm::table::degree_lowering::DegreeLoweringTable;

use crate::field::{ONE, X_ONE, X_ZERO, ZERO};
use crate::matrix::Matrix;
use crate::stages::NUM_AUX_COLUMNS;

/// Initial value of running products and running evaluations.
const INITIAL_PRODUCT: XFieldElement = X_ONE;

/// Initial value of log-derivatives.
const INITIAL_SUM: XFieldElement = X_ZERO;

/// All 91 auxiliary columns of a proof: the 49 extended ones, the 41 of degree lowering, the batch randomizer.
///
/// # Panics
/// If `main` does not have all 379 columns, or `batch_values` not one value a row.
pub fn extend(main: &Matrix<BFieldElement>, challenges: &Challenges, batch_values: &[XFieldElement]) -> Matrix<XFieldElement> {
    let mut aux = Matrix::filled(main.rows(), NUM_AUX_COLUMNS, X_ZERO);
    extend_original_columns(main, challenges, &mut aux);
    aux.column_mut(NUM_AUX_COLUMNS - 1).copy_from_slice(batch_values);
    DegreeLoweringTable::fill_derived_aux_columns(main.view(), aux.view_mut(), challenges);
    aux
}

/// The 49 columns of the nine tables, into the first columns of `aux`. Only the 149 original main columns are read.
///
/// # Panics
/// If one of the tables has too few columns, or they differ in height.
pub fn extend_original_columns(main: &Matrix<BFieldElement>, challenges: &Challenges, aux: &mut Matrix<XFieldElement>) {
    assert_eq!(main.rows(), aux.rows(), "both tables have the same height");
    let rows = Rows { main, challenges };
    let mut all = aux.split_columns_mut();
    let mut take = |width: usize| all.drain(..width).collect::<Vec<_>>();
    let mut program = take(air::AUX_PROGRAM_TABLE_END - air::AUX_PROGRAM_TABLE_START);
    let mut processor = take(air::AUX_PROCESSOR_TABLE_END - air::AUX_PROCESSOR_TABLE_START);
    let mut op_stack = take(air::AUX_OP_STACK_TABLE_END - air::AUX_OP_STACK_TABLE_START);
    let mut ram = take(air::AUX_RAM_TABLE_END - air::AUX_RAM_TABLE_START);
    let mut jump_stack = take(air::AUX_JUMP_STACK_TABLE_END - air::AUX_JUMP_STACK_TABLE_START);
    let mut hash = take(air::AUX_HASH_TABLE_END - air::AUX_HASH_TABLE_START);
    let mut cascade = take(air::AUX_CASCADE_TABLE_END - air::AUX_CASCADE_TABLE_START);
    let mut lookup = take(air::AUX_LOOKUP_TABLE_END - air::AUX_LOOKUP_TABLE_START);
    let mut u32 = take(air::AUX_U32_TABLE_END - air::AUX_U32_TABLE_START);
    rayon::scope(|scope| {
        scope.spawn(|_| processor::extend(rows, &mut processor));
        scope.spawn(|_| hash::extend(rows, &mut hash));
        scope.spawn(|_| ram::extend(rows, &mut ram));
        scope.spawn(|_| op_stack::extend(rows, &mut op_stack));
        scope.spawn(|_| jump_stack::extend(rows, &mut jump_stack));
        scope.spawn(|_| program::extend(rows, &mut program));
        scope.spawn(|_| cascade::extend(rows, &mut cascade));
        scope.spawn(|_| lookup::extend(rows, &mut lookup));
        scope.spawn(|_| u32::extend(rows, &mut u32));
    });
}

/// The main table, addressed by the columns' names, together with the challenges.
#[derive(Debug, Clone, Copy)]
struct Rows<'a> {
    main: &'a Matrix<BFieldElement>,
    challenges: &'a Challenges,
}

impl<'a> Rows<'a> {
    /// Element of a named column.
    fn at(&self, column: impl MasterMainColumn + Copy, row: usize) -> BFieldElement {
        self.main.column(column.master_main_index())[row]
    }

    /// A whole named column.
    fn column(&self, column: impl MasterMainColumn + Copy) -> &'a [BFieldElement] {
        self.main.column(column.master_main_index())
    }

    fn challenge(&self, id: ChallengeId) -> XFieldElement {
        self.challenges[id]
    }

    /// `indeterminate - sum weight * column`: a row compressed to the factor of a permutation argument, or the
    /// denominator of a lookup argument.
    fn compress<C: MasterMainColumn + Copy, const N: usize>(
        &self,
        indeterminate: ChallengeId,
        weighted: [(C, ChallengeId); N],
        row: usize,
    ) -> XFieldElement {
        weighted
            .iter()
            .fold(self.challenge(indeterminate), |sum, &(column, weight)| sum - self.challenge(weight) * self.at(column, row))
    }

    /// Sum of stack weights times values, the first value with the first weight.
    fn compress_state<const N: usize>(&self, state: [BFieldElement; N]) -> XFieldElement {
        let weights = &self.challenges[ChallengeId::StackWeight0..ChallengeId::StackWeight10];
        state.into_iter().zip(weights).map(|(value, &weight)| weight * value).sum()
    }
}

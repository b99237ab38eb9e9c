//! The main table: what the nine tables of the arithmetic hold, one row a clock cycle or co-processor step.
//!
//! [`MainTable::from_aet`] fills the 149 original columns from an execution trace and pads them
//! ([triton-vm specification](https://triton-vm.org/spec/), chapters on the tables). The 230 columns of degree lowering
//! follow from these row by row ([`fill_derived_columns`]) and are left to the machine that commits to the table.

mod cascade;
mod hash;
mod jump_stack;
mod lookup;
mod op_stack;
mod processor;
mod program;
mod ram;
mod u32;

use ndarray::ArrayView2;
use rayon::prelude::*;
use triton_air::table as air;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::BFieldElement;
use triton_vm::table::degree_lowering::DegreeLoweringTable;

use crate::domain::Domains;
use crate::error::ProtocolError;
use crate::field::{ONE, ZERO};
use crate::matrix::Matrix;
use crate::stages::{NUM_MAIN_COLUMNS, NUM_ORIGINAL_MAIN_COLUMNS};

/// The original columns of a padded main table, ready to be committed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MainTable {
    domains: Domains,
    columns: Matrix<BFieldElement>,
}

impl MainTable {
    /// Fill and pad all nine tables from an execution trace.
    ///
    /// # Errors
    /// If the trace's padded height is out of range.
    pub fn from_aet(aet: &AlgebraicExecutionTrace) -> Result<Self, ProtocolError> {
        let domains = Domains::new(aet.padded_height())?;
        let mut columns = Matrix::filled(domains.trace_length(), NUM_ORIGINAL_MAIN_COLUMNS, ZERO);
        fill(&mut columns, aet);
        Ok(Self { domains, columns })
    }

    /// A table from columns that are filled and padded already, `None` if their shape does not fit the domains.
    pub fn from_columns(domains: Domains, columns: Matrix<BFieldElement>) -> Option<Self> {
        let fits = columns.rows() == domains.trace_length()
            && columns.columns() == NUM_ORIGINAL_MAIN_COLUMNS;
        fits.then_some(Self { domains, columns })
    }

    /// The domains that belong to the table's height.
    pub fn domains(&self) -> &Domains {
        &self.domains
    }

    /// The 149 original columns of `n` rows, in the order of the crate's master main table.
    pub fn columns(&self) -> &Matrix<BFieldElement> {
        &self.columns
    }

    /// All 379 columns: the original ones and those of degree lowering.
    pub fn with_derived_columns(&self) -> Matrix<BFieldElement> {
        let mut all = Matrix::filled(self.columns.rows(), NUM_MAIN_COLUMNS, ZERO);
        let (original, _) = all
            .as_mut_slice()
            .split_at_mut(self.columns.as_slice().len());
        original
            .par_chunks_mut(1 << 16)
            .zip(self.columns.as_slice().par_chunks(1 << 16))
            .for_each(|(to, from)| to.copy_from_slice(from));
        fill_derived_columns(&mut all);
        all
    }
}

/// Derive the 230 columns of degree lowering from the 149 original ones, in place. Columns that depend on the next row
/// stay 0 in the last one.
///
/// # Panics
/// If `main` does not have 379 columns.
pub fn fill_derived_columns(main: &mut Matrix<BFieldElement>) {
    DegreeLoweringTable::fill_derived_main_columns(main.view_mut());
}

fn fill(columns: &mut Matrix<BFieldElement>, aet: &AlgebraicExecutionTrace) {
    let mut all = columns.split_columns_mut();
    let mut take = |width: usize| all.drain(..width).collect::<Vec<_>>();
    let mut program = take(air::PROGRAM_TABLE_END - air::PROGRAM_TABLE_START);
    let mut processor = take(air::PROCESSOR_TABLE_END - air::PROCESSOR_TABLE_START);
    let mut op_stack = take(air::OP_STACK_TABLE_END - air::OP_STACK_TABLE_START);
    let mut ram = take(air::RAM_TABLE_END - air::RAM_TABLE_START);
    let mut jump_stack = take(air::JUMP_STACK_TABLE_END - air::JUMP_STACK_TABLE_START);
    let mut hash = take(air::HASH_TABLE_END - air::HASH_TABLE_START);
    let mut cascade = take(air::CASCADE_TABLE_END - air::CASCADE_TABLE_START);
    let mut lookup = take(air::LOOKUP_TABLE_END - air::LOOKUP_TABLE_START);
    let mut u32 = take(air::U32_TABLE_END - air::U32_TABLE_START);

    let mut op_stack_jumps = vec![];
    let mut ram_jumps = vec![];
    let mut jump_stack_jumps = vec![];
    rayon::scope(|scope| {
        // The longest chain first: the Bezout coefficients of the RAM table are O(u log^2 u) in its pointers.
        scope.spawn(|_| ram_jumps = ram::fill(&mut ram, aet));
        scope.spawn(|_| op_stack_jumps = op_stack::fill(&mut op_stack, aet));
        scope.spawn(|_| jump_stack_jumps = jump_stack::fill(&mut jump_stack, aet));
        scope.spawn(|_| processor::fill(&mut processor, aet));
        scope.spawn(|_| hash::fill(&mut hash, aet));
        scope.spawn(|_| u32::fill(&mut u32, aet));
        scope.spawn(|_| {
            program::fill(&mut program, aet);
            cascade::fill(&mut cascade, aet);
            lookup::fill(&mut lookup, aet);
        });
    });
    let jumps = op_stack_jumps
        .into_iter()
        .chain(ram_jumps)
        .chain(jump_stack_jumps);
    processor::count_clock_jumps(&mut processor, aet.processor_trace.nrows(), jumps);
}

/// Copy a row-major trace into the top of column-major columns, in blocks of rows that stay in the cache.
fn transpose_into(
    columns: &mut [&mut [BFieldElement]],
    first_row: usize,
    trace: &ArrayView2<'_, BFieldElement>,
) {
    const ROWS_PER_BLOCK: usize = 64;
    let height = trace.nrows();
    let width = trace.ncols();
    let Some(rows) = trace.as_slice() else {
        for (column, source) in columns.iter_mut().zip(trace.columns()) {
            column[first_row..first_row + height]
                .iter_mut()
                .zip(source)
                .for_each(|(to, &from)| *to = from);
        }
        return;
    };
    let parts = rayon::current_num_threads() * 4;
    let rows_per_part = height
        .div_ceil(parts)
        .next_multiple_of(ROWS_PER_BLOCK)
        .max(ROWS_PER_BLOCK);
    let targets = columns
        .iter_mut()
        .map(|column| &mut column[first_row..first_row + height]);
    split_rows(targets.collect(), rows_per_part)
        .into_par_iter()
        .zip(rows.par_chunks(rows_per_part * width))
        .for_each(|(mut targets, rows)| {
            for (block_index, block) in rows.chunks(ROWS_PER_BLOCK * width).enumerate() {
                let start = block_index * ROWS_PER_BLOCK;
                for (index, target) in targets.iter_mut().enumerate() {
                    let target = &mut target[start..start + block.len() / width];
                    target
                        .iter_mut()
                        .zip(block.chunks_exact(width))
                        .for_each(|(to, row)| *to = row[index]);
                }
            }
        });
}

/// Split columns into parts of `rows` rows (the last may be shorter): part, then column.
fn split_rows<'a, T>(columns: Vec<&'a mut [T]>, rows: usize) -> Vec<Vec<&'a mut [T]>> {
    let height = columns.first().map_or(0, |column| column.len());
    let mut parts: Vec<Vec<&'a mut [T]>> = (0..height.div_ceil(rows)).map(|_| vec![]).collect();
    for column in columns {
        for (part, chunk) in parts.iter_mut().zip(column.chunks_mut(rows)) {
            part.push(chunk);
        }
    }
    parts
}

/// The field element `index`.
fn element(index: usize) -> BFieldElement {
    BFieldElement::new(index as u64)
}

/// The rows of a trace in the order of (key, clock): key, clock and row number. Rows with equal key and clock keep their
/// order.
fn sorted_rows(
    trace: &ArrayView2<'_, BFieldElement>,
    key: usize,
    clock: usize,
) -> Vec<(u64, u32, u32)> {
    let entry = |row: usize| {
        (
            trace[[row, key]].value(),
            trace[[row, clock]].value() as u32,
            row as u32,
        )
    };
    let mut order: Vec<_> = (0..trace.nrows()).into_par_iter().map(entry).collect();
    order.par_sort_unstable();
    order
}

/// Copy the rows of a trace into the top of the columns, in the given order.
fn gather_rows(
    columns: &mut [&mut [BFieldElement]],
    trace: &ArrayView2<'_, BFieldElement>,
    order: &[(u64, u32, u32)],
) {
    columns
        .par_iter_mut()
        .enumerate()
        .for_each(|(index, column)| {
            column
                .par_iter_mut()
                .zip(order)
                .for_each(|(to, &(_, _, row))| *to = trace[[row as usize, index]]);
        });
}

/// The differences in clock between neighbouring rows with the same key, for a table sorted by (key, clock).
fn clock_jumps(sorted: &[(u64, u32, u32)]) -> Vec<u32> {
    sorted
        .par_windows(2)
        .filter(|pair| pair[0].0 == pair[1].0)
        .map(|pair| pair[1].1 - pair[0].1)
        .collect()
}

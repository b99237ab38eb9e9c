//! The main table: what the nine tables of the arithmetic hold, one row a clock cycle or co-processor step.
//!
//! [`MainTable::from_aet`] fills the 149 original columns from an execution trace and pads them
//! ([triton-vm specification](https://triton-vm.org/spec/), chapters on the tables). The 230 columns of degree lowering
//! follow from these row by row ([`fill_derived_columns`]) and are left to the machine that commits to the table.

mod cascade;
mod from_aet;
mod hash;
mod jump_stack;
mod lookup;
mod op_stack;
mod processor;
mod program;
mod ram;
mod u32;

use std::sync::atomic::{AtomicU64, Ordering};

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
use crate::trace::Trace;

/// The original columns of a padded main table, ready to be committed to.
#[derive(Debug, Clone)]
pub struct MainTable {
    domains: Domains,
    columns: Matrix<BFieldElement>,
    serial: u64,
}

/// Equal when they hold the same.
impl PartialEq for MainTable {
    fn eq(&self, other: &Self) -> bool {
        (&self.domains, &self.columns) == (&other.domains, &other.columns)
    }
}

impl Eq for MainTable {}

impl MainTable {
    /// Fill and pad all nine tables from an execution trace.
    ///
    /// # Errors
    /// If the trace's padded height is out of range.
    pub fn from_aet(aet: &AlgebraicExecutionTrace) -> Result<Self, ProtocolError> {
        let domains = Domains::new(aet.padded_height())?;
        let mut columns = Matrix::filled(domains.trace_length(), NUM_ORIGINAL_MAIN_COLUMNS, ZERO);
        Tables::new(&mut columns).fill_from_aet(aet);
        Ok(Self::of(domains, columns))
    }

    /// Fill and pad all nine tables from our own, faster trace. The table is the same as from the crate's trace.
    ///
    /// # Errors
    /// If the trace's padded height is out of range.
    pub fn from_trace(trace: &Trace) -> Result<Self, ProtocolError> {
        Self::from_trace_in(trace, Vec::new())
    }

    /// [`Self::from_trace`] in the memory of a table that is not needed any more ([`Self::into_memory`]): at 2^22 rows
    /// fresh memory costs more time than what is written to it.
    ///
    /// # Errors
    /// If the trace's padded height is out of range.
    pub fn from_trace_in(trace: &Trace, memory: Vec<BFieldElement>) -> Result<Self, ProtocolError> {
        let domains = Domains::new(trace.heights().padded_height())?;
        let rows = domains.trace_length();
        let mut columns = Matrix::filled_in(memory, rows, NUM_ORIGINAL_MAIN_COLUMNS, ZERO);
        Tables::new(&mut columns).fill_from_trace(trace);
        Ok(Self::of(domains, columns))
    }

    /// A table from columns that are filled and padded already, `None` if their shape does not fit the domains.
    pub fn from_columns(domains: Domains, columns: Matrix<BFieldElement>) -> Option<Self> {
        let fits = columns.rows() == domains.trace_length() && columns.columns() == NUM_ORIGINAL_MAIN_COLUMNS;
        fits.then(|| Self::of(domains, columns))
    }

    fn of(domains: Domains, columns: Matrix<BFieldElement>) -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        Self { domains, columns, serial: SERIAL.fetch_add(1, Ordering::Relaxed) }
    }

    /// What tells this table from all others of the process; only its clones, which hold the same, share it.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Give the memory back, for [`Self::from_trace_in`]. It still holds the witness.
    pub fn into_memory(self) -> Vec<BFieldElement> {
        self.columns.into_memory()
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
        let (original, _) = all.as_mut_slice().split_at_mut(self.columns.as_slice().len());
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

/// The columns of each table.
struct Tables<'a> {
    program: Vec<&'a mut [BFieldElement]>,
    processor: Vec<&'a mut [BFieldElement]>,
    op_stack: Vec<&'a mut [BFieldElement]>,
    ram: Vec<&'a mut [BFieldElement]>,
    jump_stack: Vec<&'a mut [BFieldElement]>,
    hash: Vec<&'a mut [BFieldElement]>,
    cascade: Vec<&'a mut [BFieldElement]>,
    lookup: Vec<&'a mut [BFieldElement]>,
    u32: Vec<&'a mut [BFieldElement]>,
}

impl<'a> Tables<'a> {
    fn new(columns: &'a mut Matrix<BFieldElement>) -> Self {
        let mut all = columns.split_columns_mut();
        let mut take = |width: usize| all.drain(..width).collect::<Vec<_>>();
        Self {
            program: take(air::PROGRAM_TABLE_END - air::PROGRAM_TABLE_START),
            processor: take(air::PROCESSOR_TABLE_END - air::PROCESSOR_TABLE_START),
            op_stack: take(air::OP_STACK_TABLE_END - air::OP_STACK_TABLE_START),
            ram: take(air::RAM_TABLE_END - air::RAM_TABLE_START),
            jump_stack: take(air::JUMP_STACK_TABLE_END - air::JUMP_STACK_TABLE_START),
            hash: take(air::HASH_TABLE_END - air::HASH_TABLE_START),
            cascade: take(air::CASCADE_TABLE_END - air::CASCADE_TABLE_START),
            lookup: take(air::LOOKUP_TABLE_END - air::LOOKUP_TABLE_START),
            u32: take(air::U32_TABLE_END - air::U32_TABLE_START),
        }
    }

    fn fill_from_trace(mut self, trace: &Trace) {
        let words = processor::words(&trace.program);
        let height = trace.registers.len();
        let jump_stack_row = |clock: usize| {
            let registers = trace.registers.get(clock);
            jump_stack::Row {
                clock: clock as u32,
                opcode: words[registers.instruction_pointer as usize].opcode,
                pointer: registers.jump_stack_pointer,
                origin: registers.jump_stack_origin.into(),
                destination: registers.jump_stack_destination.into(),
            }
        };
        let mut jumps = [vec![], vec![], vec![]];
        let [ram_jumps, op_stack_jumps, jump_stack_jumps] = &mut jumps;
        rayon::scope(|scope| {
            // The longest chain first: the Bezout coefficients of the RAM table are O(u log^2 u) in its pointers.
            scope.spawn(|_| *ram_jumps = ram::fill(&mut self.ram, trace.ram.len(), |i| *trace.ram.get(i)));
            scope.spawn(|_| {
                *op_stack_jumps = op_stack::fill(&mut self.op_stack, trace.op_stack.len(), |i| *trace.op_stack.get(i));
            });
            scope.spawn(|_| *jump_stack_jumps = jump_stack::fill(&mut self.jump_stack, height, jump_stack_row));
            scope.spawn(|_| processor::fill(&mut self.processor, trace, &words));
            scope.spawn(|_| hash::fill(&mut self.hash, trace));
            scope.spawn(|_| u32::fill(&mut self.u32, &trace.u32_entries));
            scope.spawn(|_| {
                program::fill(&mut self.program, &trace.program, &trace.instruction_multiplicities);
                cascade::fill(&mut self.cascade, trace.lookups.limbs.iter().copied());
                lookup::fill(&mut self.lookup, &trace.lookups.multiplicities_of_bytes());
            });
        });
        processor::count_clock_jumps(&mut self.processor, height, jumps.into_iter().flatten());
    }

    fn fill_from_aet(mut self, aet: &AlgebraicExecutionTrace) {
        let height = aet.processor_trace.nrows();
        let u32_entries: Vec<_> = aet.u32_entries.iter().map(|(&entry, &multiplicity)| (entry, multiplicity)).collect();
        let mut jumps = [vec![], vec![], vec![]];
        let [ram_jumps, op_stack_jumps, jump_stack_jumps] = &mut jumps;
        rayon::scope(|scope| {
            scope.spawn(|_| {
                *ram_jumps = ram::fill(&mut self.ram, aet.ram_trace.nrows(), |i| from_aet::ram_call(aet, i));
            });
            scope.spawn(|_| {
                let height = aet.op_stack_underflow_trace.nrows();
                *op_stack_jumps = op_stack::fill(&mut self.op_stack, height, |i| from_aet::op_stack_call(aet, i));
            });
            scope.spawn(|_| {
                *jump_stack_jumps =
                    jump_stack::fill(&mut self.jump_stack, height, |clock| from_aet::jump_stack_row(aet, clock));
            });
            scope.spawn(|_| {
                transpose_into(&mut self.processor, 0, &aet.processor_trace.view());
                processor::pad(&mut self.processor, height);
            });
            scope.spawn(|_| from_aet::fill_hash(&mut self.hash, aet));
            scope.spawn(|_| u32::fill(&mut self.u32, &u32_entries));
            scope.spawn(|_| {
                let lookups = aet.cascade_table_lookup_multiplicities.iter();
                program::fill(&mut self.program, &aet.program, &aet.instruction_multiplicities);
                cascade::fill(&mut self.cascade, lookups.map(|(&limb, &multiplicity)| (limb, multiplicity)));
                lookup::fill(&mut self.lookup, &aet.lookup_table_lookup_multiplicities);
            });
        });
        processor::count_clock_jumps(&mut self.processor, height, jumps.into_iter().flatten());
    }
}

/// Copy a row-major trace into the top of column-major columns, in blocks of rows that stay in the cache.
fn transpose_into(columns: &mut [&mut [BFieldElement]], first_row: usize, trace: &ArrayView2<'_, BFieldElement>) {
    const ROWS_PER_BLOCK: usize = 64;
    let height = trace.nrows();
    let width = trace.ncols();
    let Some(rows) = trace.as_slice() else {
        for (column, source) in columns.iter_mut().zip(trace.columns()) {
            column[first_row..first_row + height].iter_mut().zip(source).for_each(|(to, &from)| *to = from);
        }
        return;
    };
    let parts = rayon::current_num_threads() * 4;
    let rows_per_part = height.div_ceil(parts).next_multiple_of(ROWS_PER_BLOCK).max(ROWS_PER_BLOCK);
    let targets = columns.iter_mut().map(|column| &mut column[first_row..first_row + height]);
    split_rows(targets.collect(), rows_per_part).into_par_iter().zip(rows.par_chunks(rows_per_part * width)).for_each(
        |(mut targets, rows)| {
            for (block_index, block) in rows.chunks(ROWS_PER_BLOCK * width).enumerate() {
                let start = block_index * ROWS_PER_BLOCK;
                for (index, target) in targets.iter_mut().enumerate() {
                    let target = &mut target[start..start + block.len() / width];
                    target.iter_mut().zip(block.chunks_exact(width)).for_each(|(to, row)| *to = row[index]);
                }
            }
        },
    );
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

/// Cut columns into parts of the given heights, leaving what remains: part, then column.
fn split_rows_at<'a, T>(columns: Vec<&'a mut [T]>, heights: &[usize]) -> Vec<Vec<&'a mut [T]>> {
    let mut parts: Vec<Vec<&'a mut [T]>> = heights.iter().map(|_| vec![]).collect();
    for mut column in columns {
        for (part, &height) in parts.iter_mut().zip(heights) {
            let (chunk, rest) = column.split_at_mut(height);
            part.push(chunk);
            column = rest;
        }
    }
    parts
}

/// The field element `index`.
fn element(index: usize) -> BFieldElement {
    BFieldElement::new(index as u64)
}

/// Write `value(column, record)` into the top of the columns, one row a record.
fn write_columns<R: Sync>(
    columns: &mut [&mut [BFieldElement]],
    records: &[R],
    value: impl Fn(usize, &R) -> BFieldElement + Sync,
) {
    const RECORDS_PER_TASK: usize = 1 << 12;
    let write = |index: usize, column: &mut [BFieldElement], records: &[R]| {
        column.iter_mut().zip(records).for_each(|(to, record)| *to = value(index, record));
    };
    if records.len() <= RECORDS_PER_TASK {
        columns.iter_mut().enumerate().for_each(|(index, column)| write(index, column, records));
        return;
    }
    columns.par_iter_mut().enumerate().for_each(|(index, column)| {
        let tasks = column.par_chunks_mut(RECORDS_PER_TASK).zip(records.par_chunks(RECORDS_PER_TASK));
        tasks.for_each(|(column, records)| write(index, column, records));
    });
}

/// The differences in clock between neighbouring records with the same key; `key` gives (key, clock).
fn clock_jumps<R: Sync, K: PartialEq>(sorted: &[R], key: impl Fn(&R) -> (K, u32) + Sync) -> Vec<u32> {
    let difference = |pair: &[R]| {
        let ((key, clock), (next_key, next_clock)) = (key(&pair[0]), key(&pair[1]));
        (key == next_key).then(|| next_clock - clock)
    };
    sorted.par_windows(2).filter_map(difference).collect()
}

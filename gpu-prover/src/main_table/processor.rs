//! Processor table: the state of the machine in each clock cycle.

use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::ProcessorMainColumn as Column;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::BFieldElement;

use super::{ONE, ZERO, element, transpose_into};

/// Fill and pad: padding repeats the last row, while the clock goes on. The clock jump multiplicities follow
/// separately, when the three tables sorted by something else than the clock are known.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], aet: &AlgebraicExecutionTrace) {
    let height = aet.processor_trace.nrows();
    transpose_into(columns, 0, &aet.processor_trace.view());
    pad(columns, height);
}

/// Padding rows for a table whose first `height` rows are filled.
pub(super) fn pad(columns: &mut [&mut [BFieldElement]], height: usize) {
    for (index, column) in columns.iter_mut().enumerate() {
        let (filled, padding) = column.split_at_mut(height);
        if index == Column::CLK.main_index() {
            padding
                .iter_mut()
                .enumerate()
                .for_each(|(i, clock)| *clock = element(height + i));
        } else if index == Column::IsPadding.main_index() {
            padding.fill(ONE);
        } else if index == Column::ClockJumpDifferenceLookupMultiplicity.main_index() {
            filled.fill(ZERO);
            padding.fill(ZERO);
        } else {
            padding.fill(filled[height - 1]);
        }
    }
}

/// Record how often each clock jump difference occurs in the memory-like tables.
pub(super) fn count_clock_jumps(
    columns: &mut [&mut [BFieldElement]],
    height: usize,
    jumps: impl Iterator<Item = u32>,
) {
    let mut counts = vec![0_u32; height];
    for jump in jumps {
        counts[jump as usize] += 1;
    }
    let column = &mut *columns[Column::ClockJumpDifferenceLookupMultiplicity.main_index()];
    column
        .iter_mut()
        .zip(counts)
        .for_each(|(multiplicity, count)| *multiplicity = count.into());
    // The jump stack table does not mark its padding rows: each is another jump by one cycle.
    column[1] += element(column.len() - height);
}

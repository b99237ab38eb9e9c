//! Op stack table: the stack memory below the sixteen registers, sorted by (stack pointer, clock).

use rayon::prelude::*;
use triton_air::table::op_stack::PADDING_VALUE;
use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::OpStackMainColumn as Column;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::isa::op_stack::NUM_OP_STACK_REGISTERS;
use triton_vm::prelude::BFieldElement;

use super::{clock_jumps, element};

/// Fill and pad: padding repeats the last row, marked by its shrink indicator. Returns the clock jump differences.
pub(super) fn fill(
    columns: &mut [&mut [BFieldElement]],
    aet: &AlgebraicExecutionTrace,
) -> Vec<u32> {
    let trace = aet.op_stack_underflow_trace.view();
    let order = super::sorted_rows(
        &trace,
        Column::StackPointer.main_index(),
        Column::CLK.main_index(),
    );
    super::gather_rows(columns, &trace, &order);
    pad(columns, order.len());
    clock_jumps(&order)
}

/// Padding rows for a table whose first `height` rows are filled.
pub(super) fn pad(columns: &mut [&mut [BFieldElement]], height: usize) {
    columns
        .par_iter_mut()
        .enumerate()
        .for_each(|(index, column)| {
            let (filled, padding) = column.split_at_mut(height);
            let last = filled.last().copied();
            let value = if index == Column::IB1ShrinkStack.main_index() {
                PADDING_VALUE
            } else if index == Column::StackPointer.main_index() {
                last.unwrap_or(element(NUM_OP_STACK_REGISTERS))
            } else {
                last.unwrap_or_default()
            };
            padding.fill(value);
        });
}

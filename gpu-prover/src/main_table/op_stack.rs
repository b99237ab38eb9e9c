//! Op stack table: the stack memory below the sixteen registers, sorted by (stack pointer, clock).

use rayon::prelude::*;
use triton_air::table::op_stack::PADDING_VALUE;
use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::OpStackMainColumn as Column;
use triton_vm::isa::op_stack::NUM_OP_STACK_REGISTERS;
use triton_vm::prelude::BFieldElement;

use super::{ONE, ZERO, clock_jumps, element, write_columns};
use crate::trace::OpStackCall;

/// Fill from `height` calls in the order of time, and pad: padding repeats the last row, marked by its shrink indicator.
/// Returns the clock jump differences.
pub(super) fn fill(
    columns: &mut [&mut [BFieldElement]],
    height: usize,
    call: impl Fn(usize) -> OpStackCall + Sync,
) -> Vec<u32> {
    let mut order: Vec<u64> =
        (0..height).into_par_iter().map(|index| u64::from(call(index).pointer) << 32 | index as u64).collect();
    order.par_sort_unstable();
    let sorted: Vec<OpStackCall> = order.into_par_iter().map(|key| call(key as u32 as usize)).collect();

    write_columns(columns, &sorted, |column, call| match column {
        c if c == Column::CLK.main_index() => call.clock.into(),
        c if c == Column::IB1ShrinkStack.main_index() => {
            if call.shrinks {
                ONE
            } else {
                ZERO
            }
        }
        c if c == Column::StackPointer.main_index() => call.pointer.into(),
        _ => call.word,
    });
    pad(columns, height);
    clock_jumps(&sorted, |call| (call.pointer, call.clock))
}

fn pad(columns: &mut [&mut [BFieldElement]], height: usize) {
    columns.par_iter_mut().enumerate().for_each(|(index, column)| {
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

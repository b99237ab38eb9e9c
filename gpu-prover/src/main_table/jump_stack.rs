//! Jump stack table: the processor's rows sorted by (jump stack pointer, clock).

use rayon::prelude::*;
use triton_air::table as air;
use triton_air::table_column::JumpStackMainColumn as Column;
use triton_air::table_column::{MasterMainColumn, ProcessorMainColumn};
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::BFieldElement;

use super::element;

/// Fill and pad. Returns the clock jump differences among the rows of the execution.
///
/// Padding continues the processor's last row, so it sits right behind that row's place in the sorted order and pushes
/// the rows of deeper stacks to the end.
pub(super) fn fill(
    columns: &mut [&mut [BFieldElement]],
    aet: &AlgebraicExecutionTrace,
) -> Vec<u32> {
    let trace = aet.processor_trace.view();
    let pointer =
        |clock: usize| trace[[clock, ProcessorMainColumn::JSP.main_index()]].value() as usize;
    let order = stable_order(aet.processor_trace.nrows(), pointer);
    let mut source = [0; air::JUMP_STACK_TABLE_END - air::JUMP_STACK_TABLE_START];
    for (to, from) in [
        (Column::CLK, ProcessorMainColumn::CLK),
        (Column::CI, ProcessorMainColumn::CI),
        (Column::JSP, ProcessorMainColumn::JSP),
        (Column::JSO, ProcessorMainColumn::JSO),
        (Column::JSD, ProcessorMainColumn::JSD),
    ] {
        source[to.main_index()] = from.main_index();
    }
    fill_in_order(columns, &order, |clock, column| {
        trace[[clock as usize, source[column]]]
    });
    order
        .par_windows(2)
        .filter(|pair| pointer(pair[0] as usize) == pointer(pair[1] as usize))
        .map(|pair| pair[1] - pair[0])
        .collect()
}

/// The clock cycles `0..height`, sorted by jump stack pointer, stably: a counting sort, because pointers are small.
pub(super) fn stable_order(height: usize, pointer: impl Fn(usize) -> usize) -> Vec<u32> {
    let mut next_slot = vec![];
    for clock in 0..height {
        let pointer = pointer(clock);
        if pointer >= next_slot.len() {
            next_slot.resize(pointer + 1, 0_usize);
        }
        next_slot[pointer] += 1;
    }
    let mut start = 0;
    for slot in &mut next_slot {
        start += std::mem::replace(slot, start);
    }
    let mut order = vec![0; height];
    for clock in 0..height {
        let slot = &mut next_slot[pointer(clock)];
        order[*slot] = clock as u32;
        *slot += 1;
    }
    order
}

/// Write the rows `order` with the padding in its place; `value(clock, column)` is what the execution recorded.
pub(super) fn fill_in_order(
    columns: &mut [&mut [BFieldElement]],
    order: &[u32],
    value: impl Fn(u32, usize) -> BFieldElement + Sync,
) {
    let height = order.len();
    let last_clock = height as u32 - 1;
    let last_row = order
        .iter()
        .position(|&clock| clock == last_clock)
        .expect("the order is a permutation of clocks");
    let (before, after) = order.split_at(last_row + 1);
    columns
        .par_iter_mut()
        .enumerate()
        .for_each(|(index, column)| {
            let (top, rest) = column.split_at_mut(before.len());
            let (padding, bottom) = rest.split_at_mut(rest.len() - after.len());
            top.iter_mut()
                .zip(before)
                .for_each(|(to, &clock)| *to = value(clock, index));
            bottom
                .iter_mut()
                .zip(after)
                .for_each(|(to, &clock)| *to = value(clock, index));
            if index == Column::CLK.main_index() {
                padding
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, clock)| *clock = element(height + i));
            } else {
                padding.fill(value(last_clock, index));
            }
        });
}

#[cfg(test)]
mod tests {
    use super::stable_order;

    #[test]
    fn the_order_is_by_pointer_then_by_clock() {
        let pointers = [0, 1, 1, 2, 1, 0, 1];
        assert_eq!(
            stable_order(pointers.len(), |clock| pointers[clock]),
            [0, 5, 1, 2, 4, 6, 3]
        );
    }
}

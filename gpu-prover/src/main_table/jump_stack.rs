//! Jump stack table: the processor's rows sorted by (jump stack pointer, clock).

use rayon::prelude::*;
use triton_air::table_column::JumpStackMainColumn as Column;
use triton_air::table_column::MasterMainColumn;
use triton_vm::prelude::BFieldElement;

use super::{clock_jumps, element, write_columns};

/// What the table takes from a clock cycle.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Row {
    pub clock: u32,
    pub opcode: BFieldElement,
    pub pointer: u32,
    pub origin: BFieldElement,
    pub destination: BFieldElement,
}

/// Fill from `height` clock cycles, and pad. Returns the clock jump differences among the rows of the execution.
///
/// Padding continues the processor's last row, so it sits right behind that row's place in the sorted order and pushes
/// the rows of deeper stacks to the end.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], height: usize, row: impl Fn(usize) -> Row + Sync) -> Vec<u32> {
    let order = stable_order(height, |clock| row(clock).pointer as usize);
    let sorted: Vec<Row> = order.into_par_iter().map(|clock| row(clock as usize)).collect();
    let last_clock = height as u32 - 1;
    let last_row = sorted.iter().position(|row| row.clock == last_clock).expect("the order is a permutation of clocks");

    let (before, after) = sorted.split_at(last_row + 1);
    let padding_height = columns[0].len() - height;
    let mut padding = vec![];
    let mut bottom = vec![];
    let mut top = vec![];
    for column in columns.iter_mut() {
        let (first, rest) = column.split_at_mut(before.len());
        let (second, third) = rest.split_at_mut(padding_height);
        top.push(first);
        padding.push(second);
        bottom.push(third);
    }
    write_columns(&mut top, before, value);
    write_columns(&mut bottom, after, value);
    padding.into_par_iter().enumerate().for_each(|(index, padding)| {
        if index == Column::CLK.main_index() {
            padding.iter_mut().enumerate().for_each(|(i, clock)| *clock = element(height + i));
        } else {
            padding.fill(value(index, &sorted[last_row]));
        }
    });
    clock_jumps(&sorted, |row| (row.pointer, row.clock))
}

fn value(column: usize, row: &Row) -> BFieldElement {
    match column {
        c if c == Column::CLK.main_index() => row.clock.into(),
        c if c == Column::CI.main_index() => row.opcode,
        c if c == Column::JSP.main_index() => row.pointer.into(),
        c if c == Column::JSO.main_index() => row.origin,
        _ => row.destination,
    }
}

/// The clock cycles `0..height`, sorted by jump stack pointer, stably: a counting sort, because pointers are small.
fn stable_order(height: usize, pointer: impl Fn(usize) -> usize) -> Vec<u32> {
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

#[cfg(test)]
mod tests {
    use super::stable_order;

    #[test]
    fn the_order_is_by_pointer_then_by_clock() {
        let pointers = [0, 1, 1, 2, 1, 0, 1];
        assert_eq!(stable_order(pointers.len(), |clock| pointers[clock]), [0, 5, 1, 2, 4, 6, 3]);
    }
}

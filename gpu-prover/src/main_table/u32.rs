//! U32 table: each operation on 32-bit operands as a section of rows that shift the operands right, bit by bit.

use rayon::prelude::*;
use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::U32MainColumn as Column;
use triton_vm::isa::instruction::Instruction;
use triton_vm::prelude::{BFieldElement, FiniteField};
use triton_vm::table::u32::U32TableEntry;

use super::{ONE, ZERO, element};

/// Most rows of a section: operands of 32 bits, and the row in which both are 0.
const MAX_SECTION_LENGTH: usize = 33;

/// One row of a section; what the table's columns need, before inverses.
#[derive(Debug, Clone, Copy)]
struct SectionRow {
    left: u64,
    right: u64,
    result: BFieldElement,
}

/// Fill and pad.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], entries: &[(U32TableEntry, u64)]) {
    let sections: Vec<_> =
        entries.par_iter().map(|&(entry, multiplicity)| (entry.instruction, multiplicity, section(entry))).collect();
    let bits_minus_33_inverses: Vec<_> = (0..MAX_SECTION_LENGTH).map(|bits| (element(bits) - element(33)).inverse()).collect();

    let mut row = 0;
    for (instruction, multiplicity, section) in sections {
        for (bits, content) in section.into_iter().enumerate() {
            let mut set = |column: Column, value| columns[column.main_index()][row] = value;
            if bits == 0 {
                set(Column::CopyFlag, ONE);
                set(Column::LookupMultiplicity, multiplicity.into());
            }
            set(Column::Bits, element(bits));
            set(Column::BitsMinus33Inv, bits_minus_33_inverses[bits]);
            set(Column::CI, instruction.opcode_b());
            set(Column::LHS, BFieldElement::new(content.left));
            set(Column::RHS, BFieldElement::new(content.right));
            set(Column::Result, content.result);
            row += 1;
        }
    }
    for (operand, inverse) in [(Column::LHS, Column::LhsInv), (Column::RHS, Column::RhsInv)] {
        let inverses = inverses_or_zero(&columns[operand.main_index()][..row]);
        columns[inverse.main_index()][..row].copy_from_slice(&inverses);
    }
    pad(columns, row, bits_minus_33_inverses[0]);
}

fn pad(columns: &mut [&mut [BFieldElement]], height: usize, inverse_of_minus_33: BFieldElement) {
    let mut template = vec![ZERO; columns.len()];
    template[Column::CI.main_index()] = Instruction::Split.opcode_b();
    template[Column::BitsMinus33Inv.main_index()] = inverse_of_minus_33;
    if height > 0 {
        for column in [Column::CI, Column::LHS, Column::LhsInv, Column::Result] {
            template[column.main_index()] = columns[column.main_index()][height - 1];
        }
        // `lt` of two zeros ends with result 0, but only a row with the copy flag may say so; "undecided" is 2.
        if template[Column::CI.main_index()] == Instruction::Lt.opcode_b() {
            template[Column::Result.main_index()] = BFieldElement::new(2);
        }
    }
    columns.par_iter_mut().zip(template).for_each(|(column, value)| column[height..].fill(value));
}

/// The rows of one operation, top to bottom: operands shift down, results build up from the last row.
fn section(entry: U32TableEntry) -> Vec<SectionRow> {
    let U32TableEntry { instruction, left_operand, right_operand } = entry;
    let keeps_left = instruction == Instruction::Pow;
    let (mut left, mut right) = (left_operand.value(), right_operand.value());
    let mut rows = vec![SectionRow { left, right, result: ZERO }];
    while right != 0 || (left != 0 && !keeps_left) {
        left = if keeps_left { left } else { left >> 1 };
        right >>= 1;
        rows.push(SectionRow { left, right, result: ZERO });
    }

    let last = rows.len() - 1;
    rows[last].result = last_result(instruction, last == 0);
    for index in (0..last).rev() {
        let below = rows[index + 1];
        rows[index].result = result(instruction, rows[index], below, index);
    }
    rows
}

/// Result in the row where nothing is left of the operands.
fn last_result(instruction: Instruction, is_first: bool) -> BFieldElement {
    match instruction {
        Instruction::Lt if !is_first => BFieldElement::new(2),
        Instruction::Log2Floor => -ONE,
        Instruction::Pow => ONE,
        _ => ZERO,
    }
}

/// Result of a row from the one below it. `bits` is the row's number in its section.
fn result(instruction: Instruction, row: SectionRow, below: SectionRow, bits: usize) -> BFieldElement {
    let (left_bit, right_bit) = (row.left & 1, row.right & 1);
    match instruction {
        Instruction::Lt => match (below.result.value(), left_bit, right_bit) {
            (2, 0, 1) => ONE,
            (2, 1, 0) => ZERO,
            // All bits are equal: undecided, until the first row settles that nothing was less.
            (2, _, _) if bits == 0 => ZERO,
            _ => below.result,
        },
        Instruction::And => below.result + below.result + BFieldElement::new(left_bit & right_bit),
        Instruction::Log2Floor if row.left == 0 => -ONE,
        Instruction::Log2Floor if below.left == 0 => element(bits),
        Instruction::Pow if right_bit == 1 => below.result * below.result * BFieldElement::new(row.left),
        Instruction::Pow => below.result * below.result,
        Instruction::PopCount => below.result + BFieldElement::new(left_bit),
        _ => below.result,
    }
}

fn inverses_or_zero(elements: &[BFieldElement]) -> Vec<BFieldElement> {
    let invertible = elements.par_iter().map(|&x| if x == ZERO { ONE } else { x }).collect();
    let mut inverses = BFieldElement::par_batch_inversion(invertible);
    inverses.par_iter_mut().zip(elements).filter(|(_, x)| **x == ZERO).for_each(|(inverse, _)| *inverse = ZERO);
    inverses
}

#[cfg(test)]
mod tests {
    use super::*;
    use twenty_first::prelude::ModPowU32;

    fn first_result(instruction: Instruction, left: u32, right: u32) -> BFieldElement {
        section(U32TableEntry::new(instruction, left, right))[0].result
    }

    #[test]
    fn sections_compute_their_instruction() {
        let numbers = [0, 1, 2, 3, 5, 0x8000_0000, 0xdead_beef, u32::MAX];
        for left in numbers {
            assert_eq!(first_result(Instruction::PopCount, left, 0), left.count_ones().into());
            if left != 0 {
                assert_eq!(first_result(Instruction::Log2Floor, left, 0), left.ilog2().into());
            }
            for right in numbers {
                assert_eq!(first_result(Instruction::Lt, left, right), u32::from(left < right).into());
                assert_eq!(first_result(Instruction::And, left, right), (left & right).into());
                let power = BFieldElement::from(left).mod_pow_u32(right);
                assert_eq!(first_result(Instruction::Pow, left, right), power);
                assert_eq!(first_result(Instruction::Split, left, right), ZERO);
            }
        }
    }

    #[test]
    fn sections_are_at_most_33_rows_long() {
        let longest = section(U32TableEntry::new(Instruction::Split, u32::MAX, u32::MAX));
        assert_eq!(longest.len(), MAX_SECTION_LENGTH);
        assert_eq!(section(U32TableEntry::new(Instruction::Pow, u32::MAX, 0_u32)).len(), 1);
    }
}

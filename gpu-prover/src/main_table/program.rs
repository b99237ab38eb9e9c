//! Program table: the program's words, padded as the input of the sponge that hashes it.

use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::ProgramMainColumn as Column;
use triton_vm::prelude::{BFieldElement, Program, tip5};
use twenty_first::prelude::Inverse;

use super::{ONE, ZERO, element};

/// Fill and pad. Padding goes on counting addresses and chunks.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], program: &Program, multiplicities: &[u32]) {
    let words = program.to_bwords();
    let hashed_length = (words.len() + 1).next_multiple_of(tip5::RATE);
    let inverses: Vec<_> = (0..tip5::RATE).map(|index| element(tip5::RATE - 1 - index).inverse_or_zero()).collect();

    for row in 0..columns[0].len() {
        let index_in_chunk = row % tip5::RATE;
        let is_program = row < words.len();
        let mut set = |column: Column, value| columns[column.main_index()][row] = value;
        set(Column::Address, element(row));
        set(Column::IndexInChunk, element(index_in_chunk));
        set(Column::MaxMinusIndexInChunkInv, inverses[index_in_chunk]);
        set(Column::IsHashInputPadding, if is_program { ZERO } else { ONE });
        set(Column::IsTablePadding, if row < hashed_length { ZERO } else { ONE });
        if is_program {
            set(Column::Instruction, words[row]);
            set(Column::LookupMultiplicity, multiplicities[row].into());
        } else if row == words.len() {
            // The sponge's padding is a single one, then zeros.
            set(Column::Instruction, ONE);
        }
    }
}

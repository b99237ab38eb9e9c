//! Program table: the program's words, padded as the input of the sponge that hashes it.

use triton_air::table_column::MasterMainColumn;
use triton_air::table_column::ProgramMainColumn as Column;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::{BFieldElement, TableId, tip5};
use twenty_first::prelude::Inverse;

use super::{ONE, ZERO, element};

/// Fill and pad. Padding goes on counting addresses and chunks.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], aet: &AlgebraicExecutionTrace) {
    let words = aet.program.to_bwords();
    let hashed_length = aet.height_of_table(TableId::Program);
    let inverses: Vec<_> = (0..tip5::RATE)
        .map(|index| element(tip5::RATE - 1 - index).inverse_or_zero())
        .collect();

    for row in 0..columns[0].len() {
        let index_in_chunk = row % tip5::RATE;
        let is_program = row < words.len();
        let mut set = |column: Column, value| columns[column.main_index()][row] = value;
        set(Column::Address, element(row));
        set(Column::IndexInChunk, element(index_in_chunk));
        set(Column::MaxMinusIndexInChunkInv, inverses[index_in_chunk]);
        set(
            Column::IsHashInputPadding,
            if is_program { ZERO } else { ONE },
        );
        set(
            Column::IsTablePadding,
            if row < hashed_length { ZERO } else { ONE },
        );
        if is_program {
            set(Column::Instruction, words[row]);
            set(
                Column::LookupMultiplicity,
                aet.instruction_multiplicities[row].into(),
            );
        } else if row == words.len() {
            // The sponge's padding is a single one, then zeros.
            set(Column::Instruction, ONE);
        }
    }
}

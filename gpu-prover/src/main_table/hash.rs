//! Hash table: Tip5 permutations of program hashing, sponge and `hash`, round by round.

use rayon::prelude::*;
use triton_air::table::hash::{HashTable, HashTableMode, MONTGOMERY_MODULUS};
use triton_air::table_column::HashMainColumn as Column;
use triton_air::table_column::MasterMainColumn;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::isa::instruction::Instruction;
use triton_vm::prelude::BFieldElement;
use twenty_first::prelude::Inverse;

use super::{ZERO, transpose_into};

/// Fill and pad: padding rows are round 0 of a permutation of the zero state.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], aet: &AlgebraicExecutionTrace) {
    let parts = [
        (HashTableMode::ProgramHashing, &aet.program_hash_trace),
        (HashTableMode::Sponge, &aet.sponge_trace),
        (HashTableMode::Hash, &aet.hash_trace),
    ];
    let mut row = 0;
    for (mode, trace) in parts {
        transpose_into(columns, row, &trace.view());
        columns[Column::Mode.main_index()][row..row + trace.nrows()].fill(mode.into());
        row += trace.nrows();
    }
    pad(columns, row);
}

/// Padding rows for a table whose first `height` rows are filled.
pub(super) fn pad(columns: &mut [&mut [BFieldElement]], height: usize) {
    let mut template = vec![ZERO; columns.len()];
    template[Column::Mode.main_index()] = HashTableMode::Pad.into();
    template[Column::CI.main_index()] = Instruction::Hash.opcode_b();
    let inverse = inverse_of_high_limbs(ZERO);
    for column in [
        Column::State0Inv,
        Column::State1Inv,
        Column::State2Inv,
        Column::State3Inv,
    ] {
        template[column.main_index()] = inverse;
    }
    for (index, constant) in HashTable::tip5_round_constants_by_round_number(0)
        .into_iter()
        .enumerate()
    {
        template[HashTable::round_constant_column_by_index(index).main_index()] = constant;
    }
    columns
        .par_iter_mut()
        .zip(template)
        .for_each(|(column, value)| column[height..].fill(value));
}

/// Inverse-or-zero of `2^32 - 1 - h`, where `h` is the upper half of the element's representation in Montgomery form.
/// It proves that the four 16-bit limbs are the canonical decomposition.
pub(super) fn inverse_of_high_limbs(state_element: BFieldElement) -> BFieldElement {
    let high = (MONTGOMERY_MODULUS * state_element).value() >> 32;
    BFieldElement::new(u64::from(u32::MAX) - high).inverse_or_zero()
}

//! Hash table: Tip5 permutations of program hashing, sponge and `hash`, round by round.

use rayon::prelude::*;
use triton_air::table::hash::{HashTable, HashTableMode, MONTGOMERY_MODULUS};
use triton_air::table_column::HashMainColumn as Column;
use triton_air::table_column::MasterMainColumn;
use triton_vm::isa::instruction::Instruction;
use triton_vm::prelude::{BFieldElement, FiniteField, tip5};
use twenty_first::prelude::Inverse;

use super::{ONE, ZERO, element, split_rows_at, write_columns};
use crate::trace::Trace;
use crate::trace::tip5_calls::{Tip5Call, Tip5Kind, limbs};

/// Permutations that are worked on together.
const CALLS_PER_PART: usize = 256;

const LIMBS: usize = 4;

/// One row: the state before a round, or at the end.
#[derive(Debug, Clone, Copy)]
struct Row {
    kind: Tip5Kind,
    round: usize,
    state: [BFieldElement; tip5::STATE_SIZE],
    /// The limbs of the first four state elements, highest first, as the columns are.
    limbs: [u16; tip5::NUM_SPLIT_AND_LOOKUP * LIMBS],
}

/// Fill from a trace, program first, then sponge, then `hash`, and pad.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], trace: &Trace) {
    let is_hash = |call: &&Tip5Call| call.kind == Tip5Kind::Hash;
    let calls: Vec<Tip5Call> = trace
        .program_hash
        .iter()
        .chain(trace.tip5.iter().filter(|call| !is_hash(call)))
        .chain(trace.tip5.iter().filter(is_hash))
        .copied()
        .collect();
    let heights: Vec<usize> = calls.chunks(CALLS_PER_PART).map(|part| part.iter().map(|call| call.kind.rows()).sum()).collect();
    let height = heights.iter().sum();
    let targets = columns.iter_mut().map(|column| &mut **column).collect();
    split_rows_at(targets, &heights)
        .into_par_iter()
        .zip(calls.par_chunks(CALLS_PER_PART))
        .for_each(|(mut targets, calls)| fill_part(&mut targets, calls));
    pad(columns, height);
}

fn fill_part(columns: &mut [&mut [BFieldElement]], calls: &[Tip5Call]) {
    let rows: Vec<Row> = calls.iter().flat_map(|call| rows(call).into_iter().take(call.kind.rows())).collect();
    let mut write = |column: Column, value: &dyn Fn(&Row) -> BFieldElement| {
        let column = &mut *columns[column.main_index()];
        column.iter_mut().zip(&rows).for_each(|(to, row)| *to = value(row));
    };
    write(Column::Mode, &|row| mode(row.kind).into());
    write(Column::CI, &|row| instruction(row.kind).opcode_b());
    write(Column::RoundNumber, &|row| element(row.round));
    let group = |first: Column, length: usize| first.main_index()..first.main_index() + length;
    let num_limbs = tip5::NUM_SPLIT_AND_LOOKUP * LIMBS;
    write_columns(&mut columns[group(Column::State0HighestLkIn, num_limbs)], &rows, |limb, row| row.limbs[limb].into());
    write_columns(&mut columns[group(Column::State0HighestLkOut, num_limbs)], &rows, |limb, row| look_up(row.limbs[limb]));
    let num_others = tip5::STATE_SIZE - tip5::NUM_SPLIT_AND_LOOKUP;
    write_columns(&mut columns[group(Column::State4, num_others)], &rows, |index, row| {
        row.state[tip5::NUM_SPLIT_AND_LOOKUP + index]
    });
    let inverses = inverses_of_high_limbs(&rows);
    write_columns(&mut columns[group(Column::State0Inv, tip5::NUM_SPLIT_AND_LOOKUP)], &inverses, |index, row| row[index]);
    let constants: [_; tip5::NUM_ROUNDS + 1] = std::array::from_fn(HashTable::tip5_round_constants_by_round_number);
    write_columns(&mut columns[group(Column::Constant0, tip5::STATE_SIZE)], &rows, |index, row| constants[row.round][index]);
}

/// The rows of a permutation; a sponge reset uses only the first.
fn rows(call: &Tip5Call) -> [Row; tip5::NUM_ROUNDS + 1] {
    let states = call.permutation_trace();
    std::array::from_fn(|round| {
        let state = states[round];
        let limbs: [_; tip5::NUM_SPLIT_AND_LOOKUP] = std::array::from_fn(|element| limbs(state[element]));
        let limbs = std::array::from_fn(|limb| limbs[limb / LIMBS][LIMBS - 1 - limb % LIMBS]);
        Row { kind: call.kind, round, state, limbs }
    })
}

fn mode(kind: Tip5Kind) -> HashTableMode {
    match kind {
        Tip5Kind::Program => HashTableMode::ProgramHashing,
        Tip5Kind::SpongeInit | Tip5Kind::Absorb | Tip5Kind::Squeeze => HashTableMode::Sponge,
        Tip5Kind::Hash => HashTableMode::Hash,
    }
}

fn instruction(kind: Tip5Kind) -> Instruction {
    match kind {
        Tip5Kind::SpongeInit => Instruction::SpongeInit,
        Tip5Kind::Absorb => Instruction::SpongeAbsorb,
        Tip5Kind::Squeeze => Instruction::SpongeSqueeze,
        Tip5Kind::Program | Tip5Kind::Hash => Instruction::Hash,
    }
}

/// Tip5's S-box on both bytes.
fn look_up(limb: u16) -> BFieldElement {
    u16::from_le_bytes(limb.to_le_bytes().map(|byte| tip5::LOOKUP_TABLE[usize::from(byte)])).into()
}

/// For the first four state elements of each row the inverse-or-zero of `2^32 - 1 - h`, where `h` is the upper half of
/// the element's Montgomery form. It proves that the limbs are the canonical decomposition.
fn inverses_of_high_limbs(rows: &[Row]) -> Vec<[BFieldElement; tip5::NUM_SPLIT_AND_LOOKUP]> {
    let difference = |row: &Row, index: usize| {
        let [highest, mid_high] = [row.limbs[LIMBS * index], row.limbs[LIMBS * index + 1]].map(u64::from);
        u64::from(u32::MAX) - (highest << 16) - mid_high
    };
    let differences = rows.iter().flat_map(|row| (0..tip5::NUM_SPLIT_AND_LOOKUP).map(move |i| difference(row, i)));
    let invertible = differences.map(|value| if value == 0 { ONE } else { BFieldElement::new(value) }).collect();
    let inverses = BFieldElement::batch_inversion(invertible);
    let of_row = |(row, inverses): (&Row, &[BFieldElement])| {
        std::array::from_fn(|index| if difference(row, index) == 0 { ZERO } else { inverses[index] })
    };
    rows.iter().zip(inverses.chunks_exact(tip5::NUM_SPLIT_AND_LOOKUP)).map(of_row).collect()
}

/// Padding rows for a table whose first `height` rows are filled: round 0 of a permutation of the zero state.
pub(super) fn pad(columns: &mut [&mut [BFieldElement]], height: usize) {
    let mut template = vec![ZERO; columns.len()];
    template[Column::Mode.main_index()] = HashTableMode::Pad.into();
    template[Column::CI.main_index()] = Instruction::Hash.opcode_b();
    let inverse = inverse_of_high_limbs(ZERO);
    for column in [Column::State0Inv, Column::State1Inv, Column::State2Inv, Column::State3Inv] {
        template[column.main_index()] = inverse;
    }
    for (index, constant) in HashTable::tip5_round_constants_by_round_number(0).into_iter().enumerate() {
        template[HashTable::round_constant_column_by_index(index).main_index()] = constant;
    }
    columns.par_iter_mut().zip(template).for_each(|(column, value)| column[height..].fill(value));
}

fn inverse_of_high_limbs(state_element: BFieldElement) -> BFieldElement {
    let high = (MONTGOMERY_MODULUS * state_element).value() >> 32;
    BFieldElement::new(u64::from(u32::MAX) - high).inverse_or_zero()
}

/// The columns of `mode`s for the three parts of a trace that has its rows already.
pub(super) fn fill_mode(columns: &mut [&mut [BFieldElement]], first_row: usize, height: usize, mode: HashTableMode) {
    columns[Column::Mode.main_index()][first_row..first_row + height].fill(mode.into());
}

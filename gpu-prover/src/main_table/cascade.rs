//! Cascade table: how each 16-bit limb that Tip5 looked up splits into two 8-bit look-ups.

use triton_air::table_column::CascadeMainColumn as Column;
use triton_air::table_column::MasterMainColumn;
use triton_vm::prelude::{BFieldElement, tip5};

use super::ONE;

/// Fill, in the order in which limbs were first looked up, and pad.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], lookups: impl Iterator<Item = (u16, u64)>) {
    let mut height = 0;
    for (row, (limb, multiplicity)) in lookups.enumerate() {
        height = row + 1;
        let [low, high] = limb.to_le_bytes();
        let mut set = |column: Column, value| columns[column.main_index()][row] = value;
        set(Column::LookInLo, low.into());
        set(Column::LookInHi, high.into());
        set(Column::LookOutLo, tip5::LOOKUP_TABLE[usize::from(low)].into());
        set(Column::LookOutHi, tip5::LOOKUP_TABLE[usize::from(high)].into());
        set(Column::LookupMultiplicity, multiplicity.into());
    }
    columns[Column::IsPadding.main_index()][height..].fill(ONE);
}

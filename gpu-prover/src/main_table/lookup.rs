//! Lookup table: Tip5's 8-bit S-box and how often each entry was used.

use triton_air::table_column::LookupMainColumn as Column;
use triton_air::table_column::MasterMainColumn;
use triton_vm::prelude::{BFieldElement, tip5};

use super::{ONE, element};

/// Fill the 256 entries and pad.
pub(super) fn fill(columns: &mut [&mut [BFieldElement]], multiplicities: &[u64; 256]) {
    for (row, (output, multiplicity)) in tip5::LOOKUP_TABLE.into_iter().zip(*multiplicities).enumerate() {
        columns[Column::LookIn.main_index()][row] = element(row);
        columns[Column::LookOut.main_index()][row] = output.into();
        columns[Column::LookupMultiplicity.main_index()][row] = multiplicity.into();
    }
    columns[Column::IsPadding.main_index()][tip5::LOOKUP_TABLE.len()..].fill(ONE);
}

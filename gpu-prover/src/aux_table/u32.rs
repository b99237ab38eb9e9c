//! U32 table: serves the processor's 32-bit operations.

use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table_column::U32MainColumn as Main;
use triton_air::table_column::{MasterAuxColumn, U32AuxColumn as Aux};
use triton_vm::prelude::XFieldElement;

use super::scan::{Fraction, running_fractions};
use super::{INITIAL_SUM, ONE, Rows};

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let weighted = [
        (Main::CI, Id::U32CiWeight),
        (Main::LHS, Id::U32LhsWeight),
        (Main::RHS, Id::U32RhsWeight),
        (Main::Result, Id::U32ResultWeight),
    ];
    running_fractions(columns[Aux::LookupServerLogDerivative.aux_index()], INITIAL_SUM, |row| {
        let starts_section = rows.at(Main::CopyFlag, row) == ONE;
        [starts_section.then(|| Fraction {
            numerator: rows.at(Main::LookupMultiplicity, row).lift(),
            denominator: rows.compress(Id::U32Indeterminate, weighted, row),
        })]
    });
}

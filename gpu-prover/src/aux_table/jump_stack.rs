//! Jump stack table: permutation argument with the processor, clock jump differences. Padding rows take part in both.

use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table_column::JumpStackMainColumn as Main;
use triton_air::table_column::{JumpStackAuxColumn as Aux, MasterAuxColumn};
use triton_vm::prelude::XFieldElement;

use super::scan::{Affine, Fraction, running, running_fractions};
use super::{INITIAL_PRODUCT, INITIAL_SUM, Rows};

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let weighted = [
        (Main::CLK, Id::JumpStackClkWeight),
        (Main::CI, Id::JumpStackCiWeight),
        (Main::JSP, Id::JumpStackJspWeight),
        (Main::JSO, Id::JumpStackJsoWeight),
        (Main::JSD, Id::JumpStackJsdWeight),
    ];
    running(columns[Aux::RunningProductPermArg.aux_index()], INITIAL_PRODUCT, |row| {
        Some(Affine::product(rows.compress(Id::JumpStackIndeterminate, weighted, row)))
    });

    let indeterminate = rows.challenge(Id::ClockJumpDifferenceLookupIndeterminate);
    let pointer = rows.column(Main::JSP);
    let clock = rows.column(Main::CLK);
    let column = &mut *columns[Aux::ClockJumpDifferenceLookupClientLogDerivative.aux_index()];
    running_fractions(column, INITIAL_SUM, |row| {
        let is_jump = row > 0 && pointer[row - 1] == pointer[row];
        [is_jump.then(|| Fraction::inverse_of(indeterminate - (clock[row] - clock[row - 1])))]
    });
}

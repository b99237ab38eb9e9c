//! Op stack table: permutation argument with the processor, clock jump differences.

use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table::op_stack::PADDING_VALUE;
use triton_air::table_column::OpStackMainColumn as Main;
use triton_air::table_column::{MasterAuxColumn, OpStackAuxColumn as Aux};
use triton_vm::prelude::XFieldElement;

use super::scan::{Affine, Fraction, running, running_fractions};
use super::{INITIAL_PRODUCT, INITIAL_SUM, Rows};

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let is_padding = |row| rows.at(Main::IB1ShrinkStack, row) == PADDING_VALUE;
    let weighted = [
        (Main::CLK, Id::OpStackClkWeight),
        (Main::IB1ShrinkStack, Id::OpStackIb1Weight),
        (Main::StackPointer, Id::OpStackPointerWeight),
        (Main::FirstUnderflowElement, Id::OpStackFirstUnderflowElementWeight),
    ];
    running(columns[Aux::RunningProductPermArg.aux_index()], INITIAL_PRODUCT, |row| {
        (!is_padding(row)).then(|| Affine::product(rows.compress(Id::OpStackIndeterminate, weighted, row)))
    });

    let indeterminate = rows.challenge(Id::ClockJumpDifferenceLookupIndeterminate);
    let pointer = rows.column(Main::StackPointer);
    let clock = rows.column(Main::CLK);
    let column = &mut *columns[Aux::ClockJumpDifferenceLookupClientLogDerivative.aux_index()];
    running_fractions(column, INITIAL_SUM, |row| {
        let is_jump = row > 0 && !is_padding(row) && pointer[row - 1] == pointer[row];
        [is_jump.then(|| Fraction::inverse_of(indeterminate - (clock[row] - clock[row - 1])))]
    });
}

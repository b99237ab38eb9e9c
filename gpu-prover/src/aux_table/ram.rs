//! RAM table: contiguity argument, permutation argument with the processor, clock jump differences.

use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table::ram::PADDING_INDICATOR;
use triton_air::table_column::RamMainColumn as Main;
use triton_air::table_column::{MasterAuxColumn, RamAuxColumn as Aux};
use triton_vm::prelude::XFieldElement;

use super::scan::{Affine, Fraction, running, running_fractions};
use super::{INITIAL_PRODUCT, INITIAL_SUM, Rows, X_ONE};

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let is_padding = |row| rows.at(Main::InstructionType, row) == PADDING_INDICATOR;
    let pointer = rows.column(Main::RamPointer);
    let clock = rows.column(Main::CLK);
    let starts_region = |row: usize| row > 0 && !is_padding(row) && pointer[row - 1] != pointer[row];

    let indeterminate = rows.challenge(Id::RamTableBezoutRelationIndeterminate);
    let root = |row: usize| indeterminate - pointer[row];
    // The first row starts the first region even if it is padding.
    let product_column = Aux::RunningProductOfRAMP.aux_index();
    running(columns[product_column], X_ONE, |row| (row == 0 || starts_region(row)).then(|| Affine::product(root(row))));
    // The formal derivative of that product: (f (X - r))' = f' (X - r) + f.
    let product = columns[product_column].to_vec();
    running(columns[Aux::FormalDerivative.aux_index()], X_ONE, |row| {
        starts_region(row).then(|| Affine { factor: root(row), addend: product[row - 1] })
    });
    for (main, aux) in [
        (Main::BezoutCoefficientPolynomialCoefficient0, Aux::BezoutCoefficient0),
        (Main::BezoutCoefficientPolynomialCoefficient1, Aux::BezoutCoefficient1),
    ] {
        let coefficient = rows.column(main);
        running(columns[aux.aux_index()], X_ONE, |row| match row {
            0 => Some(Affine::constant(coefficient[0].lift())),
            _ => starts_region(row).then(|| Affine::evaluation(indeterminate, coefficient[row].lift())),
        });
    }

    let weighted = [
        (Main::CLK, Id::RamClkWeight),
        (Main::InstructionType, Id::RamInstructionTypeWeight),
        (Main::RamPointer, Id::RamPointerWeight),
        (Main::RamValue, Id::RamValueWeight),
    ];
    running(columns[Aux::RunningProductPermArg.aux_index()], INITIAL_PRODUCT, |row| {
        (!is_padding(row)).then(|| Affine::product(rows.compress(Id::RamIndeterminate, weighted, row)))
    });

    let indeterminate = rows.challenge(Id::ClockJumpDifferenceLookupIndeterminate);
    let column = &mut *columns[Aux::ClockJumpDifferenceLookupClientLogDerivative.aux_index()];
    running_fractions(column, INITIAL_SUM, |row| {
        let is_jump = row > 0 && !is_padding(row) && pointer[row - 1] == pointer[row];
        [is_jump.then(|| Fraction::inverse_of(indeterminate - (clock[row] - clock[row - 1])))]
    });
}

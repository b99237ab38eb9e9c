//! Lookup table: serves the cascade table, and shows its content to the verifier.

use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table_column::LookupMainColumn as Main;
use triton_air::table_column::{LookupAuxColumn as Aux, MasterAuxColumn};
use triton_vm::prelude::XFieldElement;

use super::scan::{Affine, Fraction, running, running_fractions};
use super::{INITIAL_PRODUCT, INITIAL_SUM, ONE, Rows};

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let is_padding = |row| rows.at(Main::IsPadding, row) == ONE;
    let weighted = [(Main::LookIn, Id::LookupTableInputWeight), (Main::LookOut, Id::LookupTableOutputWeight)];
    running_fractions(columns[Aux::CascadeTableServerLogDerivative.aux_index()], INITIAL_SUM, |row| {
        [(!is_padding(row)).then(|| Fraction {
            numerator: rows.at(Main::LookupMultiplicity, row).lift(),
            denominator: rows.compress(Id::CascadeLookupIndeterminate, weighted, row),
        })]
    });

    let indeterminate = rows.challenge(Id::LookupTablePublicIndeterminate);
    running(columns[Aux::PublicEvaluationArgument.aux_index()], INITIAL_PRODUCT, |row| {
        (!is_padding(row)).then(|| Affine::evaluation(indeterminate, rows.at(Main::LookOut, row).lift()))
    });
}

//! Cascade table: serves the hash table's 16-bit look-ups, asks the lookup table for two 8-bit ones each.

use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table_column::CascadeMainColumn as Main;
use triton_air::table_column::{CascadeAuxColumn as Aux, MasterAuxColumn};
use triton_vm::prelude::{BFieldElement, XFieldElement};

use super::scan::{Fraction, running_fractions};
use super::{INITIAL_SUM, ONE, Rows};

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let is_padding = |row| rows.at(Main::IsPadding, row) == ONE;
    let indeterminate = rows.challenge(Id::HashCascadeLookupIndeterminate);
    let in_weight = rows.challenge(Id::HashCascadeLookInWeight);
    let out_weight = rows.challenge(Id::HashCascadeLookOutWeight);
    let both = |high, low, row| BFieldElement::new(1 << 8) * rows.at(high, row) + rows.at(low, row);
    running_fractions(columns[Aux::HashTableServerLogDerivative.aux_index()], INITIAL_SUM, |row| {
        [(!is_padding(row)).then(|| Fraction {
            numerator: rows.at(Main::LookupMultiplicity, row).lift(),
            denominator: indeterminate
                - in_weight * both(Main::LookInHi, Main::LookInLo, row)
                - out_weight * both(Main::LookOutHi, Main::LookOutLo, row),
        })]
    });

    running_fractions(columns[Aux::LookupTableClientLogDerivative.aux_index()], INITIAL_SUM, |row| {
        let fraction = |input, output| {
            let weighted = [(input, Id::LookupTableInputWeight), (output, Id::LookupTableOutputWeight)];
            Fraction::inverse_of(rows.compress(Id::CascadeLookupIndeterminate, weighted, row))
        };
        let pairs = [(Main::LookInLo, Main::LookOutLo), (Main::LookInHi, Main::LookOutHi)];
        pairs.map(|(input, output)| (!is_padding(row)).then(|| fraction(input, output)))
    });
}

//! Program table: instruction lookup, and sending the program to the hash table in chunks of ten words.

use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table_column::ProgramMainColumn as Main;
use triton_air::table_column::{MasterAuxColumn, ProgramAuxColumn as Aux};
use triton_vm::prelude::{XFieldElement, tip5};

use super::scan::{Affine, Fraction, running, running_fractions};
use super::{INITIAL_PRODUCT, INITIAL_SUM, ONE, Rows};

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let indeterminate = rows.challenge(Id::InstructionLookupIndeterminate);
    let address_weight = rows.challenge(Id::ProgramAddressWeight);
    let instruction_weight = rows.challenge(Id::ProgramInstructionWeight);
    let next_instruction_weight = rows.challenge(Id::ProgramNextInstructionWeight);
    let word = rows.column(Main::Instruction);
    // An instruction's argument is in the next row, so each row's summand arrives one row later.
    running_fractions(columns[Aux::InstructionLookupServerLogDerivative.aux_index()], INITIAL_SUM, |row| {
        let Some(previous) = row.checked_sub(1) else {
            return [None];
        };
        let is_instruction = rows.at(Main::IsHashInputPadding, previous) != ONE;
        [is_instruction.then(|| Fraction {
            numerator: rows.at(Main::LookupMultiplicity, previous).lift(),
            denominator: indeterminate
                - address_weight * rows.at(Main::Address, previous)
                - instruction_weight * word[previous]
                - next_instruction_weight * word[row],
        })]
    });

    let indeterminate = rows.challenge(Id::ProgramAttestationPrepareChunkIndeterminate);
    let index_in_chunk = rows.column(Main::IndexInChunk);
    let prepare_column = Aux::PrepareChunkRunningEvaluation.aux_index();
    running(columns[prepare_column], INITIAL_PRODUCT, |row| {
        let symbol = word[row].lift();
        Some(match index_in_chunk[row].value() {
            0 => Affine::constant(INITIAL_PRODUCT * indeterminate + symbol),
            _ => Affine::evaluation(indeterminate, symbol),
        })
    });

    let indeterminate = rows.challenge(Id::ProgramAttestationSendChunkIndeterminate);
    let prepared = columns[prepare_column].to_vec();
    running(columns[Aux::SendChunkRunningEvaluation.aux_index()], INITIAL_PRODUCT, |row| {
        let is_complete = index_in_chunk[row].value() == tip5::RATE as u64 - 1;
        let is_padding = rows.at(Main::IsTablePadding, row) == ONE;
        (is_complete && !is_padding).then(|| Affine::evaluation(indeterminate, prepared[row]))
    });
}

//! Hash table: receives program chunks, hash inputs, digests and sponge states; asks the cascade table for look-ups.

use triton_air::challenge_id::ChallengeId as Id;
use triton_air::table::hash::{HashTableMode, MONTGOMERY_MODULUS};
use triton_air::table_column::HashMainColumn as Main;
use triton_air::table_column::{HashAuxColumn as Aux, MasterAuxColumn, MasterMainColumn};
use triton_vm::isa::instruction::Instruction;
use triton_vm::prelude::{BFieldElement, Digest, XFieldElement, tip5};

use super::scan::{Affine, Fraction, running, running_fractions};
use super::{INITIAL_PRODUCT, INITIAL_SUM, Rows, ZERO};

/// State elements that go through the split-and-lookup S-box, and the 16-bit limbs of each.
const NUM_LOOKUP_LIMBS: usize = tip5::NUM_SPLIT_AND_LOOKUP * 4;

pub(super) fn extend(rows: Rows<'_>, columns: &mut [&mut [XFieldElement]]) {
    let in_mode = |mode: HashTableMode| {
        let mode: BFieldElement = mode.into();
        move |row: usize| rows.at(Main::Mode, row) == mode
    };
    let hashes_program = in_mode(HashTableMode::ProgramHashing);
    let in_sponge = in_mode(HashTableMode::Sponge);
    let in_hash = in_mode(HashTableMode::Hash);
    let is_padding = in_mode(HashTableMode::Pad);
    let round = rows.column(Main::RoundNumber);
    let last_round = BFieldElement::new(tip5::NUM_ROUNDS as u64);
    let instruction = rows.column(Main::CI);
    let sponge_init = Instruction::SpongeInit.opcode_b();

    let prepare_chunk = rows.challenge(Id::ProgramAttestationPrepareChunkIndeterminate);
    let send_chunk = rows.challenge(Id::ProgramAttestationSendChunkIndeterminate);
    running(columns[Aux::ReceiveChunkRunningEvaluation.aux_index()], INITIAL_PRODUCT, |row| {
        let receives = hashes_program(row) && round[row] == ZERO;
        receives.then(|| {
            let chunk = rate(rows, row).into_iter().fold(INITIAL_PRODUCT, |chunk, word| chunk * prepare_chunk + word);
            Affine::evaluation(send_chunk, chunk)
        })
    });

    let hash_input = rows.challenge(Id::HashInputIndeterminate);
    running(columns[Aux::HashInputRunningEvaluation.aux_index()], INITIAL_PRODUCT, |row| {
        let starts = in_hash(row) && round[row] == ZERO;
        starts.then(|| Affine::evaluation(hash_input, rows.compress_state(rate(rows, row))))
    });

    let hash_digest = rows.challenge(Id::HashDigestIndeterminate);
    running(columns[Aux::HashDigestRunningEvaluation.aux_index()], INITIAL_PRODUCT, |row| {
        let ends = in_hash(row) && round[row] == last_round;
        ends.then(|| {
            let state = rate(rows, row);
            let digest: [_; Digest::LEN] = std::array::from_fn(|i| state[i]);
            Affine::evaluation(hash_digest, rows.compress_state(digest))
        })
    });

    let sponge = rows.challenge(Id::SpongeIndeterminate);
    let instruction_weight = rows.challenge(Id::HashCIWeight);
    running(columns[Aux::SpongeRunningEvaluation.aux_index()], INITIAL_PRODUCT, |row| {
        let starts = in_sponge(row) && round[row] == ZERO;
        starts.then(|| {
            let mut symbol = instruction_weight * instruction[row];
            if instruction[row] != sponge_init {
                symbol += rows.compress_state(rate(rows, row));
            }
            Affine::evaluation(sponge, symbol)
        })
    });

    let indeterminate = rows.challenge(Id::HashCascadeLookupIndeterminate);
    let in_weight = rows.challenge(Id::HashCascadeLookInWeight);
    let out_weight = rows.challenge(Id::HashCascadeLookOutWeight);
    let looks_up = |row: usize| !is_padding(row) && round[row] != last_round && instruction[row] != sponge_init;
    let first_column = Aux::CascadeState0HighestClientLogDerivative.aux_index();
    for (limb, column) in columns[first_column..].iter_mut().enumerate().take(NUM_LOOKUP_LIMBS) {
        // Limbs come in the same order in the inputs, the outputs and the auxiliary columns.
        let input = rows.main.column(Main::State0HighestLkIn.master_main_index() + limb);
        let output = rows.main.column(Main::State0HighestLkOut.master_main_index() + limb);
        running_fractions(column, INITIAL_SUM, |row| {
            [looks_up(row).then(|| Fraction::inverse_of(indeterminate - in_weight * input[row] - out_weight * output[row]))]
        });
    }
}

/// The ten rate elements of the sponge: the first four are recomposed from their limbs.
fn rate(rows: Rows<'_>, row: usize) -> [BFieldElement; tip5::RATE] {
    let montgomery_inverse = MONTGOMERY_MODULUS.inverse();
    std::array::from_fn(|element| {
        if element < tip5::NUM_SPLIT_AND_LOOKUP {
            let first = Main::State0HighestLkIn.master_main_index() + 4 * element;
            let limbs = (first..first + 4).map(|column| rows.main.column(column)[row]);
            limbs.fold(ZERO, |value, limb| value * BFieldElement::new(1 << 16) + limb) * montgomery_inverse
        } else {
            let column = Main::State4.master_main_index() + element - tip5::NUM_SPLIT_AND_LOOKUP;
            rows.main.column(column)[row]
        }
    })
}

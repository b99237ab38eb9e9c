//! Jobs for tests: small programs of a wanted height, and mock jobs.

use prover_api::{JobKind, MockJob, ProverJob};
use triton_vm::prelude::*;

/// A job that counts down; `seed` makes its claim its own. The padded height is the first power of two above five cycles a round.
///
/// # Panics
///
/// Never: the program is fixed and halts.
pub fn countdown(rounds: u64, seed: u64) -> ProverJob {
    let program = triton_program!(
        read_io 2 call loop pop 1 write_io 1 halt
        loop: dup 0 push 0 eq skiz return addi -1 recurse
    );
    let claim = Claim::about_program(&program).with_input(bfe_vec![seed, rounds]).with_output(bfe_vec![seed]);
    ProverJob::new(program, claim, NonDeterminism::default())
}

/// A job of exactly 2^`log2_height` rows.
pub fn of_height(log2_height: u8, seed: u64) -> ProverJob {
    // Seven cycles a round, and a few around them; three quarters of the height leave room either way.
    countdown((3 << log2_height) / 4 / 7, seed)
}

/// A mock job that takes `duration_ms`.
pub fn mock(seed: u64, duration_ms: u64) -> MockJob {
    let claim = Claim::new(Digest::default()).with_input(bfe_vec![seed]);
    MockJob { claim, kind: JobKind::Other, log2_padded_height: 10, duration_ms }
}

/// A job's bytes.
///
/// # Panics
///
/// Never: every job has a JSON form.
pub fn bytes(job: &ProverJob) -> Vec<u8> {
    job.to_json().expect("every job has a JSON form")
}

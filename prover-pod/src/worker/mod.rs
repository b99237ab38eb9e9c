//! The worker process: traces and proves, one device, several threads.
//!
//! It reads orders from stdin and reports on stdout ([`crate::protocol`]). It is expendable: the service kills it to cancel a
//! proof, and starts another when it dies. It dies itself with its parent.

mod backend;
mod boarding;
mod cpu;
mod gpu;
mod hands;
mod heights;
mod kept;
mod mock;
mod run;

pub use backend::{Cancelled, Facts, ProverBackend, Report, Traced};
pub use cpu::CpuBackend;
pub use gpu::{GpuBackend, plan_name};
pub use heights::{Inspection, Limits, inspect};
pub use mock::{MockBackend, valid_mock_proof};
use prover_api::ProverJob;
pub use run::{DEVICE_LOST, run};
use triton_vm::prelude::*;

use crate::scheduler::Failure;

/// Decodes a job and checks that its program is the one that its claim names.
fn parse(body: &[u8]) -> Result<ProverJob, Failure> {
    let job = ProverJob::from_json(body).map_err(|error| Failure::Malformed(error.to_string()))?;
    if job.program.hash() != job.claim.program_digest {
        return Err(Failure::DigestMismatch);
    }
    Ok(job)
}

/// The program of the self-test: small (2^8 rows), but it fills the processor, op-stack, RAM, hash and u32 tables.
fn self_test_program() -> Program {
    triton_program!(
        push 3 push 5 pow                    // _ 243? the u32 coprocessor
        push 1 push 2 push 3 push 4 push 5
        push 6 push 7 push 8 push 9 push 10
        hash                                 // the hash coprocessor
        push 100 write_mem 5 pop 1           // the RAM table
        write_io 1 halt
    )
}

/// The claim that a worker proves before it is given jobs: no device that cannot prove this gets any.
///
/// # Panics
/// Never: the program is fixed and runs.
pub fn self_test_claim() -> Claim {
    let program = self_test_program();
    let output = VM::run(program.clone(), PublicInput::default(), NonDeterminism::default())
        .expect("the self-test program is fixed and halts");
    Claim::about_program(&program).with_output(output)
}

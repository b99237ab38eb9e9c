//! `triton-vm`'s own prover.

use prover_api::ProverJob;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::config::{CacheDecision, overwrite_lde_trace_caching_to};
use triton_vm::prelude::*;

use super::backend::{Cancelled, ProverBackend, Traced};
use super::heights::{Limits, inspect};
use crate::memory::{LdeMode, available_bytes, proof_bytes};
use crate::scheduler::{Backend, Failure};

/// Proves on the host's cores.
#[derive(Debug, Clone, Copy, Default)]
pub struct CpuBackend {
    /// Limits of a run.
    pub limits: Limits,
}

/// A traced job.
struct CpuTrace {
    claim: Claim,
    aet: AlgebraicExecutionTrace,
}

fn parse(body: &[u8]) -> Result<ProverJob, Failure> {
    let job = ProverJob::from_json(body).map_err(|error| Failure::Malformed(error.to_string()))?;
    if job.program.hash() != job.claim.program_digest {
        return Err(Failure::DigestMismatch);
    }
    Ok(job)
}

impl ProverBackend for CpuBackend {
    fn kind(&self) -> Backend {
        Backend::Cpu
    }

    fn slots(&self) -> usize {
        1
    }

    fn device(&self) -> String {
        format!("cpu ({} threads)", rayon::current_num_threads())
    }

    fn self_test(&self) -> Result<Vec<u8>, Failure> {
        let claim = super::self_test_claim();
        let job = ProverJob::new(super::self_test_program(), claim, NonDeterminism::default());
        Self::traced(job)?.prove(LdeMode::Cached, &Cancelled::default())
    }

    fn inspect(&self, body: &[u8]) -> Result<u8, Failure> {
        let ProverJob { program, claim, non_determinism, .. } = parse(body)?;
        let run = inspect(&program, PublicInput::new(claim.input), non_determinism, self.limits)?;
        if run.output != claim.output {
            return Err(Failure::OutputMismatch);
        }
        Ok(run.log2_padded_height)
    }

    fn trace(&self, body: &[u8]) -> Result<Box<dyn Traced>, Failure> {
        Self::traced(parse(body)?)
    }
}

impl CpuBackend {
    fn traced(job: ProverJob) -> Result<Box<dyn Traced>, Failure> {
        let ProverJob { program, claim, non_determinism, .. } = job;
        let input = PublicInput::new(claim.input.clone());
        // The job was inspected: it halts, and its trace fits. Only the error's kind is told, as there.
        let (aet, output) = VM::trace_execution(program, input, non_determinism).map_err(|error| Failure::ProgramFailed {
            error: super::heights::kind_of(&error.source),
            cycle: u64::from(error.vm_state.cycle_count),
        })?;
        if output != claim.output {
            return Err(Failure::OutputMismatch);
        }
        Ok(Box::new(CpuTrace { claim, aet }))
    }
}

impl Traced for CpuTrace {
    fn prove(self: Box<Self>, lde: LdeMode, _cancelled: &Cancelled) -> Result<Vec<u8>, Failure> {
        // `triton-vm` offers no place to stop: a cancelled CPU proof ends with its process.
        let decision = match self.lde_mode(lde) {
            LdeMode::Cached => CacheDecision::Cache,
            LdeMode::JustInTime => CacheDecision::NoCache,
        };
        overwrite_lde_trace_caching_to(decision);
        let proof =
            Stark::default().prove(&self.claim, &self.aet).map_err(|error| Failure::Prover(super::heights::kind_of(&error)))?;
        prover_api::proof::encode(&proof).map_err(|error| Failure::Prover(error.to_string()))
    }
}

impl CpuTrace {
    /// The plan's mode, unless the control group has less memory left by now than it had when the plan was made.
    fn lde_mode(&self, planned: LdeMode) -> LdeMode {
        let log2_height = self.aet.padded_height().ilog2() as u8;
        match available_bytes() {
            Some(free) if free < proof_bytes(log2_height, LdeMode::Cached) => LdeMode::JustInTime,
            _ => planned,
        }
    }
}

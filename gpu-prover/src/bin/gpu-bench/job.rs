//! Real jobs: what neptune-core writes to its prover.

use std::path::Path;

use gpu_prover::trace::Trace;
use serde::Deserialize;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::{Claim, NonDeterminism, Program, PublicInput, VM};

use crate::Outcome;

/// A job of `NeptuneProverJob`'s JSON; fields that only matter to other provers are skipped.
#[derive(Deserialize)]
pub struct Job {
    #[serde(skip)]
    name: String,
    program: Program,
    /// What is proven.
    pub claim: Claim,
    non_determinism: NonDeterminism,
}

impl Job {
    /// Reads a job from a JSON file, compressed if its name ends in `.zst`.
    pub fn read(file: &str) -> Outcome<Self> {
        let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
        let compressed = Path::new(file).extension().is_some_and(|extension| extension == "zst");
        let bytes = if compressed { zstd::decode_all(bytes.as_slice())? } else { bytes };
        let mut job: Self = serde_json::from_slice(&bytes).map_err(|error| format!("{file}: {error}"))?;
        let name = Path::new(file).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.split('.').next().unwrap_or_default().clone_into(&mut job.name);
        Ok(job)
    }

    /// The file's name without extensions.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn input(&self) -> PublicInput {
        PublicInput::new(self.claim.input.clone())
    }

    /// The trace by our own tracer.
    pub fn trace(&self) -> Outcome<Trace> {
        let trace = Trace::execute(self.program.clone(), self.input(), self.non_determinism.clone())?;
        if trace.claim() == self.claim { Ok(trace) } else { Err("the program proves another claim".into()) }
    }

    /// The trace by the crate.
    pub fn crate_trace(&self) -> Outcome<AlgebraicExecutionTrace> {
        let (aet, _) = VM::trace_execution(self.program.clone(), self.input(), self.non_determinism.clone())?;
        Ok(aet)
    }
}

//! How large a job is: the exact heights of all its tables, from its execution trace alone.

use std::fmt;

use prover_api::ProverJob;
use triton_vm::isa::op_stack::OpStackError;
use triton_vm::prelude::{InstructionError, TableId, VM};

/// Rows that a job needs, before padding.
///
/// The processor's cycle count alone is not enough: the RAM table of a SingleProof and the Cascade table of a leaf job
/// are often the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heights {
    /// The table that needs most rows.
    pub longest: TableId,
    /// How many it needs.
    pub rows: usize,
}

impl Heights {
    /// Base-2 logarithm of the padded height: all tables are padded to the next power of two of the longest.
    pub fn log2_padded_height(self) -> u32 {
        self.rows.next_power_of_two().ilog2()
    }
}

impl fmt::Display for Heights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.rows, self.longest)
    }
}

/// Why a job has no trace.
///
/// The VM's own error shows its stack and memory, which hold the job's secrets; only the instruction's kind of failure
/// is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// The program stops with an error.
    #[error("the program does not halt gracefully: {0}")]
    ProgramFailed(&'static str),
    /// The program runs, and says something else than claimed.
    #[error("the program's output is not the claim's; claim what it says, or look for a wrong input")]
    OutputMismatch,
    /// The claim is about another program.
    #[error("the claim is about another program: the digests differ")]
    DigestMismatch,
}

/// Runs the job's program and counts the rows of its trace. Proves nothing.
///
/// Takes a second for a leaf job and 1.7 GB and ten to thirty seconds for a SingleProof on two cores.
///
/// # Errors
///
/// [`TraceError`] when the program fails or contradicts its claim.
pub fn heights(job: ProverJob) -> Result<Heights, TraceError> {
    if job.program.hash() != job.claim.program_digest {
        return Err(TraceError::DigestMismatch);
    }
    let input = job.claim.input.clone().into();
    let (trace, output) = VM::trace_execution(job.program, input, job.non_determinism)
        .map_err(|error| TraceError::ProgramFailed(kind_of_failure(&error.source)))?;
    if output != job.claim.output {
        return Err(TraceError::OutputMismatch);
    }
    let longest = trace.height();
    Ok(Heights { longest: longest.table, rows: longest.height })
}

/// What went wrong, without the values that it went wrong with.
pub fn kind_of_failure(error: &InstructionError) -> &'static str {
    match error {
        InstructionError::AssertionFailed(_) => "an assertion does not hold",
        InstructionError::VectorAssertionFailed(..) => "a vector assertion does not hold",
        InstructionError::EmptyPublicInput(_) => "it reads more public input than the claim gives",
        InstructionError::EmptySecretInput(_) => "it divines more secret input than the job gives",
        InstructionError::EmptySecretDigestInput => "it needs more secret digests than the job gives",
        InstructionError::OpStackError(OpStackError::TooShallow) => "its op stack runs empty",
        InstructionError::OpStackError(OpStackError::FailedU32Conversion(_)) => "a number is not a u32 where one is needed",
        InstructionError::JumpStackIsEmpty => "it returns without a call",
        InstructionError::MachineHalted => "it runs on after halt",
        InstructionError::InverseOfZero | InstructionError::DivisionByZero => "it divides by zero",
        _ => "an instruction cannot be executed",
    }
}

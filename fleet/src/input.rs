//! What a person hands to `fleet prove`: a job, a program or a transaction, told apart by what it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use prover_api::{MAX_JOB_BYTES, MalformedJob, ProverJob};

use crate::program::{self, ProgramError};
use crate::transaction::file::{self, TransactionFileError};

/// One file, understood.
#[derive(Debug)]
pub enum Work {
    /// A prover job as neptune-core writes it, or one made from a program.
    Job(Box<ProverJob>),
    /// A transaction: several jobs, and a collection at the end.
    Transaction(Box<PrimitiveWitness>),
}

/// Inputs for a Triton assembly program.
#[derive(Debug, Clone, Default)]
pub struct ProgramInputs {
    /// Public input as typed.
    pub public: String,
    /// File of the secret input.
    pub secret: Option<PathBuf>,
}

/// Why a file gives nothing to prove.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The file system says no.
    #[error("cannot read {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// Larger than a pod takes.
    #[error("{}: larger than {} MiB, the limit of a job", .0.display(), MAX_JOB_BYTES >> 20)]
    TooLarge(PathBuf),
    /// A program, or its input, is wrong.
    #[error("{}", path.display())]
    Program {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        source: ProgramError,
    },
    /// A transaction file of another version, or damaged.
    #[error("{}", path.display())]
    Transaction {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        source: TransactionFileError,
    },
    /// Neither of the three.
    #[error("{} is no prover job (JSON), no transaction file (JSON) and no Triton assembly program (NAME.tasm)", path.display())]
    Job {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        source: MalformedJob,
    },
    /// Inputs for something that takes none.
    #[error("{}: --input and --secret-file are for programs (NAME.tasm); a job and a transaction bring their own", .0.display())]
    SuperfluousInputs(PathBuf),
}

/// Reads a file: `NAME.tasm` is a program, a JSON object with the transaction format's mark a transaction, any other JSON a
/// prover job.
///
/// # Errors
///
/// [`InputError`]; no message quotes a secret.
pub fn read(path: &Path, inputs: &ProgramInputs) -> Result<Work, InputError> {
    let bytes = read_bounded(path)?;
    let at = || path.to_owned();
    if path.extension().is_some_and(|extension| extension == "tasm") {
        let failed = |source| InputError::Program { path: at(), source };
        let code = String::from_utf8_lossy(&bytes);
        let program = program::assemble(&code).map_err(failed)?;
        let public = program::public_input(&inputs.public).map_err(failed)?;
        let secret = match &inputs.secret {
            None => triton_vm::prelude::NonDeterminism::default(),
            Some(path) => program::secret_input(&read_bounded(path)?)
                .map_err(|source| InputError::Program { path: path.clone(), source })?,
        };
        return program::job(program, public, secret).map(|job| Work::Job(Box::new(job))).map_err(failed);
    }
    if !inputs.public.is_empty() || inputs.secret.is_some() {
        return Err(InputError::SuperfluousInputs(at()));
    }
    if file::is_transaction(&bytes) {
        let witness = file::parse(&bytes).map_err(|source| InputError::Transaction { path: at(), source })?;
        return Ok(Work::Transaction(Box::new(witness)));
    }
    ProverJob::from_json(&bytes).map(|job| Work::Job(Box::new(job))).map_err(|source| InputError::Job { path: at(), source })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, InputError> {
    let io_error = |source| InputError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io_error)?.take(MAX_JOB_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io_error)?;
    if bytes.len() > MAX_JOB_BYTES {
        return Err(InputError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::example::{self, Shape};

    #[test]
    fn each_kind_is_told_by_its_content() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        let none = ProgramInputs::default();

        std::fs::write(at("double.tasm"), "read_io 1 push 2 mul write_io 1 halt").expect("writable");
        let inputs = ProgramInputs { public: "21".to_owned(), secret: None };
        let Ok(Work::Job(job)) = read(&at("double.tasm"), &inputs) else { panic!("a program") };
        assert_eq!(42, job.claim.output[0].value());
        assert!(matches!(read(&at("double.tasm"), &none), Err(InputError::Program { .. })), "it wants an input");

        std::fs::write(at("job.json"), job.to_json().expect("serializes")).expect("writable");
        let Ok(Work::Job(again)) = read(&at("job.json"), &none) else { panic!("a job") };
        assert_eq!(job.id(), again.id());
        assert!(matches!(read(&at("job.json"), &inputs), Err(InputError::SuperfluousInputs(_))));

        let witness = example::transaction(Shape { inputs: 1, outputs: 1, announcements: 0 }).expect("a small shape");
        file::write(&at("tx.json"), &witness).expect("writable");
        let Ok(Work::Transaction(read_witness)) = read(&at("tx.json"), &none) else { panic!("a transaction") };
        assert_eq!(witness, *read_witness);

        std::fs::write(at("other.json"), "{}").expect("writable");
        assert!(matches!(read(&at("other.json"), &none), Err(InputError::Job { .. })));
        assert!(matches!(read(&at("nothing.json"), &none), Err(InputError::Io { .. })));
    }
}

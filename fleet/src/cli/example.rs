//! `fleet example`

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::transaction::example::{self, Shape};
use crate::transaction::file;

#[derive(Debug, clap::Args)]
pub struct Example {
    /// Where to write the transaction; never overwritten
    file: PathBuf,
    /// UTXOs that it spends
    #[arg(long, default_value_t = 1)]
    inputs: usize,
    /// UTXOs that it makes
    #[arg(long, default_value_t = 2)]
    outputs: usize,
    /// Public announcements
    #[arg(long, default_value_t = 1)]
    announcements: usize,
}

impl Example {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { file: path, inputs, outputs, announcements } = self;
        let witness = example::transaction(Shape { inputs, outputs, announcements })?;
        file::write(&path, &witness).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}: {inputs} in, {outputs} out; next: fleet prove {0} --output proofs", path.display());
        Ok(ExitCode::SUCCESS)
    }
}

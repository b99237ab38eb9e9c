//! A local prover, for when no pod helps.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

use crate::input::Input;

/// The variable by which neptune-prover would call this program again, and so on for ever.
const HOOK: &str = "NEPTUNE_PROVER_PROXY";

/// Starts the prover with the job as it came. It inherits standard output and error; its exit code is the result, `None` when a
/// signal ended it. Dropping the future kills it.
///
/// # Errors
/// When it does not start.
pub async fn prove(prover: &Path, input: Input) -> anyhow::Result<Option<i32>> {
    let mut command = Command::new(prover);
    command.env_remove(HOOK).stdin(Stdio::piped()).kill_on_drop(true);
    // SAFETY: between fork and exec only prctl is called, a system call that neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(|| {
            // Killed outright, this process could not take its prover with it.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(std::io::Error::from)
        });
    }
    let mut child = command.spawn().with_context(|| format!("the fallback {} does not start", prover.display()))?;
    let stdin = child.stdin.take().context("the fallback has no standard input")?.into_owned_fd()?;
    let fed = tokio::task::spawn_blocking(move || {
        let pipe = std::fs::File::from(stdin);
        input.write_as_it_came(std::io::BufWriter::new(pipe))
    });
    let status = child.wait().await.context("the fallback is lost")?;
    if let Ok(Err(error)) = fed.await {
        // Its exit code tells the outcome; it may well have seen enough.
        tracing::debug!(%error, "the fallback did not read the whole job");
    }
    Ok(status.code())
}

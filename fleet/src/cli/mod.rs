//! The command line: what is typed, and who does it.

mod example;
mod explain;
mod local;
mod prove;
mod status;
mod verify;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// Proof upgrading for Neptune Cash and XNT, from the command line.
#[derive(Debug, Parser)]
#[command(name = "fleet", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Proves a job, a Triton assembly program or a whole transaction on prover pods
    Prove(prove::Prove),
    /// Runs a fleet's manifest as processes of this machine: prover pods, upgraders with their shards, a dev node if wanted
    Local(local::Local),
    /// Shows pods, devices, queues and capacity, and the upgraders of a fleet on this machine
    Status(status::Status),
    /// Says what upgraders do with a transaction, and why not
    Explain(explain::Explain),
    /// Checks proofs against their claims, and a proof collection against the rules of the chain
    Verify(verify::Verify),
    /// Writes a valid example transaction that spends nothing, for `fleet prove`
    Example(example::Example),
    /// Prints the completion script of a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

impl Cli {
    /// Does what was typed. The exit code is 0 when all went well, 1 when something was found wrong.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way, in words for a person.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Prove(prove) => prove.run().await,
            Command::Local(local) => local.run().await,
            Command::Status(status) => status.run().await,
            Command::Explain(explain) => explain.run().await,
            Command::Verify(verify) => verify.run().await,
            Command::Example(example) => example.run(),
            Command::Completion { shell } => {
                clap_complete::generate(shell, &mut Self::command(), "fleet", &mut io::stdout());
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_shell_has_a_completion_script() {
        for shell in [Shell::Bash, Shell::Elvish, Shell::Fish, Shell::PowerShell, Shell::Zsh] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "fleet", &mut script);
            let script = String::from_utf8(script).expect("scripts are text");
            assert!(script.contains("verify"), "{shell}");
        }
    }
}

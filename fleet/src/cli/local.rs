//! `fleet local`

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::local::directory::default_path;
use crate::local::machine::Programs;
use crate::local::run::{Options, run};

/// Runs a fleet's manifest as processes of this machine
///
/// Reads the UpgraderFleet that `kubectl apply` takes: prover pods by device, an upgrader for each shard, and the node that they
/// watch by its address, or a dev node with mock proofs. Processes that end are started again. Ctrl-C lets them finish and ends
/// them in order; a second one kills. `fleet status` and `fleet explain TXID` ask the fleet from another terminal.
#[derive(Debug, clap::Args)]
pub struct Local {
    /// The manifest (YAML); - reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Start a dev node with mock proofs for the fleet, instead of the manifest's node: to try things out
    #[arg(long)]
    devnet: bool,
    /// The only directory that is written to: logs, secrets, state [default: $XDG_STATE_HOME/upgrader-fleet]
    #[arg(long, value_name = "DIR", env = "UPGRADER_FLEET_DIR")]
    dir: Option<PathBuf>,
    /// Where pods and upgraders listen. They speak plain HTTP, and pods see what they prove
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    listen: IpAddr,
    /// First of as many ports in a row as there are processes; 0 takes any free ones
    #[arg(long, value_name = "PORT", default_value_t = 9820)]
    port_base: u16,
    /// Folder with prover-pod, upgrader and dev-node [default: where fleet is, then the PATH]
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// File with the secret that the upgraders share, 32 characters at least [default: one is made in --dir]
    #[arg(long, value_name = "FILE")]
    fleet_secret_file: Option<PathBuf>,
    /// Only say what would be started
    #[arg(long)]
    dry_run: bool,
}

impl Local {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        run(Options {
            file: self.file,
            devnet: self.devnet,
            dir: self.dir.unwrap_or_else(default_path),
            listen: self.listen,
            port_base: self.port_base,
            programs: Programs { folder: self.binaries },
            secret_file: self.fleet_secret_file,
            dry_run: self.dry_run,
        })
        .await
    }
}

//! The command `fleet`.

use std::process::ExitCode;

use clap::Parser;
use fleet::cli::Cli;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    // neptune-consensus logs what it finds wrong in a witness, values included: secrets, which no log may hold.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let quiet = "neptune_consensus::transaction::primitive_witness=off".parse();
    let filter = quiet.map_or_else(|_| EnvFilter::new("error"), |quiet| filter.add_directive(quiet));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    cli.run().await.unwrap_or_else(|error| {
        eprintln!("fleet: {error:#}");
        ExitCode::FAILURE
    })
}

//! `make bench`: what the service costs, measured on this machine.
//!
//! The time that a proof takes through HTTP over the time of the bare prover; the time to enqueue a job while thousands wait; the
//! memory of an idle pod and of one with a long queue; the start of `prover-proxy`; what an upgrader adds to its proofs. Each
//! section can be run alone: `fleet-bench overhead`.

mod overhead;
mod proxy;
mod queue;
mod spread;
mod upgrader;

use std::process::ExitCode;

use anyhow::Result;
use upgrader_fleet_tests::machine::{Machine, gib};

/// What there is to measure.
const SECTIONS: [&str; 4] = ["overhead", "queue", "proxy", "upgrader"];

#[tokio::main]
async fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        eprintln!("bench: no section `{unknown}`; there are {}", SECTIONS.join(", "));
        return ExitCode::from(2);
    }
    match run(|name| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(wanted: impl Fn(&str) -> bool) -> Result<()> {
    let machine = Machine::look();
    println!("machine   {} cores, {} of memory, {} free", machine.cores, gib(machine.memory), gib(machine.available));
    if wanted("overhead") {
        overhead::measure().await?;
    }
    if wanted("queue") {
        queue::measure().await?;
    }
    if wanted("proxy") {
        proxy::measure()?;
    }
    if wanted("upgrader") {
        upgrader::measure().await?;
    }
    Ok(())
}

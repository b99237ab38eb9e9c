//! `make bench`: what the service costs, measured on this machine.
//!
//! The time that a proof takes through HTTP over the time of the bare prover; the time to enqueue a job while thousands wait; the
//! memory of an idle pod and of one with a long queue; the start of `prover-proxy`; what an upgrader adds to its proofs. Each
//! section can be run alone: `fleet-bench overhead`. `fleet-bench raises-gpu` and `raises-cpu` (which needs 60 GiB and ten
//! minutes a round) count the paid raises an hour of one pod, their own or that of a URL, one after the other, and
//! `fleet-bench sustained-gpu` those that follow each other without a pause; they only run when named.

mod overhead;
mod proxy;
mod queue;
mod raises;
mod spread;
mod upgrader;

use std::process::ExitCode;

use anyhow::Result;
use upgrader_fleet_tests::machine::{Machine, gib};

/// What there is to measure.
const SECTIONS: [&str; 4] = ["overhead", "queue", "proxy", "upgrader"];

/// What only runs when it is named: it wants another machine than most have.
const NAMED: [&str; 3] = ["raises-gpu", "sustained-gpu", "raises-cpu"];

#[tokio::main]
async fn main() -> ExitCode {
    let (urls, wanted): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|word| word.starts_with("http"));
    if let Some(unknown) = wanted.iter().find(|name| !SECTIONS.iter().chain(&NAMED).any(|known| known == name)) {
        eprintln!("bench: no section `{unknown}`; there are {}", SECTIONS.join(", "));
        return ExitCode::from(2);
    }
    let is_named = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let is_wanted = |name: &str| is_named(name) || (wanted.is_empty() && SECTIONS.contains(&name));
    match run(is_wanted, urls.first().map(String::as_str)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(wanted: impl Fn(&str) -> bool, url: Option<&str>) -> Result<()> {
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
    for backend in ["gpu", "cpu"] {
        if wanted(&format!("raises-{backend}")) {
            raises::measure(backend, url).await?;
        }
    }
    if wanted("sustained-gpu") {
        raises::sustained("gpu", url).await?;
    }
    Ok(())
}

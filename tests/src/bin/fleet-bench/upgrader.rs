//! What an upgrader costs beside the proofs: the time from a transaction's appearance to the submission of its SingleProof when
//! proofs take no time; its memory with a full mempool, and that of the jobs; what it asks of the node at rest and for each upgrade.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use upgrader_fleet_tests::pods::{binary, own_resident_bytes};
use upgrader_fleet_tests::upgraders::Fleet;

use crate::spread::{Spread, ms};

/// Transactions whose way is timed.
const TIMED: usize = 40;

/// Collections in a full mempool.
const FULL: usize = 2_000;

/// How often the upgrader looks; part of the figure.
const POLL: Duration = Duration::from_millis(100);

/// How long the resting upgrader is watched.
const REST: Duration = Duration::from_secs(30);

pub async fn measure() -> Result<()> {
    latency().await?;
    rest().await?;
    jobs()
}

/// The memory that the jobs of real upgrades take while they are made, by the upgrader's own code, one after the other. With mock
/// proofs no job is made.
fn jobs() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let began = Instant::now();
    let mut making = Command::new(binary("upgrade-jobs")?).arg(folder.path()).stdout(Stdio::null()).spawn()?;
    let mut peak = 0;
    let status = loop {
        if let Some(status) = making.try_wait()? {
            break status;
        }
        // It may end in between.
        peak = own_resident_bytes(making.id()).map_or(peak, |bytes| bytes.max(peak));
        std::thread::sleep(Duration::from_millis(5));
    };
    anyhow::ensure!(status.success(), "upgrade-jobs ended with {status}");
    println!(
        "          {:.0} MiB at most while the jobs of a raise (2^22), a gobbler, a merge and an update are made, {:.1} s in all",
        peak as f64 / f64::from(1 << 20),
        began.elapsed().as_secs_f64(),
    );
    Ok(())
}

async fn latency() -> Result<()> {
    let mut fleet = Fleet::start(TIMED + 3, 1).await?;
    fleet.upgrade(&["--min-gobbling-fee", "0", "--mock-proof-time", "0ms"])?;
    fleet.until("ready", Duration::from_secs(20), |fleet| fleet.upgraders[0].log().contains("provers are ready")).await?;
    let mut measured = Vec::with_capacity(TIMED + 1);
    for _ in 0..=TIMED {
        let before = fleet.node.submissions().0;
        let began = Instant::now();
        fleet.send("1")?;
        fleet.until("submitted", Duration::from_secs(20), |fleet| fleet.node.submissions().0 > before).await?;
        measured.push(began.elapsed());
        // A block takes the result, so that the next transaction finds an empty mempool and no partner to merge with.
        fleet.node.chain().mine(usize::MAX)?;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let (calls, bytes) = asked(&fleet).await?;
    // Upgrader and node assemble the programs that they need when they need them first.
    let first = measured.remove(0);
    let spread = Spread::of(measured);
    println!(
        "upgrader  p50 {}, p99 {}: from a transaction in the mempool to its SingleProof submitted, proofs of 0 ms, polling every {} \
         ({TIMED} raises, after a first one of {})",
        ms(spread.quantile(0.5)),
        ms(spread.quantile(0.99)),
        ms(POLL),
        ms(first),
    );
    println!(
        "          {:.0} kB from the node for each raise, {:.0} calls, polling included",
        bytes / (TIMED + 1) as f64 / 1e3,
        calls / (TIMED + 1) as f64
    );
    Ok(())
}

async fn rest() -> Result<()> {
    let mut fleet = Fleet::start(FULL + 2, 1).await?;
    for _ in 0..FULL {
        fleet.send("0.001")?; // too little to be raised
    }
    fleet.upgrade(&["--fee-address", &upgrader_fleet_tests::upgraders::fee_address()?, "--poll-interval", "1s"])?;
    let known = format!("upgrader_passed_over{{reason=\"fee-too-low\"}} {FULL}");
    let began = Instant::now();
    loop {
        let text = upgrader_fleet_tests::http::client()?
            .get(format!("{}/metrics", fleet.upgraders[0].url()))
            .send()
            .await?
            .text()
            .await?;
        if text.contains(&known) {
            break;
        }
        anyhow::ensure!(began.elapsed() < Duration::from_mins(5), "the upgrader does not get to know the mempool");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let learned = began.elapsed();
    let (calls, bytes) = asked(&fleet).await?;
    tokio::time::sleep(REST).await;
    let (later_calls, later_bytes) = asked(&fleet).await?;
    let minutes = REST.as_secs_f64() / 60.0;
    let memory = own_resident_bytes(fleet.upgraders.first().context("one runs")?.pid())?;
    println!(
        "          {:.1} MiB resident with {FULL} collections in the mempool, known after {:.1} s; at rest {:.0} calls and {:.1} MB a minute, \
         polling every second",
        memory as f64 / f64::from(1 << 20),
        learned.as_secs_f64(),
        (later_calls - calls) / minutes,
        (later_bytes - bytes) / minutes / 1e6,
    );
    Ok(())
}

/// Calls and bytes received so far.
async fn asked(fleet: &Fleet) -> Result<(f64, f64)> {
    let upgrader = &fleet.upgraders[0];
    let text = upgrader_fleet_tests::http::client()?.get(format!("{}/metrics", upgrader.url())).send().await?.text().await?;
    let sum = |name: &str, label: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    Ok((sum("upgrader_node_calls{", ""), sum("upgrader_node_bytes{", "direction=\"received\"")))
}

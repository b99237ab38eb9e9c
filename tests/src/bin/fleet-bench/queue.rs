//! A long queue on the mock backend: how long it takes to get in, and what it costs in memory.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prover_api::{Capacity, JobKind, MockJob, headers};
use triton_vm::prelude::{BFieldElement, Claim, Digest};
use upgrader_fleet_tests::http;
use upgrader_fleet_tests::machine::gib;
use upgrader_fleet_tests::pods::{Pod, own_resident_bytes, resident_bytes};

use crate::spread::{Spread, ms};

/// Clients at once, each with a connection of its own.
const CLIENTS: u64 = 200;

/// Jobs in the queue at the end.
const JOBS: u64 = 10_000;

/// So long that no job ends while we measure.
const DURATION_MS: u64 = 3_600_000;

pub async fn measure() -> Result<()> {
    let mut pod = Pod::start(&["--backend", "mock", "--network", "regtest"])?;
    pod.ready().await?;
    let (idle, idle_all) = (own_resident_bytes(pod.pid())?, resident_bytes(pod.pid())?);

    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|client| tokio::spawn(enqueue(pod.url().to_owned(), client))).collect();
    let mut measured = Vec::with_capacity(JOBS as usize);
    for client in clients {
        measured.extend(client.await??);
    }
    let whole = began.elapsed();
    let capacity: Capacity =
        http::client()?.get(format!("{}/v1/capacity", pod.url())).send().await?.error_for_status()?.json().await?;
    let queued: usize = capacity.queue.values().map(|waiting| waiting.jobs).sum();
    ensure!(queued + capacity.running == JOBS as usize, "{queued} queued and {} running of {JOBS}", capacity.running);
    let (full, full_all) = (own_resident_bytes(pod.pid())?, resident_bytes(pod.pid())?);

    let spread = Spread::of(measured);
    println!(
        "enqueue   p50 {}, p99 {}, worst {}: {JOBS} jobs by {CLIENTS} clients at once in {:.1} s ({:.0} a second), {queued} queued",
        ms(spread.quantile(0.5)),
        ms(spread.quantile(0.99)),
        ms(spread.max()),
        whole.as_secs_f64(),
        JOBS as f64 / whole.as_secs_f64(),
    );
    println!(
        "memory    idle {} ({} with its worker); with that queue {} ({}), of which {} are job bodies",
        mib(idle),
        mib(idle_all),
        mib(full),
        mib(full_all),
        mib(capacity.body_bytes),
    );
    println!("          job bodies are bounded at {}; past it jobs get 429", gib(capacity.max_body_bytes));
    Ok(())
}

/// One client's share of the jobs, one after the other; the time of each.
async fn enqueue(pod: String, client: u64) -> Result<Vec<Duration>> {
    let http = http::client()?;
    let mut measured = Vec::new();
    for number in 0..JOBS / CLIENTS {
        let salt = client * JOBS + number;
        let claim = Claim::new(Digest::default()).with_input(vec![BFieldElement::new(salt)]);
        let job = MockJob { claim, kind: JobKind::Raise, log2_padded_height: 21, duration_ms: DURATION_MS };
        let body = serde_json::to_vec(&job)?;
        let request = http
            .post(format!("{pod}/v1/proofs"))
            .header("content-type", "application/json")
            .header("prefer", "respond-async")
            .header(headers::CLIENT_ID, format!("bench-{client}"))
            .body(body);
        let began = Instant::now();
        let answer = request.send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        measured.push(began.elapsed());
        ensure!(status == reqwest::StatusCode::ACCEPTED, "{status}: {text}");
    }
    Ok(measured)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

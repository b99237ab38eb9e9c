//! The published `neptune-prover`, unmodified, with our proxy in its hook. Runs when `make real-node` has built it; says so
//! when not: it takes 25 minutes once.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet::transaction::{Leaf, ProofCollectionPlan, example};
use prover_api::{JobState, ProverJob, proof};
use upgrader_fleet_tests::fixtures;
use upgrader_fleet_tests::http::{status, wait_for};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::{Pod, binary, signal};
use upgrader_fleet_tests::realnode::program;

/// As neptune-core starts it: the job on standard input, to its end.
fn start(prover: &Path, pod: &Pod, job: &[u8]) -> Result<Child> {
    let mut child = Command::new(prover)
        .env("NEPTUNE_PROVER_PROXY", binary("prover-proxy")?)
        .env("PROVER_PROXY_ENDPOINTS", pod.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("is piped")?.write_all(job)?;
    Ok(child)
}

async fn run(prover: &Path, pod: &Pod, job: &ProverJob) -> Result<Output> {
    let child = start(prover, pod, &bytes(job))?;
    Ok(tokio::task::spawn_blocking(move || child.wait_with_output()).await??)
}

async fn leaf(leaf: Leaf) -> Result<ProverJob> {
    let plan = ProofCollectionPlan::new(&example::transaction(fixtures::STORED)?).await?;
    let job = plan.jobs.into_iter().find(|job| job.leaf == leaf).context("every transaction has it")?;
    Ok(job.job)
}

#[tokio::test]
async fn the_published_neptune_prover_gets_a_real_proof_from_a_pod() -> Result<()> {
    let Some(prover) = program("neptune-prover") else { return Ok(()) };
    let mut pod = Pod::start(&[])?;
    pod.ready().await?;
    for job in [leaf(Leaf::LockScript(0)).await?, leaf(Leaf::CollectLockScripts).await?] {
        let ended = run(&prover, &pod, &job).await?;
        let log = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.code() == Some(0), "{log}");
        ensure!(proof::verify(&job.claim, &ended.stdout).is_ok(), "{log}");
        ensure!(log.contains(&format!("job {}", job.id())), "{log}");
        let made_here = status(pod.url(), job.id()).await?.context("the pod knows it")?;
        ensure!(made_here.state == JobState::Done, "{made_here:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_exit_code_of_a_job_too_big_passes_through() -> Result<()> {
    let Some(prover) = program("neptune-prover") else { return Ok(()) };
    let mut pod = Pod::start(&[])?;
    pod.ready().await?;
    let mut job = leaf(Leaf::CollectLockScripts).await?;
    job.max_log2_padded_height = Some(11);
    let ended = run(&prover, &pod, &job).await?;
    ensure!(ended.status.code() == Some(212), "{:?} {}", ended.status, String::from_utf8_lossy(&ended.stderr));
    ensure!(ended.stdout.is_empty());
    Ok(())
}

#[tokio::test]
async fn killing_it_stops_the_job_at_the_pod() -> Result<()> {
    let Some(prover) = program("neptune-prover") else { return Ok(()) };
    let mut pod = Pod::start(&[])?;
    pod.ready().await?;
    let job = of_height(17, 700);
    let mut child = start(&prover, &pod, &bytes(&job))?;
    wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    // What the node does to cancel a proof.
    signal(child.id(), "KILL")?;
    let before = Instant::now();
    child.wait()?;
    wait_for(pod.url(), job.id(), &[JobState::Cancelled]).await?;
    ensure!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    Ok(())
}

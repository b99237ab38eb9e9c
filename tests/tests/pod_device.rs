//! A pod on a real GPU: what cannot be seen with a fake one. Without a device each test says so and ends, unless
//! `REQUIRE_GPU=1`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gpu_prover::cuda::{device_count, facts};
use prover_api::{DeviceInfo, JobState, proof};
use reqwest::{Method, StatusCode};
use upgrader_fleet_tests::http::{devices, post, problem, send, status, wait_for};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::{Pod, binary};

const ASYNC: (&str, &str) = ("prefer", "respond-async");

/// Whether there is a device; an error where one is required.
fn has_gpu() -> Result<bool> {
    let has = facts::has_kernels() && device_count().is_ok_and(|count| count > 0);
    ensure!(has || std::env::var("REQUIRE_GPU").as_deref() != Ok("1"), "REQUIRE_GPU=1, and there is no GPU or no kernel");
    if !has {
        println!("skipped: no GPU, or built without kernels");
    }
    Ok(has)
}

async fn gpu(pod: &Pod) -> Result<DeviceInfo> {
    devices(pod.url()).await?.into_iter().find(|device| device.backend == "gpu").context("no GPU")
}

#[tokio::test]
async fn a_cancelled_proof_frees_the_device_and_its_process_lives() -> Result<()> {
    if !has_gpu()? {
        return Ok(());
    }
    let mut pod = Pod::start(&["--backend", "gpu", "--cpu-jobs", "0"])?;
    pod.ready().await?;
    let before = gpu(&pod).await?;
    for (round, log2_height) in [18, 20, 21].into_iter().enumerate() {
        let (job, next) = (of_height(log2_height, 400 + round as u64), of_height(12, 410 + round as u64));
        post(pod.url(), bytes(&job), &[ASYNC, ("x-client-id", "me")]).await?;
        wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
        let url = format!("{}/v1/proofs/{}", pod.url(), job.id());
        let began = Instant::now();
        ensure!(send(Method::DELETE, &url, None, &[("x-client-id", "me")]).await?.status() == StatusCode::NO_CONTENT);
        ensure!(status(pod.url(), job.id()).await?.is_some_and(|status| status.state == JobState::Cancelled));
        let answer = post(pod.url(), bytes(&next), &[]).await?;
        ensure!(answer.status() == StatusCode::OK, "{:?}", problem(answer).await?);
        ensure!(proof::verify(&next.claim, &answer.bytes().await?).is_ok());
        println!("2^{log2_height} cancelled; the next proof is there after {:.3} s", began.elapsed().as_secs_f64());
    }
    let after = gpu(&pod).await?;
    ensure!(after.pid == before.pid && after.restarts == 0 && !after.quarantined, "{before:?} {after:?}");
    Ok(())
}

#[tokio::test]
async fn a_device_that_makes_wrong_proofs_is_quarantined_and_none_leaves() -> Result<()> {
    if !has_gpu()? {
        return Ok(());
    }
    let faulty = binary("faulty-gpu")?;
    let faulty = faulty.to_str().context("is text")?;
    let mut pod = Pod::start(&["--backend", "gpu", "--worker-program", faulty, "--quarantine-after", "3"])?;
    pod.ready().await?;
    let deadline = Instant::now() + Duration::from_mins(2);
    let mut seed = 420;
    while !gpu(&pod).await?.quarantined {
        ensure!(Instant::now() < deadline, "{}", pod.log());
        seed += 1;
        // Each is proven on the device first; then the CPU makes it right.
        let job = of_height(10, seed);
        let answer = post(pod.url(), bytes(&job), &[]).await?;
        ensure!(answer.status() == StatusCode::OK, "{:?}", problem(answer).await?);
        ensure!(proof::verify(&job.claim, &answer.bytes().await?).is_ok(), "a wrong proof left the pod");
        let done = status(pod.url(), job.id()).await?.context("is known")?;
        ensure!(done.backend.as_deref() == Some("cpu"), "{done:?}");
    }
    let device = gpu(&pod).await?;
    ensure!(device.wrong_proofs == 3 && !device.ready, "{device:?}");
    let log = pod.whole_log()?;
    ensure!(log.contains("does not verify") && log.contains("the device is quarantined"), "{log}");
    Ok(())
}

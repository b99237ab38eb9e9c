//! Workers and pods that are killed, stopped, or wrong.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prover_api::client::{Client, JobBody, ProveOptions};
use prover_api::{JobState, ProblemType, proof};
use reqwest::{Method, StatusCode};
use upgrader_fleet_tests::http::{devices, post, problem, send, status, wait_for};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::{Pod, signal};

async fn pod(arguments: &[&str]) -> Result<Pod> {
    let mut pod = Pod::start(arguments)?;
    pod.ready().await?;
    Ok(pod)
}

async fn runner(url: &str, job: prover_api::JobId) -> Result<prover_api::DeviceInfo> {
    devices(url).await?.into_iter().find(|device| device.running.contains(&job)).context("runs somewhere")
}

async fn worker_of(url: &str, job: prover_api::JobId) -> Result<u32> {
    runner(url, job).await?.pid.context("is up")
}

#[tokio::test]
async fn a_killed_worker_costs_a_retry_elsewhere_and_the_caller_nothing() -> Result<()> {
    let pod = pod(&["--max-concurrent-jobs", "2", "--memory-limit", "4Gi"]).await?;
    let job = of_height(13, 100);
    let caller = tokio::spawn({
        let (url, body) = (pod.url().to_owned(), bytes(&job));
        async move { post(&url, body, &[]).await }
    });
    wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    let first = runner(pod.url(), job.id()).await?;
    signal(first.pid.context("is up")?, "KILL")?;
    let second = loop {
        match runner(pod.url(), job.id()).await {
            Ok(device) if device.worker != first.worker => break device,
            _ => ensure!(!caller.is_finished(), "it ran nowhere else"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let answer = caller.await??;
    ensure!(answer.status() == StatusCode::OK, "{}", pod.log());
    ensure!(proof::verify(&job.claim, &answer.bytes().await?).is_ok());
    let status = wait_for(pod.url(), job.id(), &[JobState::Done]).await?;
    ensure!(status.lost_runs == 1, "{status:?}, on {} and {}", first.worker, second.worker);
    let restarts = devices(pod.url()).await?.into_iter().map(|device| (device.worker == first.worker, device.restarts));
    ensure!(restarts.clone().all(|(killed, restarts)| restarts == u64::from(killed)), "{:?}", restarts.collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_job_that_kills_two_workers_fails_typed_and_the_pod_lives() -> Result<()> {
    let pod = pod(&[]).await?;
    let job = of_height(15, 101);
    let caller = tokio::spawn({
        let (url, body) = (pod.url().to_owned(), bytes(&job));
        async move { post(&url, body, &[]).await }
    });
    let mut killed = 0;
    while killed < 2 {
        wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
        if let Ok(pid) = worker_of(pod.url(), job.id()).await {
            // The first death may not be noticed yet: it can only happen once.
            killed += usize::from(signal(pid, "KILL").is_ok());
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    let lost = problem(caller.await??).await?;
    ensure!(lost.problem_type == ProblemType::WorkerLost, "{lost:?}");
    ensure!(post(pod.url(), bytes(&of_height(9, 102)), &[]).await?.status() == StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn a_stalled_worker_is_noticed_by_its_heart() -> Result<()> {
    let pod = pod(&["--heartbeat-timeout", "3"]).await?;
    let job = of_height(12, 103);
    let caller = tokio::spawn({
        let (url, body) = (pod.url().to_owned(), bytes(&job));
        async move { post(&url, body, &[]).await }
    });
    wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    let stalled = worker_of(pod.url(), job.id()).await?;
    signal(stalled, "STOP")?;
    let answer = caller.await??;
    ensure!(answer.status() == StatusCode::OK, "{}", pod.log());
    ensure!(wait_for(pod.url(), job.id(), &[JobState::Done]).await?.lost_runs == 1);
    Ok(())
}

#[tokio::test]
async fn workers_die_with_their_pod() -> Result<()> {
    let mut pod = pod(&[]).await?;
    let pid = devices(pod.url()).await?[0].pid.context("is up")?;
    pod.kill()?;
    let deadline = Instant::now() + Duration::from_secs(5);
    while std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("worker")) {
        ensure!(Instant::now() < deadline, "worker {pid} outlives its pod");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_whose_pod_is_killed_gets_its_proof_from_another() -> Result<()> {
    let mut pods = [pod(&[]).await?, pod(&[]).await?];
    let job = of_height(14, 104);
    let client = Client::builder().endpoints(pods.iter().map(Pod::url)).build()?;
    let caller = tokio::spawn({
        let body = JobBody::from_job(&job)?;
        async move { client.prove(body, ProveOptions::default()).await }
    });
    let deadline = Instant::now() + Duration::from_mins(1);
    let busy = 'found: loop {
        for (index, pod) in pods.iter().enumerate() {
            if status(pod.url(), job.id()).await?.is_some_and(|status| status.state == JobState::Proving) {
                break 'found index;
            }
        }
        ensure!(Instant::now() < deadline, "nobody proves");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    pods[busy].kill()?;
    let proved = caller.await??;
    ensure!(proved.pod == pods[1 - busy].url(), "{}", proved.pod);
    ensure!(proof::verify(&job.claim, &proved.bytes).is_ok());
    Ok(())
}

/// Cancelling kills the worker. That is no crash: the next job must not wait as after one.
#[tokio::test]
async fn many_cancellations_do_not_keep_the_device_away() -> Result<()> {
    let pod = pod(&[]).await?;
    let headers = [("prefer", "respond-async"), ("x-client-id", "me")];
    let before = Instant::now();
    for seed in 0..9 {
        let job = of_height(16, 110 + seed);
        ensure!(post(pod.url(), bytes(&job), &headers).await?.status() == StatusCode::ACCEPTED);
        wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
        let url = format!("{}/v1/proofs/{}", pod.url(), job.id());
        ensure!(send(Method::DELETE, &url, None, &headers).await?.status() == StatusCode::NO_CONTENT);
    }
    ensure!(post(pod.url(), bytes(&of_height(9, 120)), &[]).await?.status() == StatusCode::OK);
    // With the pauses that follow crashes alone it would be 51 seconds.
    ensure!(before.elapsed() < Duration::from_secs(30), "{:?}\n{}", before.elapsed(), pod.log());
    let metrics = send(Method::GET, &format!("{}/metrics", pod.url()), None, &[]).await?.text().await?;
    for (cause, count) in [("stopped", 9), ("died", 0)] {
        let line = format!(r#"prover_pod_worker_restarts_total{{cause="{cause}",worker="0"}} {count}"#);
        ensure!(metrics.contains(&line), "no `{line}` in\n{metrics}");
    }
    Ok(())
}

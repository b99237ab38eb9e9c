//! Workers that are killed, stopped, or wrong.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prover_api::{JobState, ProblemType, proof};
use reqwest::StatusCode;
use upgrader_fleet_tests::http::{devices, post, problem, wait_for};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::Pod;

async fn pod(arguments: &[&str]) -> Result<Pod> {
    let mut pod = Pod::start(arguments)?;
    pod.ready().await?;
    Ok(pod)
}

fn signal(pid: u32, name: &str) -> Result<()> {
    ensure!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status()?.success());
    Ok(())
}

async fn worker_of(url: &str, job: prover_api::JobId) -> Result<u32> {
    let devices = devices(url).await?;
    let device = devices.into_iter().find(|device| device.running.contains(&job)).context("runs somewhere")?;
    device.pid.context("is up")
}

#[tokio::test]
async fn a_killed_worker_costs_a_retry_and_the_caller_nothing() -> Result<()> {
    let pod = pod(&[]).await?;
    let job = of_height(12, 100);
    let caller = tokio::spawn({
        let (url, body) = (pod.url().to_owned(), bytes(&job));
        async move { post(&url, body, &[]).await }
    });
    wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    signal(worker_of(pod.url(), job.id()).await?, "KILL")?;
    let answer = caller.await??;
    ensure!(answer.status() == StatusCode::OK, "{}", pod.log());
    ensure!(proof::verify(&job.claim, &answer.bytes().await?).is_ok());
    let status = wait_for(pod.url(), job.id(), &[JobState::Done]).await?;
    ensure!(status.lost_runs == 1);
    ensure!(devices(pod.url()).await?[0].restarts == 1);
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

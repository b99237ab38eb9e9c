//! What a pod does with GPU workers. The GPU is a fake that walks through the stages; all around it is real.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gpu_prover::cuda::{device_count, facts};
use prover_api::{Capacity, DeviceInfo, JobState, JobStatus, ProblemType, ProverJob, proof};
use reqwest::{Method, StatusCode};
use upgrader_fleet_tests::http::{devices, post, problem, send, status, wait_for};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::{Pod, binary};

const ASYNC: (&str, &str) = ("prefer", "respond-async");

async fn pod(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Pod> {
    let fake = binary("fake-gpu")?;
    let fake = fake.to_str().context("is text")?;
    let mut pod =
        Pod::start_at("127.0.0.1:0", &[&["--backend", "gpu", "--worker-program", fake], arguments].concat(), environment)?;
    pod.ready().await?;
    while devices(pod.url()).await?.iter().any(|device| !device.ready) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(pod)
}

fn of_kind(devices: &[DeviceInfo], backend: &str) -> Vec<DeviceInfo> {
    devices.iter().filter(|device| device.backend == backend).cloned().collect()
}

async fn proven(pod: &Pod, job: &ProverJob, headers: &[(&str, &str)]) -> Result<JobStatus> {
    let answer = post(pod.url(), bytes(job), headers).await?;
    ensure!(answer.status() == StatusCode::OK, "{:?}\n{}", problem(answer).await?, pod.log());
    ensure!(proof::verify(&job.claim, &answer.bytes().await?).is_ok());
    status(pod.url(), job.id()).await?.context("is remembered")
}

#[tokio::test]
async fn each_gpu_has_a_worker_of_its_own_and_the_cpu_stands_by() -> Result<()> {
    let pod = pod(&["--num-gpus", "2"], &[("CUDA_VISIBLE_DEVICES", "5,MIG-1f2e")]).await?;
    let all = devices(pod.url()).await?;
    let gpus = of_kind(&all, "gpu");
    let shown: Vec<&str> = gpus.iter().filter_map(|device| Some(device.gpu.as_ref()?.visible_device.as_str())).collect();
    ensure!(shown == ["5", "MIG-1f2e"], "{all:?}");
    ensure!(gpus.iter().all(|gpu| gpu.max_log2_padded_height == 12 && gpu.slots == 1), "{gpus:?}");
    ensure!(gpus.iter().all(|device| device.gpu.as_ref().is_some_and(|gpu| gpu.jobs_ahead == 1)), "two jobs at once: {gpus:?}");
    ensure!(of_kind(&all, "cpu").len() == 1);
    let capacity: Capacity = send(Method::GET, &format!("{}/v1/capacity", pod.url()), None, &[]).await?.json().await?;
    ensure!(capacity.backends == ["cpu", "gpu"] && capacity.slots == 3 && capacity.idle, "{capacity:?}");

    let done = proven(&pod, &of_height(9, 300), &[]).await?;
    ensure!(done.backend.as_deref() == Some("gpu") && done.device.as_deref() == Some("fake GPU"), "{done:?}");
    ensure!(pod.whole_log()?.contains("[HYBRID] Padded height 2^9, using GPU execution"), "{}", pod.log());
    let on_cpu = proven(&pod, &of_height(9, 301), &[("x-force-cpu", "true")]).await?;
    ensure!(on_cpu.backend.as_deref() == Some("cpu"), "{on_cpu:?}");
    ensure!(pod.whole_log()?.contains("[HYBRID] Forcing CPU execution"), "{}", pod.log());
    Ok(())
}

#[tokio::test]
async fn the_next_job_is_traced_while_the_gpu_proves_and_stages_are_told() -> Result<()> {
    let pod = pod(&[], &[("FAKE_GPU_STAGE_MS", "400")]).await?;
    let (first, second) = (of_height(9, 310), of_height(9, 311));
    post(pod.url(), bytes(&first), &[ASYNC]).await?;
    wait_for(pod.url(), first.id(), &[JobState::Proving]).await?;
    post(pod.url(), bytes(&second), &[ASYNC]).await?;
    wait_for(pod.url(), second.id(), &[JobState::Traced]).await?;
    let (mut stages, mut progress) = (Vec::new(), 0.0);
    loop {
        // In this order: as long as the first one proves now, the second one did not before.
        let other = status(pod.url(), second.id()).await?.context("is known")?;
        let now = status(pod.url(), first.id()).await?.context("is known")?;
        ensure!(now.progress >= progress, "went back from {progress}: {now:?}");
        progress = now.progress;
        if now.state != JobState::Proving {
            break;
        }
        ensure!(other.state == JobState::Traced, "two at once: {other:?}");
        if now.stage.is_some() && stages.last() != Some(&now.stage) {
            stages.push(now.stage);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stages: Vec<String> = stages.into_iter().flatten().collect();
    ensure!(stages.ends_with(&["commit-aux".into(), "commit-quotient".into(), "open".into()]), "{stages:?}");
    let second = wait_for(pod.url(), second.id(), &[JobState::Done]).await?;
    ensure!(second.seconds.traced.is_some_and(|seconds| seconds < 0.05), "it was traced ahead: {second:?}");
    ensure!(second.stage.is_none() && second.backend.as_deref() == Some("gpu"), "{second:?}");
    Ok(())
}

#[tokio::test]
async fn a_cancelled_proof_stops_between_stages_and_the_worker_goes_on() -> Result<()> {
    let pod = pod(&[], &[("FAKE_GPU_STAGE_MS", "300")]).await?;
    let before = devices(pod.url()).await?;
    let (job, next) = (of_height(9, 320), of_height(9, 321));
    post(pod.url(), bytes(&job), &[ASYNC, ("x-client-id", "me")]).await?;
    wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    post(pod.url(), bytes(&next), &[ASYNC]).await?;
    wait_for(pod.url(), next.id(), &[JobState::Traced]).await?;
    let url = format!("{}/v1/proofs/{}", pod.url(), job.id());
    ensure!(send(Method::DELETE, &url, None, &[("x-client-id", "me")]).await?.status() == StatusCode::NO_CONTENT);
    ensure!(status(pod.url(), job.id()).await?.is_some_and(|status| status.state == JobState::Cancelled));
    let next = wait_for(pod.url(), next.id(), &[JobState::Done]).await?;
    ensure!(next.lost_runs == 0, "the other job survives: {next:?}");
    let after = devices(pod.url()).await?;
    ensure!(after[0].pid == before[0].pid && after[0].restarts == 0, "{after:?}");
    // The same claim again, right after its cancellation.
    ensure!(proven(&pod, &job, &[]).await?.lost_runs == 0);
    Ok(())
}

fn fault(what: &str) -> Result<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("fault");
    std::fs::write(&path, what)?;
    Ok((folder, path))
}

#[tokio::test]
async fn a_lost_device_ends_the_worker_and_the_job_is_tried_elsewhere() -> Result<()> {
    let (_folder, path) = fault("lost")?;
    let pod = pod(&["--num-gpus", "2", "--cpu-jobs", "0"], &[("FAKE_GPU_FAULT", path.to_str().context("is text")?)]).await?;
    let done = proven(&pod, &of_height(9, 330), &[]).await?;
    ensure!(done.lost_runs == 1 && done.backend.as_deref() == Some("gpu"), "{done:?}");
    let log = pod.whole_log()?;
    ensure!(log.contains("its device was lost to it"), "{log}");
    while devices(pod.url()).await?.iter().any(|device| !device.ready) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let restarts: Vec<u64> = devices(pod.url()).await?.iter().map(|device| device.restarts).collect();
    ensure!(restarts == [1, 0], "{restarts:?}");
    ensure!(proven(&pod, &of_height(9, 331), &[]).await?.lost_runs == 0);
    Ok(())
}

#[tokio::test]
async fn a_device_without_memory_fails_the_job_to_the_cpu_and_lives() -> Result<()> {
    let (_folder, path) = fault("memory")?;
    let fault = ("FAKE_GPU_FAULT", path.to_str().context("is text")?);
    let hybrid = pod(&[], &[fault]).await?;
    let done = proven(&hybrid, &of_height(9, 340), &[]).await?;
    ensure!(done.lost_runs == 1 && done.backend.as_deref() == Some("cpu"), "{done:?}");
    ensure!(hybrid.whole_log()?.contains("[HYBRID] GPU proof failed, retrying with CPU execution"), "{}", hybrid.log());
    ensure!(devices(hybrid.url()).await?[0].restarts == 0, "no crash");
    ensure!(proven(&hybrid, &of_height(9, 341), &[]).await?.backend.as_deref() == Some("gpu"));
    Ok(())
}

#[tokio::test]
async fn what_is_too_big_for_the_gpu_is_made_by_the_cpu_or_refused() -> Result<()> {
    let small = ("FAKE_GPU_LOG2_HEIGHT", "9");
    let hybrid = pod(&[], &[small]).await?;
    let done = proven(&hybrid, &of_height(10, 350), &[]).await?;
    ensure!(done.backend.as_deref() == Some("cpu") && done.log2_padded_height == Some(10), "{done:?}");
    ensure!(hybrid.whole_log()?.contains("does not fit on the GPU, using CPU execution"), "{}", hybrid.log());

    let gpu_only = pod(&["--cpu-jobs", "0"], &[small]).await?;
    let refused = problem(post(gpu_only.url(), bytes(&of_height(10, 351)), &[]).await?).await?;
    ensure!(refused.problem_type == ProblemType::PaddedHeightTooBig, "{refused:?}");
    ensure!(refused.log2_padded_height == Some(10) && refused.max_log2_padded_height == Some(9), "{refused:?}");
    Ok(())
}

#[tokio::test]
async fn the_routing_file_and_the_old_rule_send_jobs_to_the_cpu() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("table.json");
    let table = r#"{"version":1,"devices":{},"heights":[{"log2_padded_height":8,"cpu_seconds":0.01,"gpu_seconds":0.02,"backend":"cpu"},
        {"log2_padded_height":10,"cpu_seconds":0.2,"gpu_seconds":0.02,"backend":"gpu"}]}"#;
    std::fs::write(&path, table)?;
    let measured = pod(&["--routing", path.to_str().context("is text")?], &[]).await?;
    ensure!(proven(&measured, &of_height(9, 360), &[]).await?.backend.as_deref() == Some("cpu"));
    ensure!(proven(&measured, &of_height(10, 361), &[]).await?.backend.as_deref() == Some("gpu"));

    let rule = pod(&["--routing", "collections-on-cpu"], &[]).await?;
    ensure!(proven(&rule, &of_height(9, 362), &[("x-job-kind", "leaf")]).await?.backend.as_deref() == Some("cpu"));
    ensure!(proven(&rule, &of_height(9, 363), &[("x-job-kind", "raise")]).await?.backend.as_deref() == Some("gpu"));
    Ok(())
}

/// Whether this host and this build have what a GPU pod takes.
fn has_gpu() -> bool {
    facts::has_kernels() && device_count().is_ok_and(|count| count > 0)
}

#[tokio::test]
async fn without_a_gpu_a_pod_says_why_and_auto_takes_the_cpu() -> Result<()> {
    if has_gpu() {
        println!("skipped: this host has a GPU");
        return Ok(());
    }
    let refused = Command::new(binary("prover-pod")?)
        .args(["serve", "--listen", "127.0.0.1:0", "--backend", "gpu"])
        .env_remove("RUST_LOG")
        .output()?;
    let log = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && log.contains("--backend gpu: "), "{log}");
    ensure!(log.contains("no CUDA driver") || log.contains("without GPU kernels") || log.contains("shows no device"), "{log}");
    ensure!(log.contains("prover-pod doctor") && !log.contains("panic"), "{log}");

    let mut auto = Pod::start(&["--backend", "auto"])?;
    auto.ready().await?;
    ensure!(proven(&auto, &of_height(9, 370), &[]).await?.backend.as_deref() == Some("cpu"));
    ensure!(auto.whole_log()?.contains("no GPU is usable"), "{}", auto.log());
    Ok(())
}

#[test]
fn doctor_says_what_is_missing_and_ends_with_1() -> Result<()> {
    if has_gpu() {
        println!("skipped: this host has a GPU");
        return Ok(());
    }
    let doctor =
        |arguments: &[&str]| Command::new(binary("prover-pod")?).arg("doctor").args(arguments).output().context("runs");
    let text = doctor(&[])?;
    let shown = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(text.status.code() == Some(1), "{shown}");
    ensure!(shown.contains("BAD ") && shown.contains("The GPU is not used"), "{shown}");
    let json = doctor(&["--json"])?;
    ensure!(json.status.code() == Some(1));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    ensure!(report["gpu_is_usable"] == false, "{report}");
    let names: Vec<&str> =
        report["checks"].as_array().context("is a list")?.iter().filter_map(|c| c["name"].as_str()).collect();
    for name in ["kernels", "driver", "device files", "CUDA_VISIBLE_DEVICES", "NVML", "host memory"] {
        ensure!(names.contains(&name), "{name} is not in {names:?}");
    }
    Ok(())
}

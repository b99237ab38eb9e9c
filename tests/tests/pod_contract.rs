//! The HTTP contract of a pod, with real proofs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prover_api::{Capacity, JobState, JobStatus, Priority, ProblemType, proof};
use reqwest::{Method, StatusCode};
use triton_vm::prelude::*;
use upgrader_fleet_tests::http::{post, problem, send, status, wait_for};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::Pod;

async fn pod(arguments: &[&str]) -> Result<Pod> {
    let mut pod = Pod::start(arguments)?;
    pod.ready().await?;
    Ok(pod)
}

#[tokio::test]
async fn proofs_come_out_verified_cached_and_in_every_encoding() -> Result<()> {
    let pod = pod(&[]).await?;
    let job = of_height(9, 1);
    let plain = bytes(&job);
    let answer = post(pod.url(), plain.clone(), &[("x-priority", "High"), ("x-job-kind", "leaf")]).await?;
    ensure!(answer.status() == StatusCode::OK, "{:?}", problem(answer).await?);
    ensure!(answer.headers()["content-type"] == "application/octet-stream");
    ensure!(answer.headers()["x-log2-padded-height"] == "9");
    ensure!(answer.headers()["x-job-id"] == job.id().to_string().as_str());
    let first = answer.bytes().await?;
    ensure!(proof::verify(&job.claim, &first).is_ok(), "the client's own verification");
    ensure!(triton_vm::verify(Stark::default(), &job.claim, &bincode::deserialize::<Proof>(&first)?));

    // From the cache, byte for byte: another run would have other randomness.
    let zstd = zstd::encode_all(plain.as_slice(), 3)?;
    for (body, encoding) in [(zstd, "zstd"), (gzip(&plain)?, "gzip"), (plain.clone(), "identity")] {
        let again = post(pod.url(), body, &[("content-encoding", encoding)]).await?;
        ensure!(again.status() == StatusCode::OK && again.bytes().await? == first, "{encoding}");
    }
    let url = format!("{}/v1/proofs/{}", pod.url(), job.id());
    let fetched = send(Method::GET, &format!("{url}/proof"), None, &[]).await?;
    ensure!(fetched.bytes().await? == first);

    let done: JobStatus = status(pod.url(), job.id()).await?.context("is known")?;
    ensure!(done.state == JobState::Done && done.priority == Priority::High && done.log2_padded_height == Some(9));
    ensure!(done.backend.as_deref() == Some("cpu") && done.seconds.proved.is_some_and(|seconds| seconds > 0.0));

    let metrics = send(Method::GET, &format!("{}/metrics", pod.url()), None, &[]).await?.text().await?;
    for line in [
        r#"prover_pod_jobs_total{backend="cpu",kind="leaf",outcome="done"} 1"#,
        r#"prover_pod_proof_verification_failures_total{backend="cpu"} 0"#,
        "prover_pod_cached_proofs 1",
        r#"prover_pod_stage_duration_seconds_count{backend="cpu",stage="prove"} 1"#,
    ] {
        ensure!(metrics.contains(line), "no `{line}` in\n{metrics}");
    }
    Ok(())
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}

#[tokio::test]
async fn asynchronous_jobs_tell_their_progress_to_the_end() -> Result<()> {
    let pod = pod(&[]).await?;
    let job = of_height(11, 2);
    let url = format!("{}/v1/proofs/{}", pod.url(), job.id());
    let unknown = problem(send(Method::GET, &url, None, &[]).await?).await?;
    ensure!(unknown.problem_type == ProblemType::NotFound);

    let headers = [("prefer", "wait=1, respond-async"), ("x-client-id", "me")];
    let accepted = post(pod.url(), bytes(&job), &headers).await?;
    ensure!(accepted.status() == StatusCode::ACCEPTED);
    ensure!(accepted.headers()["location"] == format!("/v1/proofs/{}", job.id()).as_str());
    let early = problem(send(Method::GET, &format!("{url}/proof"), None, &[]).await?).await?;
    ensure!(early.problem_type == ProblemType::NotFinished && early.retry_after_seconds.is_some());

    let events = send(Method::GET, &format!("{url}/events"), None, &[]).await?;
    ensure!(events.headers()["content-type"] == "text/event-stream");
    // The stream ends by itself, with a final status.
    let text = events.text().await?;
    let statuses: Vec<JobStatus> =
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = statuses.last().context("has events")?;
    ensure!(last.state == JobState::Done, "{text}");
    ensure!(statuses.iter().any(|status| status.state == JobState::Proving), "{text}");
    ensure!(statuses.iter().all(|status| (0.0..=1.0).contains(&status.progress)));
    let made = send(Method::GET, &format!("{url}/proof"), None, &[]).await?.bytes().await?;
    ensure!(proof::verify(&job.claim, &made).is_ok());
    // Posted again it is there at once; a final job's events are one.
    ensure!(post(pod.url(), bytes(&job), &headers).await?.status() == StatusCode::OK);
    let events = send(Method::GET, &format!("{url}/events"), None, &[]).await?.text().await?;
    ensure!(events.matches("event: status").count() == 1, "{events}");
    Ok(())
}

#[tokio::test]
async fn cancelling_stops_the_work_and_frees_the_device() -> Result<()> {
    let pod = pod(&[]).await?;
    // Minutes of work on this machine.
    let long = of_height(17, 3);
    let headers = [("prefer", "respond-async"), ("x-client-id", "me")];
    ensure!(post(pod.url(), bytes(&long), &headers).await?.status() == StatusCode::ACCEPTED);
    wait_for(pod.url(), long.id(), &[JobState::Proving]).await?;

    let url = format!("{}/v1/proofs/{}", pod.url(), long.id());
    let other = send(Method::DELETE, &url, None, &[("x-client-id", "somebody-else")]).await?;
    ensure!(other.status() == StatusCode::NO_CONTENT);
    ensure!(status(pod.url(), long.id()).await?.context("lives")?.state == JobState::Proving, "others cannot cancel mine");

    let before = Instant::now();
    for _ in 0..2 {
        ensure!(send(Method::DELETE, &url, None, &[("x-client-id", "me")]).await?.status() == StatusCode::NO_CONTENT);
    }
    ensure!(status(pod.url(), long.id()).await?.context("is remembered")?.state == JobState::Cancelled);
    let gone = problem(send(Method::GET, &format!("{url}/proof"), None, &[]).await?).await?;
    ensure!(gone.problem_type == ProblemType::Cancelled);

    // The device is free: a small job is through long before the long one would have been.
    let small = post(pod.url(), bytes(&of_height(9, 4)), &[]).await?;
    ensure!(small.status() == StatusCode::OK);
    ensure!(before.elapsed() < Duration::from_secs(30), "{:?}", before.elapsed());
    // A cancellation is not cached: the same job may come again.
    ensure!(post(pod.url(), bytes(&long), &headers).await?.status() == StatusCode::ACCEPTED);
    Ok(())
}

#[tokio::test]
async fn who_hangs_up_cancels_only_for_himself() -> Result<()> {
    let pod = pod(&[]).await?;
    let job = of_height(13, 5);
    let (url, body) = (pod.url().to_owned(), bytes(&job));
    let leaver = tokio::spawn({
        let (url, body) = (url.clone(), body.clone());
        async move { post(&url, body, &[]).await }
    });
    let stayer = tokio::spawn({
        let (url, body) = (url.clone(), body.clone());
        async move { post(&url, body, &[]).await }
    });
    wait_for(&url, job.id(), &[JobState::Proving]).await?;
    leaver.abort();
    let answer = stayer.await??;
    ensure!(answer.status() == StatusCode::OK, "the other caller gets the proof");

    // With nobody left, the job ends.
    let lonely = of_height(16, 6);
    let caller = tokio::spawn({
        let (url, body) = (url.clone(), bytes(&lonely));
        async move { post(&url, body, &[]).await }
    });
    wait_for(&url, lonely.id(), &[JobState::Proving]).await?;
    caller.abort();
    wait_for(&url, lonely.id(), &[JobState::Cancelled]).await?;
    Ok(())
}

#[tokio::test]
async fn too_big_is_said_at_once_while_the_device_is_busy() -> Result<()> {
    let pod = pod(&["--max-log2-padded-height", "16"]).await?;
    let running = of_height(16, 7);
    let headers = [("prefer", "respond-async")];
    ensure!(post(pod.url(), bytes(&running), &headers).await?.status() == StatusCode::ACCEPTED);
    wait_for(pod.url(), running.id(), &[JobState::Proving]).await?;
    let before = Instant::now();
    let refused = problem(post(pod.url(), bytes(&of_height(18, 8)), &[]).await?).await?;
    ensure!(refused.problem_type == ProblemType::PaddedHeightTooBig);
    ensure!(refused.log2_padded_height == Some(18) && refused.max_log2_padded_height == Some(16), "{refused:?}");
    ensure!(before.elapsed() < Duration::from_secs(20), "not when its turn comes: {:?}", before.elapsed());
    // The caller's own limit counts too, with the pod's not reached.
    let mut own = of_height(12, 9);
    own.max_log2_padded_height = Some(11);
    let refused = problem(post(pod.url(), bytes(&own), &[]).await?).await?;
    ensure!(refused.log2_padded_height == Some(12) && refused.max_log2_padded_height == Some(11), "{refused:?}");
    Ok(())
}

/// A pod with little memory says what does not fit, and proves what fits only without the cached low-degree extension.
#[tokio::test]
async fn memory_decides_whether_and_how_a_job_is_proven() -> Result<()> {
    let pod = pod(&["--memory-limit", "400Mi"]).await?;
    let capacity: Capacity = send(Method::GET, &format!("{}/v1/capacity", pod.url()), None, &[]).await?.json().await?;
    ensure!(capacity.max_log2_padded_height == Some(14), "{capacity:?}");
    let refused = problem(post(pod.url(), bytes(&of_height(15, 21)), &[]).await?).await?;
    ensure!(refused.log2_padded_height == Some(15) && refused.max_log2_padded_height == Some(14), "{refused:?}");
    for (height, mode) in [(10, "Cached"), (13, "JustInTime")] {
        let job = of_height(height, 20);
        let answer = post(pod.url(), bytes(&job), &[]).await?;
        ensure!(answer.status() == StatusCode::OK, "{}", pod.log());
        ensure!(proof::verify(&job.claim, &answer.bytes().await?).is_ok());
        let line = format!("job: running job={} worker=0 lde={mode}", job.id());
        ensure!(pod.whole_log()?.contains(&line), "no `{line}` in\n{}", pod.log());
    }
    Ok(())
}

#[tokio::test]
async fn deadlines_and_priorities() -> Result<()> {
    let pod = pod(&[]).await?;
    let running = of_height(14, 10);
    let asynchronous = ("prefer", "respond-async");
    ensure!(post(pod.url(), bytes(&running), &[asynchronous]).await?.status() == StatusCode::ACCEPTED);
    wait_for(pod.url(), running.id(), &[JobState::Proving]).await?;
    let (low, high) = (of_height(9, 11), of_height(9, 12));
    for (job, priority) in [(&low, "low"), (&high, "high")] {
        post(pod.url(), bytes(job), &[asynchronous, ("x-priority", priority)]).await?;
    }
    let late = problem(post(pod.url(), bytes(&of_height(9, 13)), &[("x-deadline", "0.3")]).await?).await?;
    ensure!(late.problem_type == ProblemType::DeadlineExceeded);
    let place = |status: Option<JobStatus>| status.and_then(|status| status.position);
    ensure!(place(status(pod.url(), high.id()).await?) == Some(0), "ahead of the low one that came first");
    ensure!(place(status(pod.url(), low.id()).await?) == Some(1));
    let capacity: Capacity = send(Method::GET, &format!("{}/v1/capacity", pod.url()), None, &[]).await?.json().await?;
    ensure!(!capacity.idle && capacity.running == 1 && capacity.queue[&Priority::High].jobs == 1);
    let high = wait_for(pod.url(), high.id(), &[JobState::Done]).await?;
    let low = wait_for(pod.url(), low.id(), &[JobState::Done]).await?;
    ensure!(low.seconds.queued > high.seconds.queued);
    Ok(())
}

#[tokio::test]
async fn a_pod_is_ready_only_after_its_self_test_and_drains_on_sigterm() -> Result<()> {
    let pod = pod(&[]).await?;
    let (running, waiting) = (of_height(13, 14), of_height(9, 15));
    let url = pod.url().to_owned();
    let first = tokio::spawn({
        let (url, body) = (url.clone(), bytes(&running));
        async move { post(&url, body, &[]).await }
    });
    wait_for(&url, running.id(), &[JobState::Proving]).await?;
    let second = tokio::spawn({
        let (url, body) = (url.clone(), bytes(&waiting));
        async move { post(&url, body, &[]).await }
    });
    wait_for(&url, waiting.id(), &[JobState::Queued, JobState::Tracing]).await?;
    ensure!(std::process::Command::new("kill").args(["-TERM", &pod.pid().to_string()]).status()?.success());
    let given_back = problem(second.await??).await?;
    ensure!(given_back.problem_type == ProblemType::Draining && given_back.retry_after_seconds.is_some());
    let refused = problem(post(&url, bytes(&of_height(9, 16)), &[]).await?).await?;
    ensure!(refused.problem_type == ProblemType::Draining);
    ensure!(send(Method::GET, &format!("{url}/readyz"), None, &[]).await?.status() == StatusCode::SERVICE_UNAVAILABLE);
    let finished = first.await??;
    ensure!(finished.status() == StatusCode::OK, "the running job ends in peace");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::path::Path::new(&format!("/proc/{}/exe", pod.pid())).exists()
        && pod.log().lines().all(|line| !line.contains("stopped"))
    {
        ensure!(Instant::now() < deadline, "the pod does not end:\n{}", pod.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

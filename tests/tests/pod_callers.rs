//! Several callers of one pod: who shares what, who is turned away, and what becomes of them when the pod shuts down.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use prover_api::client::{Client, JobBody, ProveOptions};
use prover_api::{Destination, JobState, MockJob, ProblemType, ProverJob, proof};
use reqwest::{Method, StatusCode};
use triton_vm::prelude::*;
use upgrader_fleet_tests::http::{devices, post, problem, send, status, wait_for};
use upgrader_fleet_tests::jobs::{bytes, mock, of_height};
use upgrader_fleet_tests::pods::Pod;
use upgrader_fleet_tests::upgraders::metric;

const ASYNC: (&str, &str) = ("prefer", "respond-async");

async fn pod(arguments: &[&str]) -> Result<Pod> {
    let mut pod = Pod::start(arguments)?;
    pod.ready().await?;
    Ok(pod)
}

#[tokio::test]
async fn of_two_clients_with_one_claim_one_cancels_and_the_other_gets_the_proof() -> Result<()> {
    let pod = pod(&[]).await?;
    let job = of_height(13, 300);
    for client in ["one", "other"] {
        let accepted = post(pod.url(), bytes(&job), &[ASYNC, ("x-client-id", client)]).await?;
        ensure!(accepted.status() == StatusCode::ACCEPTED);
    }
    wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    let url = format!("{}/v1/proofs/{}", pod.url(), job.id());
    ensure!(send(Method::DELETE, &url, None, &[("x-client-id", "one")]).await?.status() == StatusCode::NO_CONTENT);
    let done = wait_for(pod.url(), job.id(), &[JobState::Done, JobState::Cancelled]).await?;
    ensure!(done.state == JobState::Done && done.lost_runs == 0, "{done:?}");
    let made = send(Method::GET, &format!("{url}/proof"), None, &[]).await?.bytes().await?;
    ensure!(proof::verify(&job.claim, &made).is_ok());
    ensure!(devices(pod.url()).await?[0].restarts == 0, "the run was not touched");
    Ok(())
}

/// The witness is outside of the claim: whoever came with a good one must not get the failure of a bad one.
#[tokio::test]
async fn a_caller_with_another_body_gets_its_own_run() -> Result<()> {
    let pod = pod(&[]).await?;
    // With the wrong secret it runs for a while before it fails: time for the other caller to attach.
    let program = triton_program!(
        divine 1 dup 0 push 7 eq push 0 eq skiz call spin
        dup 0 push 7 eq assert write_io 1 halt
        spin: push 600000 call loop pop 1 return
        loop: dup 0 push 0 eq skiz return addi -1 recurse
    );
    let claim = Claim::about_program(&program).with_output(bfe_vec![7]);
    let with = |secret| ProverJob::new(program.clone(), claim.clone(), NonDeterminism::new(vec![secret]));
    let (bad, good) = (with(bfe!(8)), with(bfe!(7)));
    ensure!(bad.id() == good.id());
    let start = |job: &ProverJob| {
        let (url, body) = (pod.url().to_owned(), bytes(job));
        tokio::spawn(async move { post(&url, body, &[]).await })
    };
    let id = bad.id();
    let bad = start(&bad);
    wait_for(pod.url(), id, &[JobState::Tracing]).await?;
    let good = start(&good);
    let refused = problem(bad.await??).await?;
    ensure!(refused.problem_type == ProblemType::ProgramFailed, "{refused:?}");
    let answer = good.await??;
    ensure!(answer.status() == StatusCode::OK);
    ensure!(proof::verify(&claim, &answer.bytes().await?).is_ok());
    Ok(())
}

#[tokio::test]
async fn a_full_pod_says_429_and_when_to_come_back() -> Result<()> {
    let pod = pod(&["--backend", "mock", "--max-concurrent-jobs", "1", "--max-queued", "3", "--max-body-bytes", "2Mi"]).await?;
    let small = |seed| serde_json::to_vec(&mock(seed, 3_600_000));
    let headers = [ASYNC, ("x-client-id", "me")];
    // One runs, three wait.
    for seed in 0..4 {
        ensure!(post(pod.url(), small(seed)?, &headers).await?.status() == StatusCode::ACCEPTED);
    }
    let full = problem(post(pod.url(), small(4)?, &headers).await?).await?;
    ensure!(full.problem_type == ProblemType::QueueFull && full.retry_after_seconds.is_some(), "{full:?}");
    // Joining takes no room, leaving makes some.
    ensure!(post(pod.url(), small(3)?, &[ASYNC, ("x-client-id", "other")]).await?.status() == StatusCode::ACCEPTED);
    for client in ["me", "other"] {
        let url = format!("{}/v1/proofs/{}", pod.url(), prover_api::JobId::of(&mock(3, 0).claim));
        ensure!(send(Method::DELETE, &url, None, &[("x-client-id", client)]).await?.status() == StatusCode::NO_CONTENT);
    }

    // Bodies of 0.6 MB: a fourth would be past two megabytes.
    let large = |seed| -> Result<Vec<u8>> {
        let claim = Claim::new(Digest::default()).with_input(vec![bfe!(BFieldElement::MAX - seed); 28_000]);
        Ok(serde_json::to_vec(&MockJob { claim, ..mock(0, 3_600_000) })?)
    };
    let pod = self::pod(&["--backend", "mock", "--max-concurrent-jobs", "1", "--max-body-bytes", "2Mi"]).await?;
    for seed in 0..3 {
        let answer = post(pod.url(), large(seed)?, &headers).await?;
        ensure!(answer.status() == StatusCode::ACCEPTED, "{seed}: {:?}", problem(answer).await?);
    }
    let answer = post(pod.url(), large(3)?, &headers).await?;
    ensure!(answer.headers().contains_key("retry-after"));
    let full = problem(answer).await?;
    ensure!(full.problem_type == ProblemType::QueueFull, "{full:?}");
    ensure!(post(pod.url(), small(5)?, &headers).await?.status() == StatusCode::ACCEPTED, "a small one still fits");
    Ok(())
}

/// The client of this project holds no connection open for the proof; it must get it from a pod that shuts down all the same.
#[tokio::test]
async fn a_draining_pod_hands_its_last_proof_over() -> Result<()> {
    let mut pod = pod(&[]).await?;
    let (job, waiting) = (of_height(13, 320), of_height(9, 321));
    let client = Client::builder().endpoints([pod.url()]).build()?;
    let caller = tokio::spawn({
        let body = JobBody::from_job(&job)?;
        async move { client.prove(body, ProveOptions::default()).await }
    });
    wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    ensure!(post(pod.url(), bytes(&waiting), &[ASYNC]).await?.status() == StatusCode::ACCEPTED);
    pod.terminate()?;
    // Who waits without a slot and without a connection learns that it was given back.
    let given_back = wait_for(pod.url(), waiting.id(), &[JobState::Cancelled]).await?;
    let problem_type = given_back.problem.as_ref().map(|problem| problem.problem_type);
    ensure!(problem_type == Some(ProblemType::Draining), "{given_back:?}");
    let url = format!("{}/v1/proofs/{}/proof", pod.url(), waiting.id());
    let refused = problem(send(Method::GET, &url, None, &[]).await?).await?;
    ensure!(refused.problem_type == ProblemType::Draining && refused.retry_after_seconds.is_some(), "{refused:?}");

    let proved = caller.await??;
    ensure!(proof::verify(&job.claim, &proved.bytes).is_ok());
    let fetched = Instant::now();
    ensure!(pod.ended(Duration::from_secs(20)).await?.success(), "{}", pod.log());
    ensure!(fetched.elapsed() < Duration::from_secs(5), "it waits for nobody: {:?}", fetched.elapsed());
    Ok(())
}

/// Whoever replaces a caller while the pod is replaced, too, wants what the pod still makes.
#[tokio::test]
async fn a_draining_pod_lets_callers_join_what_it_makes() -> Result<()> {
    let mut pod = pod(&[]).await?;
    let (job, other) = (of_height(15, 322), of_height(9, 323));
    let url = pod.url().to_owned();
    ensure!(post(&url, bytes(&job), &[ASYNC, ("x-client-id", "before")]).await?.status() == StatusCode::ACCEPTED);
    wait_for(&url, job.id(), &[JobState::Proving]).await?;
    pod.terminate()?;
    while send(Method::GET, &format!("{url}/readyz"), None, &[]).await?.status() != StatusCode::SERVICE_UNAVAILABLE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (name, others_name) = (job.id().to_string(), other.id().to_string());
    for headers in [&[("x-job-id", others_name.as_str())][..], &[]] {
        let refused = problem(post(&url, bytes(&other), headers).await?).await?;
        ensure!(refused.problem_type == ProblemType::Draining, "{refused:?}");
    }
    // The name opens the door to the job of that name and to no other.
    let refused = problem(post(&url, bytes(&other), &[("x-job-id", &name)]).await?).await?;
    ensure!(refused.problem_type == ProblemType::Draining, "{refused:?}");
    let nonsense = problem(post(&url, bytes(&job), &[("x-job-id", "nonsense")]).await?).await?;
    ensure!(nonsense.problem_type == ProblemType::BadRequest, "{nonsense:?}");

    let client = Client::builder().endpoints([url.clone()]).build()?;
    let caller = tokio::spawn({
        let body = JobBody::from_job(&job)?;
        async move { client.prove(body, ProveOptions::default()).await }
    });
    // Who was there before leaves; the job goes on for the one who joined.
    let joined = async {
        while pod.log().matches("job: received").count() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), joined).await.with_context(|| pod.log())?;
    let withdrawn = format!("{url}/v1/proofs/{name}");
    ensure!(send(Method::DELETE, &withdrawn, None, &[("x-client-id", "before")]).await?.status() == StatusCode::NO_CONTENT);
    let proved = caller.await??;
    ensure!(proof::verify(&job.claim, &proved.bytes).is_ok());
    ensure!(pod.ended(Duration::from_secs(20)).await?.success(), "{}", pod.log());
    ensure!(pod.log().matches("job: proof returned").count() == 1, "{}", pod.log());
    Ok(())
}

#[tokio::test]
async fn the_grace_period_ends_and_so_does_the_pod() -> Result<()> {
    let mut pod = pod(&["--grace-period", "1"]).await?;
    let job = of_height(17, 330);
    ensure!(post(pod.url(), bytes(&job), &[ASYNC]).await?.status() == StatusCode::ACCEPTED);
    wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    let worker = devices(pod.url()).await?[0].pid.context("is up")?;
    pod.terminate()?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let state = status(pod.url(), job.id()).await?.context("is known")?.state;
    ensure!(state == JobState::Proving, "within the period it goes on: {state:?}");
    ensure!(pod.ended(Duration::from_secs(20)).await?.success(), "{}", pod.log());
    let gone = || !std::fs::read_to_string(format!("/proc/{worker}/cmdline")).is_ok_and(|line| line.contains("worker"));
    let deadline = Instant::now() + Duration::from_secs(5);
    while !gone() {
        ensure!(Instant::now() < deadline, "worker {worker} goes on for nobody");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_number_of_jobs_at_once_is_what_the_node_s_variable_says() -> Result<()> {
    let variables = [("TRITON_VM_MAX_CONCURRENT_JOBS", "2")];
    let mut pod = Pod::start_at("127.0.0.1:0", &["--memory-limit", "2Gi"], &variables)?;
    pod.ready().await?;
    let deadline = Instant::now() + Duration::from_mins(1);
    while devices(pod.url()).await?.iter().filter(|device| device.ready).count() < 2 {
        ensure!(Instant::now() < deadline, "{}", pod.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let jobs = [of_height(13, 340), of_height(13, 341)];
    for job in &jobs {
        ensure!(post(pod.url(), bytes(job), &[ASYNC]).await?.status() == StatusCode::ACCEPTED);
    }
    for job in &jobs {
        wait_for(pod.url(), job.id(), &[JobState::Proving]).await?;
    }
    let running: Vec<usize> = devices(pod.url()).await?.iter().map(|device| device.running.len()).collect();
    ensure!(running == [1, 1], "{running:?}");
    Ok(())
}

#[tokio::test]
async fn clients_agree_on_where_a_job_goes_and_are_told_later() -> Result<()> {
    let pod = pod(&["--backend", "mock"]).await?;
    let job = format!("{}/v1/proofs/{}", pod.url(), prover_api::JobId::of(&mock(2_000, 0).claim));
    let agree = async |choice: &str, instead_of: Option<&str>| -> Result<String> {
        let body = serde_json::to_vec(&Destination { pod: choice.to_owned(), instead_of: instead_of.map(str::to_owned) })?;
        let answer = send(Method::PUT, &format!("{job}/destination"), Some(body), &[]).await?;
        Ok(answer.error_for_status()?.json::<Destination>().await?.pod)
    };
    let sent_to = async || -> Result<_> { Ok(problem(send(Method::GET, &job, None, &[]).await?).await?.sent_to) };
    let [one, other] = ["http://10.1.7.3:8080", "http://10.1.7.4:8080"];
    ensure!(sent_to().await?.is_none());
    ensure!(agree(one, None).await? == one);
    ensure!(agree(other, None).await? == one);
    ensure!(sent_to().await?.as_deref() == Some(one));
    ensure!(agree(other, Some(one)).await? == other);
    ensure!(agree(one, Some(one)).await? == other);
    ensure!(sent_to().await?.as_deref() == Some(other));
    Ok(())
}

/// Two upgraders of one shard, as a rollout has them for a while: what one asks for the other asks for in the same moment.
#[tokio::test]
async fn what_two_clients_want_at_the_same_moment_is_proven_once() -> Result<()> {
    const ROUNDS: u64 = 100;
    /// Leaf proofs of an upgrade.
    const AT_ONCE: u64 = 6;
    let mut pods = Vec::new();
    for _ in 0..3 {
        pods.push(pod(&["--backend", "mock", "--max-concurrent-jobs", "2"]).await?);
    }
    let client = || Client::builder().endpoints(pods.iter().map(|pod| pod.url().to_owned())).build();
    let clients = [client()?, client()?];
    for round in 0..ROUNDS {
        let asked = clients.iter().flat_map(|client| {
            (0..AT_ONCE).map(move |job| async move {
                client.prove_mock(&mock(1_000 + round * AT_ONCE + job, 8), ProveOptions::default()).await
            })
        });
        for proved in join_all(asked).await {
            proved?;
        }
    }
    let mut made = 0;
    for pod in &pods {
        made += metric(pod.url(), r#"prover_pod_jobs_total{backend="mock",kind="other",outcome="done"}"#).await? as u64;
    }
    ensure!(made == ROUNDS * AT_ONCE, "{made} proofs of {} claims", ROUNDS * AT_ONCE);
    Ok(())
}

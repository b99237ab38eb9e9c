//! Only true proofs leave a pod, whatever its device returns.

use anyhow::{Context, Result, ensure};
use fleet::transaction::{ProofCollectionPlan, example};
use prover_api::{ProblemType, proof};
use reqwest::StatusCode;
use serde_json::json;
use triton_vm::prelude::Claim;
use upgrader_fleet_tests::fixtures;
use upgrader_fleet_tests::http::{post, problem};
use upgrader_fleet_tests::pods::{Pod, binary};

/// Flipped bits in all.
const CASES: usize = 1_000;

async fn claims() -> Result<Vec<Claim>> {
    let plan = ProofCollectionPlan::new(&example::transaction(fixtures::STORED)?).await?;
    Ok(plan.jobs.into_iter().map(|job| job.job.claim).collect())
}

/// A job that says what the service looks at; the fake device needs no program. The nonce makes another body of it.
fn body(claim: &Claim, nonce: usize) -> Vec<u8> {
    json!({
        "program": nonce, "claim": claim, "non_determinism": {}, "max_log2_padded_height": null, "env_vars": {},
    })
    .to_string()
    .into_bytes()
}

async fn pod_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Pod> {
    let fake = binary("fake-worker")?;
    let fake = fake.to_str().context("is text")?;
    let mut pod = Pod::start_at("127.0.0.1:0", &[&["--worker-program", fake], arguments].concat(), variables)?;
    pod.ready().await?;
    Ok(pod)
}

/// A pod whose devices flip a bit in every proof but that of their self-test, which they keep in `folder`: they are restarted
/// for each wrong proof, and proving it anew each time would make this a test of that.
async fn flipping_pod(folder: &std::path::Path, arguments: &[&str]) -> Result<Pod> {
    let self_test = folder.join("self-test");
    let variables = [("FAKE_WORKER_FLIP", "1"), ("FAKE_WORKER_SELF_TEST", self_test.to_str().context("is text")?)];
    pod_with(arguments, &variables).await
}

#[tokio::test]
async fn stored_real_proofs_are_accepted() -> Result<()> {
    let pod = pod_with(&[], &[]).await?;
    for claim in claims().await? {
        let answer = post(pod.url(), body(&claim, 0), &[]).await?;
        ensure!(answer.status() == StatusCode::OK, "{}", pod.log());
        let bytes = answer.bytes().await?;
        ensure!(proof::decode(&bytes)? == fixtures::stored_proof(&claim)?);
    }
    Ok(())
}

/// A thousand proofs with one flipped bit each come back from the devices; each job is tried twice, and no proof leaves.
#[tokio::test]
async fn no_flipped_bit_leaves_the_pod() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // A device that is quarantined returns nothing any more: here it may go on being wrong.
    let devices = ["--max-concurrent-jobs", "7", "--quarantine-after", "0", "--memory-limit", "64Gi"];
    let pod = flipping_pod(folder.path(), &devices).await?;
    // One claim is one run at a time: as many at once as there are claims.
    let claims = claims().await?;
    let (lanes, rounds) = (claims.len(), (CASES / 2).div_ceil(claims.len()));
    let posting = claims.into_iter().enumerate().map(|(lane, claim)| {
        let url = pod.url().to_owned();
        tokio::spawn(async move {
            for round in 0..rounds {
                let refused = problem(post(&url, body(&claim, round), &[]).await?).await?;
                ensure!(refused.problem_type == ProblemType::InvalidProof, "lane {lane}, round {round}: {refused:?}");
            }
            Ok(())
        })
    });
    for lane in futures::future::join_all(posting).await {
        lane??;
    }
    let metrics = reqwest::get(format!("{}/metrics", pod.url())).await?.text().await?;
    let failures = metrics
        .lines()
        .find_map(|line| line.strip_prefix(r#"prover_pod_proof_verification_failures_total{backend="cpu"} "#))
        .context("is counted")?;
    let flipped: usize = failures.parse()?;
    println!("{flipped} proofs with a flipped bit, none left the pod");
    ensure!(flipped == 2 * lanes * rounds && flipped >= CASES, "each job is tried twice: {flipped}");
    ensure!(metrics.contains("prover_pod_cached_proofs 0"), "nor is one kept");
    Ok(())
}

#[tokio::test]
async fn a_device_that_is_wrong_twice_is_quarantined() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pod = flipping_pod(folder.path(), &["--quarantine-after", "2"]).await?;
    let claims = claims().await?;
    let refused = problem(post(pod.url(), body(&claims[0], 0), &[]).await?).await?;
    ensure!(refused.problem_type == ProblemType::InvalidProof, "{refused:?}");
    let refused = problem(post(pod.url(), body(&claims[1], 0), &[]).await?).await?;
    ensure!(refused.problem_type == ProblemType::NoDevice && refused.retry_after_seconds.is_some(), "{refused:?}");
    ensure!(upgrader_fleet_tests::http::devices(pod.url()).await?[0].quarantined);
    let ready = reqwest::get(format!("{}/readyz", pod.url())).await?;
    ensure!(ready.status() == StatusCode::SERVICE_UNAVAILABLE);
    Ok(())
}

//! Only true proofs leave a pod, whatever its device returns.

use anyhow::{Context, Result, ensure};
use fleet::transaction::{ProofCollectionPlan, example};
use futures::StreamExt;
use prover_api::{ProblemType, proof};
use reqwest::StatusCode;
use serde_json::json;
use triton_vm::prelude::Claim;
use upgrader_fleet_tests::fixtures;
use upgrader_fleet_tests::http::{devices, post, problem};
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

async fn pod_with(arguments: &[&str]) -> Result<Pod> {
    let fake = binary("fake-worker")?;
    let fake = fake.to_str().context("is text")?;
    let mut pod = Pod::start(&[&["--worker-program", fake], arguments].concat())?;
    pod.ready().await?;
    Ok(pod)
}

#[tokio::test]
async fn stored_real_proofs_are_accepted() -> Result<()> {
    let pod = pod_with(&[]).await?;
    for claim in claims().await? {
        let answer = post(pod.url(), body(&claim, 0), &[]).await?;
        ensure!(answer.status() == StatusCode::OK, "{}", pod.log());
        let bytes = answer.bytes().await?;
        ensure!(proof::decode(&bytes)? == fixtures::stored_proof(&claim)?);
    }
    Ok(())
}

/// Two devices that flip a bit in every proof: each job is tried on both, none of the proofs leaves.
#[tokio::test]
async fn no_flipped_bit_leaves_the_pod() -> Result<()> {
    let fake = binary("fake-worker")?;
    let wrapper = tempfile::tempdir()?;
    let script = wrapper.path().join("flipping-worker");
    std::fs::write(&script, format!("#!/bin/sh\nexport FAKE_WORKER_FLIP=1\nexec {} \"$@\"\n", fake.display()))?;
    std::process::Command::new("chmod").arg("+x").arg(&script).status()?;
    // Restarting a worker for each wrong proof would make this a test of process creation: the mock of a device that goes on
    // being wrong is one that is never quarantined, and a claim's verification is what is asked for here.
    let script = script.to_str().context("is text")?;
    let mut pod = Pod::start(&["--worker-program", script, "--quarantine-after", "0"])?;
    pod.ready().await?;
    let claims = claims().await?;
    let mut first_calls = 0;
    // One through the whole service, with its restart and retry.
    for (nonce, claim) in claims.iter().enumerate() {
        let refused = problem(post(pod.url(), body(claim, nonce), &[]).await?).await?;
        ensure!(refused.problem_type == ProblemType::InvalidProof, "{refused:?}");
        first_calls += 1;
    }
    let metrics = reqwest::get(format!("{}/metrics", pod.url())).await?.text().await?;
    let failures = metrics
        .lines()
        .find_map(|line| line.strip_prefix(r#"prover_pod_proof_verification_failures_total{backend="cpu"} "#))
        .context("is counted")?;
    ensure!(failures.parse::<usize>()? == 2 * first_calls, "each job is tried twice: {failures}");

    // The rest against the very function that decides, on all cores.
    let proofs: Vec<(Claim, Vec<u8>)> = claims
        .iter()
        .map(|claim| Ok((claim.clone(), proof::encode(&fixtures::stored_proof(claim)?)?)))
        .collect::<Result<_>>()?;
    let verdicts = futures::stream::iter(first_calls * 2..CASES)
        .map(|case| {
            let (claim, mut bytes) = proofs[case % proofs.len()].clone();
            // A stride that is odd walks over all bits of a proof, far apart.
            let bit = case.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            tokio::task::spawn_blocking(move || (case, bit, proof::verify(&claim, &bytes)))
        })
        .buffer_unordered(4);
    let escaped: Vec<_> = verdicts
        .filter_map(|verdict| async { verdict.map_or(None, |(case, bit, verdict)| verdict.is_ok().then_some((case, bit))) })
        .collect()
        .await;
    ensure!(escaped.is_empty(), "accepted with a flipped bit: {escaped:?}");
    Ok(())
}

#[tokio::test]
async fn a_device_that_is_wrong_twice_is_quarantined() -> Result<()> {
    let fake = binary("fake-worker")?;
    let wrapper = tempfile::tempdir()?;
    let script = wrapper.path().join("flipping-worker");
    std::fs::write(&script, format!("#!/bin/sh\nexport FAKE_WORKER_FLIP=1\nexec {} \"$@\"\n", fake.display()))?;
    std::process::Command::new("chmod").arg("+x").arg(&script).status()?;
    let mut pod = Pod::start(&["--worker-program", script.to_str().context("is text")?, "--quarantine-after", "2"])?;
    pod.ready().await?;
    let claims = claims().await?;
    let refused = problem(post(pod.url(), body(&claims[0], 0), &[]).await?).await?;
    ensure!(refused.problem_type == ProblemType::InvalidProof, "{refused:?}");
    let refused = problem(post(pod.url(), body(&claims[1], 0), &[]).await?).await?;
    ensure!(refused.problem_type == ProblemType::NoDevice && refused.retry_after_seconds.is_some(), "{refused:?}");
    ensure!(devices(pod.url()).await?[0].quarantined);
    let ready = reqwest::get(format!("{}/readyz", pod.url())).await?;
    ensure!(ready.status() == StatusCode::SERVICE_UNAVAILABLE);
    Ok(())
}

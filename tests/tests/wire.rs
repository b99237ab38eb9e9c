//! What stands on the wire is what neptune-core writes and reads.

use anyhow::{Context, Result, ensure};
use fleet::transaction::{ProofCollectionPlan, example};
use neptune_consensus::block::validity::block_program::BlockProgram;
use neptune_consensus::proof_abstractions::tasm::neptune_prover_job::NeptuneProverJob;
use neptune_consensus::proof_abstractions::tasm::program::TritonProgram;
use neptune_consensus::proof_abstractions::triton_vm_env_vars::TritonVmEnvVars;
use prover_api::{JobId, ProverJob};
use serde_json::Value;
use upgrader_fleet_tests::fixtures;

/// neptune-core's job of the same content. Cloned maps iterate in the same order, so the bytes can be compared too.
fn neptunes(job: &ProverJob) -> NeptuneProverJob {
    let mut env_vars = TritonVmEnvVars::default();
    env_vars.extend(job.env_vars.clone());
    NeptuneProverJob {
        program: job.program.clone(),
        claim: job.claim.clone(),
        non_determinism: job.non_determinism.clone(),
        max_log2_padded_height: job.max_log2_padded_height,
        env_vars,
    }
}

async fn jobs() -> Result<Vec<ProverJob>> {
    let witness = example::transaction(fixtures::STORED)?;
    let plan = ProofCollectionPlan::new(&witness).await?;
    let mut jobs: Vec<_> = plan.jobs.into_iter().map(|leaf| leaf.job).collect();
    let limited = jobs.last_mut().context("a transaction has jobs")?;
    limited.max_log2_padded_height = Some(22);
    limited.env_vars.insert(24, vec![("TVM_LDE_TRACE".to_owned(), "no_cache".to_owned())]);
    Ok(jobs)
}

#[tokio::test]
async fn a_job_has_the_bytes_of_neptune_core() -> Result<()> {
    for job in jobs().await? {
        ensure!(serde_json::to_vec(&neptunes(&job))? == job.to_json()?, "{job:?}");
    }
    Ok(())
}

#[tokio::test]
async fn jobs_of_neptune_core_are_understood_and_the_reverse() -> Result<()> {
    for job in jobs().await? {
        let upstream = serde_json::to_vec(&neptunes(&job))?;
        let ours = ProverJob::from_json(&upstream)?;
        let back: NeptuneProverJob = serde_json::from_slice(&ours.to_json()?)?;
        // Maps have no order of their own, so documents are compared, not bytes.
        let (upstream, back) = (serde_json::from_slice::<Value>(&upstream)?, serde_json::to_value(&back)?);
        ensure!(upstream == back, "{job:?}");
        ensure!(ours.id() == job.id(), "{job:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_claim_alone_makes_the_id_and_the_version_belongs_to_it() -> Result<()> {
    for job in jobs().await? {
        let other_version = job.claim.clone().about_version(5);
        ensure!(JobId::of(&other_version) != job.id());
        let mut other_witness = job.clone();
        other_witness.non_determinism.individual_tokens.clear();
        ensure!(other_witness.id() == job.id());
    }
    Ok(())
}

#[test]
fn the_block_program_is_known_by_its_digest() {
    assert_eq!(BlockProgram.hash().to_hex(), prover_api::BLOCK_PROGRAM_DIGEST);
}

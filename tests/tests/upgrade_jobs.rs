//! The upgrade jobs that we build are the node's, word for word, and have the heights that real ones have.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use fleet::trace;
use fleet::transaction::ProofCollectionPlan;
use neptune_consensus::block::mutator_set_update::MutatorSetUpdate;
use neptune_consensus::transaction::transaction_kernel::TransactionKernelModifier;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_primitives::network::Network;
use prover_api::{JobId, ProverJob};
use upgrader::jobs::{self, CheckedProof, Step, StepError};
use upgrader_fleet_tests::upgrade;

/// The job that neptune-consensus makes when a node upgrades like this.
fn upstream(name: &str) -> Result<ProverJob> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("upstream-jobs");
    std::fs::copy(env!("CARGO_BIN_EXE_upstream-jobs"), &program)?;
    let capture = folder.path().join("job.json");
    let prover = folder.path().join("neptune-prover");
    std::fs::write(&prover, "#!/bin/sh\ncat > \"$CAPTURE\"\nexit 9\n")?;
    std::fs::set_permissions(&prover, std::fs::Permissions::from_mode(0o755))?;
    let output = Command::new(program).arg(name).env("CAPTURE", &capture).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let job = std::fs::read(&capture).with_context(|| format!("{name}: upstream made no job: {said}"))?;
    ensure!(!output.status.success() && said.contains("non-zero exit code: 9"), "{name}: {said}");
    Ok(ProverJob::from_json(&job)?)
}

fn assert_is_upstreams(name: &str, step: Step) -> Result<()> {
    let (claim, expected) = (step.claim(), step.expected_log2_padded_height());
    let (ours, theirs) = (step.into_job()?, upstream(name)?);
    ensure!(ours.claim == claim && ours.claim == theirs.claim, "{name}: another claim");
    ensure!(ours.program == theirs.program, "{name}: another program");
    ensure!(ours.non_determinism == theirs.non_determinism, "{name}: other non-determinism");
    ensure!(ours.max_log2_padded_height.is_none() && ours.env_vars.is_empty());

    let heights = trace::heights(ours)?;
    ensure!(heights.log2_padded_height() == u32::from(expected), "{name}: {heights}");
    println!("{name}: {heights}, 2^{expected}");
    Ok(())
}

#[tokio::test]
async fn the_raise_is_upstreams_and_2_to_the_22() -> Result<()> {
    let step = upgrade::raise().await?;
    ensure!(step.expected_log2_padded_height() == 22);
    assert_is_upstreams("raise-2in", step)
}

#[tokio::test]
async fn the_raise_of_a_gobbler_is_upstreams_and_2_to_the_21() -> Result<()> {
    let step = upgrade::raise_gobbler().await?;
    ensure!(step.expected_log2_padded_height() == 21);
    assert_is_upstreams("raise-gobbler", step)
}

#[tokio::test]
async fn the_merge_is_upstreams_and_2_to_the_20() -> Result<()> {
    let step = upgrade::merge().await?;
    ensure!(step.expected_log2_padded_height() == 20);
    assert_is_upstreams("merge-gobbler-2in", step)
}

#[tokio::test]
async fn the_update_is_upstreams_and_2_to_the_19() -> Result<()> {
    let step = upgrade::update().await?;
    ensure!(step.expected_log2_padded_height() == 19);
    assert_is_upstreams("update-2in", step)
}

#[tokio::test]
async fn real_single_proofs_are_results_of_these_steps() -> Result<()> {
    // `CheckedProof` verifies against the kernel that our step says the result has.
    let [raised, gobbler, merged] = [upgrade::raised().await?, upgrade::raised_gobbler().await?, upgrade::merged().await?];
    ensure!(jobs::claim_of(raised.kernel()) == upgrade::raise().await?.claim());
    ensure!(jobs::claim_of(gobbler.kernel()) == upgrade::raise_gobbler().await?.claim());
    ensure!(jobs::claim_of(merged.kernel()) == upgrade::merge().await?.claim());
    // The fee moved: what the gobbler took is what the merged transaction no longer pays.
    ensure!(merged.kernel().fee + upgrade::gobbled() == raised.kernel().fee);
    ensure!(gobbler.kernel().fee == -upgrade::gobbled());

    // The judge is awake.
    let other_fee = TransactionKernelModifier::default().fee(NativeCurrencyAmount::coins(7)).clone_modify(merged.kernel());
    ensure!(CheckedProof::check(other_fee, merged.proof().clone(), Network::Main).await.is_err());
    ensure!(CheckedProof::check(raised.kernel().clone(), merged.proof().clone(), Network::Main).await.is_err());
    Ok(())
}

#[tokio::test]
async fn another_shuffle_is_another_claim_and_the_same_shuffle_the_same() -> Result<()> {
    let merge = |seed| async move {
        Ok::<_, anyhow::Error>(jobs::merge(upgrade::raised_gobbler().await?, upgrade::raised().await?, seed)?)
    };
    let id = |step: Step| JobId::of(&step.claim());
    ensure!(id(merge([7; 32]).await?) == id(merge([7; 32]).await?));
    ensure!(id(merge([7; 32]).await?) != id(merge([8; 32]).await?));
    Ok(())
}

#[tokio::test]
async fn steps_that_a_node_would_panic_over_are_refused() -> Result<()> {
    let (raised, gobbler) = (upgrade::raised().await?, upgrade::raised_gobbler().await?);
    let refused = |step: Result<Step, StepError>| step.map(|step| step.kernel).expect_err("is refused");
    ensure!(refused(jobs::merge(raised.clone(), gobbler.clone(), [0; 32])) == StepError::NegativeFeeRight);
    ensure!(refused(jobs::merge(raised.clone(), raised.clone(), [0; 32])) == StepError::Conflict);

    let mutator_set = upgrade::transaction()?.mutator_set_accumulator;
    let since = upgrade::two_blocks(&mutator_set)?;
    ensure!(refused(jobs::update(gobbler, &mutator_set, &since)) == StepError::NoInputs);
    let mut later = mutator_set.clone();
    since.apply_to_accumulator(&mut later)?;
    ensure!(refused(jobs::update(raised.clone(), &later, &since)) == StepError::OtherMutatorSet);
    let spending = MutatorSetUpdate::new(vec![raised.kernel().inputs[1].clone()], vec![]);
    ensure!(refused(jobs::update(raised, &mutator_set, &spending)) == StepError::Spent(1));

    let collection = upgrade::collection(&upgrade::gobbler().await?.plan).await?;
    ensure!(refused(jobs::raise(upgrade::transaction()?.kernel, collection)) == StepError::ForeignCollection);
    Ok(())
}

#[tokio::test]
async fn every_stored_proof_is_used() -> Result<()> {
    let plans = [ProofCollectionPlan::new(&upgrade::transaction()?).await?, upgrade::gobbler().await?.plan];
    let leaves = plans.iter().flat_map(|plan| &plan.jobs).map(|job| format!("{}.bin", JobId::of(&job.job.claim)));
    let singles = ["sp2in.bin", "sp-gobbler.bin", "merge.bin"].map(str::to_owned);
    let needed: BTreeSet<String> = leaves.chain(singles).collect();
    let name = |entry: std::io::Result<std::fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    let stored = std::fs::read_dir(upgrade::folder())?.map(name).collect::<Result<BTreeSet<String>>>()?;
    ensure!(needed == stored, "superfluous: {:?}, missing: {:?}", &stored - &needed, &needed - &stored);
    Ok(())
}

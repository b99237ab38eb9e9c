//! A real transaction, its stored real proofs, and neptune-consensus as the judge.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use fleet::trace;
use fleet::transaction::{Leaf, ProofCollectionPlan, VerifiedCollection, WitnessError, example, single_proof};
use neptune_primitives::network::Network;
use triton_vm::prelude::{BFieldElement, Proof, Stark};
use upgrader_fleet_tests::fixtures;

async fn plan() -> Result<ProofCollectionPlan> {
    let witness = example::transaction(fixtures::STORED)?;
    Ok(ProofCollectionPlan::new(&witness).await?)
}

fn stored_proofs(plan: &ProofCollectionPlan) -> Result<BTreeMap<Leaf, Proof>> {
    let proof_of = |job: &fleet::transaction::LeafJob| Ok((job.leaf, fixtures::stored_proof(&job.job.claim)?));
    plan.jobs.iter().map(proof_of).collect()
}

#[tokio::test]
async fn stored_proofs_assemble_to_a_collection_that_main_net_accepts() -> Result<()> {
    let plan = plan().await?;
    let proofs = stored_proofs(&plan)?;
    let collection = plan.frame.clone().assemble(proofs.clone())?;
    ensure!(collection.num_proofs() == 6);
    let verified = VerifiedCollection::check(collection, Network::Main).await?;
    ensure!(verified.collection().kernel_mast_hash == plan.frame.kernel_mast_hash);

    // The judge is awake: one changed word in any proof, or two proofs in each other's place, and it refuses.
    for leaf in plan.frame.leaves() {
        let mut forged = proofs.clone();
        let words = &mut forged.get_mut(&leaf).context("each leaf has a proof")?.0;
        let middle = words.len() / 2;
        words[middle] += BFieldElement::new(1);
        let forged = plan.frame.clone().assemble(forged)?;
        ensure!(VerifiedCollection::check(forged, Network::Main).await.is_err(), "{leaf} is forged");
    }
    let mut swapped = proofs;
    let lock_script = swapped[&Leaf::LockScript(0)].clone();
    let type_script = swapped.insert(Leaf::TypeScript(0), lock_script).context("there is one")?;
    swapped.insert(Leaf::LockScript(0), type_script);
    let swapped = plan.frame.assemble(swapped)?;
    ensure!(VerifiedCollection::check(swapped, Network::Main).await.is_err());
    Ok(())
}

#[tokio::test]
async fn every_stored_proof_is_used_and_verifies_for_its_claim() -> Result<()> {
    let plan = plan().await?;
    for job in &plan.jobs {
        let proof = fixtures::stored_proof(&job.job.claim)?;
        ensure!(triton_vm::verify(Stark::default(), &job.job.claim, &proof), "{}", job.leaf);
        ensure!(bincode::serialize(&proof)? == std::fs::read(file_of(job))?, "{}: another encoding", job.leaf);
    }
    let needed: BTreeSet<_> = plan.jobs.iter().map(file_of).collect();
    let stored: BTreeSet<_> = std::fs::read_dir(fixtures::proofs())?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    ensure!(needed == stored, "a stored proof that no test uses, or a missing one");
    Ok(())
}

fn file_of(job: &fleet::transaction::LeafJob) -> std::path::PathBuf {
    fixtures::proofs().join(format!("{}.bin", fixtures::name_of(&job.job.claim)))
}

#[tokio::test]
async fn heights_by_tracing_are_those_of_the_stored_proofs() -> Result<()> {
    for job in plan().await?.jobs {
        let proof = fixtures::stored_proof(&job.job.claim)?;
        let heights = trace::heights(job.job)?;
        ensure!(heights.rows.next_power_of_two() == proof.padded_height()?, "{}: {heights}", job.leaf);
    }
    Ok(())
}

#[tokio::test]
async fn the_raise_of_one_input_needs_two_to_the_21_rows() -> Result<()> {
    let plan = plan().await?;
    let proofs = stored_proofs(&plan)?;
    let collection = VerifiedCollection::check(plan.frame.assemble(proofs)?, Network::Main).await?;
    let heights = trace::heights(single_proof::raise_job(collection))?;
    // Six inner verifications of about 0.3 M RAM rows each.
    ensure!(heights.log2_padded_height() == 21, "{heights}");
    ensure!(heights.longest == triton_vm::prelude::TableId::Ram, "{heights}");
    ensure!((1_700_000..1_900_000).contains(&heights.rows), "{heights}");
    Ok(())
}

#[tokio::test]
async fn a_witness_that_the_chain_would_refuse_gives_no_jobs() -> Result<()> {
    let witness = example::transaction(fixtures::STORED)?;

    let mut other_inputs = witness.clone();
    other_inputs.output_utxos.utxos.swap(0, 1);
    let error = ProofCollectionPlan::new(&other_inputs).await;
    ensure!(matches!(error, Err(WitnessError::Invalid(_))), "{error:?}");

    let mut one_proof_short = witness;
    one_proof_short.input_membership_proofs.clear();
    let error = ProofCollectionPlan::new(&one_proof_short).await;
    ensure!(matches!(error, Err(WitnessError::Inconsistent)), "{error:?}");
    Ok(())
}

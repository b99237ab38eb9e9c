//! Has neptune-consensus itself make one of the upgrade jobs of `upgrader_fleet_tests::upgrade`, through the very functions that
//! a node calls, so that its job can be compared with ours.
//!
//! neptune-consensus writes each job to the program `neptune-prover` that it finds beside the running one. The test puts a
//! program there that keeps the job and fails; so this one fails too, after the job is made.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use fleet::transaction::RULE_SET;
use neptune_consensus::proof_abstractions::tasm::program::TritonVmProofJobOptions;
use neptune_consensus::proof_abstractions::tasm::prover_job::ProverJobSettings;
use neptune_consensus::proof_abstractions::triton_vm_job_queue::{TritonVmJobPriority, TritonVmJobQueue};
use neptune_consensus::transaction::validity::single_proof::SingleProofWitness;
use neptune_consensus::transaction::{Transaction, TransactionProof};
use upgrader::jobs::CheckedProof;
use upgrader_fleet_tests::upgrade;

fn transaction(checked: CheckedProof) -> Transaction {
    let (kernel, proof) = checked.into_parts();
    Transaction { kernel, proof: TransactionProof::SingleProof(proof) }
}

async fn raise(
    plan: &fleet::transaction::ProofCollectionPlan,
    queue: Arc<TritonVmJobQueue>,
    options: TritonVmProofJobOptions,
) -> Result<()> {
    let collection = upgrade::collection(plan).await?.into_inner();
    SingleProofWitness::from_collection(collection).produce(RULE_SET, queue, options).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let kind = std::env::args().nth(1).context("give the job's name")?;
    let queue = TritonVmJobQueue::get_instance();
    let options = TritonVmProofJobOptions {
        job_priority: TritonVmJobPriority::Low,
        job_settings: ProverJobSettings::default(),
        cancel_job_rx: None,
    };
    let witness = upgrade::transaction()?;
    match kind.as_str() {
        "raise-2in" => raise(&fleet::transaction::ProofCollectionPlan::new(&witness).await?, queue, options).await,
        "raise-gobbler" => raise(&upgrade::gobbler().await?.plan, queue, options).await,
        "merge-gobbler-2in" => {
            let [gobbler, raised] = [upgrade::raised_gobbler().await?, upgrade::raised().await?].map(transaction);
            gobbler.merge_with(raised, upgrade::SHUFFLE_SEED, queue, options, RULE_SET).await.map(drop)
        }
        "update-2in" => {
            let (kernel, proof) = upgrade::raised().await?.into_parts();
            let mutator_set = witness.mutator_set_accumulator;
            let since = upgrade::two_blocks(&mutator_set)?;
            Transaction::new_with_updated_mutator_set_records_given_proof(
                kernel,
                &mutator_set,
                &since,
                proof,
                queue,
                options,
                None,
                RULE_SET,
            )
            .await
            .map(drop)
        }
        _ => bail!("no such job: {kind}"),
    }
}

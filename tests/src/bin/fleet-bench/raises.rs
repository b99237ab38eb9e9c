//! How many paid raises an hour one pod makes: two SingleProofs, their Merge and the gobbler's leaf proofs each, all real. Before
//! that each of these proofs, and an Update, is judged by neptune-consensus under main-net rules.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fleet::pods::PodArgs;
use fleet::transaction::VerifiedCollection;
use futures::future::try_join_all;
use neptune_primitives::network::Network;
use prover_api::client::{Client, JobBody, ProveOptions};
use triton_vm::prelude::Proof;
use upgrader::jobs::CheckedProof;
use upgrader_fleet_tests::pods::Pod;
use upgrader_fleet_tests::upgrade;

use crate::spread::Spread;

/// Rounds that are measured, after one to warm up.
const ROUNDS: usize = 6;

/// A job of a paid raise, ready to be sent again and again.
struct Job {
    name: String,
    body: JobBody,
}

/// Measures the pod at this URL, which must not cache proofs, or one of this backend that it starts itself.
pub async fn measure(backend: &str, url: Option<&str>) -> Result<()> {
    let jobs = jobs().await?;
    let mut own = None;
    let url = if let Some(url) = url {
        url.to_owned()
    } else {
        let pod = own.insert(Pod::start(&["--backend", backend, "--proof-cache-bytes", "0"])?);
        pod.ready().await?;
        pod.url().to_owned()
    };
    let client = PodArgs::at([url]).connect()?;
    accept(&client).await?;
    let mut rounds = vec![];
    for round in 0..=ROUNDS {
        let began = Instant::now();
        let times = try_join_all(jobs.iter().map(|job| prove(&client, job))).await?;
        let took = began.elapsed();
        println!("          round {round}: {:.2} s", took.as_secs_f64());
        if round == 0 {
            continue;
        }
        rounds.push(took);
        if round == ROUNDS {
            for (job, time) in jobs.iter().zip(times) {
                println!("          {:32} verified after {:6.2} s", job.name, time.as_secs_f64());
            }
        }
    }
    let median = Spread::of(rounds).quantile(0.5).as_secs_f64();
    println!(
        "raises    {:.0} an hour on backend {backend}: {median:.2} s for the {} proofs of one, verified twice (median of {ROUNDS} \
         rounds, each sent when the one before was complete)",
        3600.0 / median,
        jobs.len(),
    );
    Ok(())
}

async fn prove(client: &Client, job: &Job) -> Result<Duration> {
    let began = Instant::now();
    proof(client, &job.name, job.body.clone()).await?;
    Ok(began.elapsed())
}

async fn proof(client: &Client, name: &str, body: JobBody) -> Result<Proof> {
    let proved = client.prove(body, ProveOptions::default()).await.with_context(|| format!("no proof of {name}"))?;
    Ok(proved.proof)
}

/// Has every kind of upgrade proven, and each result judged by the chain's own rules.
async fn accept(client: &Client) -> Result<()> {
    for (name, step) in upgrade::all().await? {
        let kernel = step.kernel.clone();
        let proof = proof(client, name, JobBody::from_job(&step.into_job()?)?).await?;
        CheckedProof::check(kernel, proof.into(), Network::Main).await.with_context(|| name.to_owned())?;
        println!("accepted  {name}: a SingleProof by neptune-consensus' rules of the main net");
    }
    let plan = upgrade::gobbler().await?.plan;
    let mut proofs = BTreeMap::new();
    for job in &plan.jobs {
        proofs.insert(job.leaf, proof(client, &job.leaf.to_string(), JobBody::from_job(&job.job)?).await?);
    }
    VerifiedCollection::check(plan.frame.assemble(proofs)?, Network::Main).await?;
    println!("accepted  the gobbler's {} leaf proofs: a ProofCollection by the same rules", plan.jobs.len());
    Ok(())
}

async fn jobs() -> Result<Vec<Job>> {
    let gobbler = upgrade::gobbler().await?;
    let mut jobs = vec![];
    for leaf in gobbler.plan.jobs {
        jobs.push(Job { name: format!("gobbler, {}", leaf.leaf), body: JobBody::from_job(&leaf.job)? });
    }
    for (name, step) in [
        ("SingleProof of the gobbler", upgrade::raise_gobbler().await?),
        ("SingleProof of the transaction", upgrade::raise().await?),
        ("Merge of both", upgrade::merge().await?),
    ] {
        jobs.push(Job { name: name.to_owned(), body: JobBody::from_job(&step.into_job()?)? });
    }
    Ok(jobs)
}

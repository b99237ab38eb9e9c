//! How many paid raises an hour one pod makes: two SingleProofs, their Merge and the gobbler's leaf proofs each, all real. Before
//! that each of these proofs, and an Update, is judged by neptune-consensus under main-net rules.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fleet::pods::PodArgs;
use fleet::transaction::example::{self, Shape};
use fleet::transaction::{ProofCollectionPlan, VerifiedCollection};
use futures::StreamExt;
use futures::future::try_join_all;
use neptune_primitives::network::Network;
use prover_api::client::{Client, JobBody, ProveOptions};
use triton_vm::prelude::Proof;
use upgrader::jobs::CheckedProof;
use upgrader_fleet_tests::http::devices;
use upgrader_fleet_tests::pods::Pod;
use upgrader_fleet_tests::upgrade;

use crate::spread::Spread;

/// Rounds that are measured, after one to warm up.
const ROUNDS: usize = 6;

/// Raises that differ for each device, when they follow each other without a pause.
const DISTINCT: usize = 3;

/// The name of a raise's largest job.
const LARGEST: &str = "SingleProof of the transaction";

/// A job of a paid raise, ready to be sent again and again.
struct Job {
    name: String,
    body: JobBody,
}

/// Measures the pod at this URL, which must not cache proofs, or one of this backend that it starts itself.
pub async fn measure(backend: &str, url: Option<&str>) -> Result<()> {
    let jobs = jobs().await?;
    let (_own, client) = connect(backend, url).await?;
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

/// The same with no pause between raises, as a fleet with enough transactions has it: whether a device waits for the host shows
/// only here. The raises are of transactions that differ: equal claims, asked for at once, would share one proof.
///
/// Proofs end in an order of their own, so raises are counted by the largest proof of each, from one that has others before it to
/// one that has others behind it. How many of the other proofs ended in between says whether that is fair.
pub async fn sustained(backend: &str, url: Option<&str>) -> Result<()> {
    let (own, client) = connect(backend, url).await?;
    let url = own.as_ref().map(Pod::url).or(url).context("a pod has an address")?;
    let devices = devices(url).await?.iter().filter(|device| device.backend == backend).count();
    ensure!(devices > 0, "the pod at {url} has no worker of backend {backend}");
    let (distinct, rounds) = (DISTINCT * devices, ROUNDS * devices);
    let mut jobs = vec![];
    for nth in 0..distinct {
        jobs.extend(raise(&client, nth).await?);
    }
    let of_a_raise = jobs.len() / distinct;
    let under_way = of_a_raise * distinct / 2;
    let endless = jobs.iter().cycle().map(async |job| prove(&client, job).await.map(|_| job.name == LARGEST));
    let mut endless = futures::stream::iter(endless).buffer_unordered(under_way);
    let (mut ends, mut others) = (vec![], 0);
    while ends.len() <= distinct + rounds {
        let is_largest = endless.next().await.context("the jobs never end")??;
        if is_largest {
            ends.push(Instant::now());
        } else if ends.len() > distinct {
            others += 1;
        }
    }
    let each = (ends[distinct + rounds] - ends[distinct]).as_secs_f64() / rounds as f64;
    println!(
        "sustained {:.0} raises an hour on {devices} device(s) of backend {backend}: {each:.2} s for each of {rounds}, with {others} other \
         proofs ({} were due), {under_way} proofs under way at any time, verified twice",
        3600.0 / each,
        rounds * (of_a_raise - 1)
    );
    Ok(())
}

/// The jobs of a paid raise that has not its equal, made with the pod's help: a Merge wants the proofs of both that it merges.
async fn raise(client: &Client, nth: usize) -> Result<Vec<Job>> {
    let shape = Shape { announcements: upgrade::SHAPE.announcements + nth, ..upgrade::SHAPE };
    let witness = example::transaction(shape)?;
    let gobbler = upgrade::gobbler_of(witness.clone()).await?;
    let mut jobs = vec![];
    for leaf in &gobbler.plan.jobs {
        jobs.push(Job { name: format!("gobbler, {}", leaf.leaf), body: JobBody::from_job(&leaf.job)? });
    }
    let mut raised = vec![];
    for (name, kernel, plan) in [
        ("SingleProof of the gobbler", gobbler.kernel, gobbler.plan),
        (LARGEST, witness.kernel.clone(), ProofCollectionPlan::new(&witness).await?),
    ] {
        let step = upgrader::jobs::raise(kernel.clone(), collection(client, plan).await?)?;
        let job = Job { name: name.to_owned(), body: JobBody::from_job(&step.into_job()?)? };
        let made = proof(client, name, job.body.clone()).await?;
        raised.push(CheckedProof::check(kernel, made.into(), Network::Main).await?);
        jobs.push(job);
    }
    let (Some(transaction), Some(gobbler)) = (raised.pop(), raised.pop()) else { bail!("two proofs are merged") };
    let merge = upgrader::jobs::merge(gobbler, transaction, upgrade::SHUFFLE_SEED)?;
    jobs.push(Job { name: "Merge of both".to_owned(), body: JobBody::from_job(&merge.into_job()?)? });
    Ok(jobs)
}

/// Has all leaf proofs of a plan made; the chain's rules judge what comes of it.
async fn collection(client: &Client, plan: ProofCollectionPlan) -> Result<VerifiedCollection> {
    let leaves = plan
        .jobs
        .iter()
        .map(async |leaf| anyhow::Ok((leaf.leaf, proof(client, &leaf.leaf.to_string(), JobBody::from_job(&leaf.job)?).await?)));
    let proofs: BTreeMap<_, _> = try_join_all(leaves).await?.into_iter().collect();
    Ok(VerifiedCollection::check(plan.frame.assemble(proofs)?, Network::Main).await?)
}

/// A client of the pod at this URL, or of one that is started for it and given, too.
async fn connect(backend: &str, url: Option<&str>) -> Result<(Option<Pod>, Client)> {
    if let Some(url) = url {
        return Ok((None, PodArgs::at([url.to_owned()]).connect()?));
    }
    let mut pod = Pod::start(&["--backend", backend, "--proof-cache-bytes", "0"])?;
    pod.ready().await?;
    let client = PodArgs::at([pod.url().to_owned()]).connect()?;
    Ok((Some(pod), client))
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
    let leaves = plan.jobs.len();
    collection(client, plan).await?;
    println!("accepted  the gobbler's {leaves} leaf proofs: a ProofCollection by the same rules");
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
        (LARGEST, upgrade::raise().await?),
        ("Merge of both", upgrade::merge().await?),
    ] {
        jobs.push(Job { name: name.to_owned(), body: JobBody::from_job(&step.into_job()?)? });
    }
    Ok(jobs)
}

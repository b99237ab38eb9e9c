//! `make demo`: a fleet of upgraders with mock proofs, then the way of a transaction through the prover service with real ones.
//!
//! First four upgraders raise, merge and update forty transactions of a dev node, see [`shards`].
//!
//! Then two prover pods start. A real transaction (one input, two outputs) is made, and the six proofs of its ProofCollection are
//! asked for over HTTP. As soon as one pod works on the largest of them, that pod is killed with SIGKILL; the client takes its
//! jobs to the other. The proofs are assembled and judged by neptune-consensus under the rules of main net.

mod raise;
mod shards;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use fleet::pods::PodArgs;
use fleet::progress::Board;
use fleet::prove::{JobResult, NamedJob, Proved, Wishes, prove_all};
use fleet::trace::{self, Heights};
use fleet::transaction::{Leaf, ProofCollectionPlan, VerifiedCollection, example, single_proof};
use neptune_primitives::network::Network;
use prover_api::{JobId, JobKind, JobState, JobStatus};
use triton_vm::prelude::Stark;
use upgrader_fleet_tests::fixtures::STORED;
use upgrader_fleet_tests::http;
use upgrader_fleet_tests::machine::{Machine, gib};
use upgrader_fleet_tests::pods::Pod;

/// How far into the largest proof its pod is killed: late enough to lose real work.
const KILL_AFTER: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let started = Instant::now();
    shards::show().await?;
    println!("Real proofs:");
    let machine = Machine::look();
    println!("1. This machine: {} cores, {} of memory, {} free.", machine.cores, gib(machine.memory), gib(machine.available));

    // The pods do not know of each other: each gets its half of the memory.
    let memory = (machine.available / 2).to_string();
    let mut pods = [Pod::start(&["--memory-limit", &memory])?, Pod::start(&["--memory-limit", &memory])?];
    for pod in &mut pods {
        pod.ready().await?;
    }
    let [a, b] = [pods[0].url().to_owned(), pods[1].url().to_owned()];
    println!("2. Two prover pods are ready: a at {a}, b at {b}.");

    let witness = example::transaction(STORED)?;
    let plan = ProofCollectionPlan::new(&witness).await?;
    println!(
        "3. A transaction of {} input and {} outputs, kernel {}…: {} proofs to make.",
        STORED.inputs,
        STORED.outputs,
        &plan.frame.kernel_mast_hash.to_hex()[..16],
        plan.jobs.len(),
    );
    let leaves: Vec<Leaf> = plan.jobs.iter().map(|job| job.leaf).collect();
    let mut heights = Vec::new();
    let mut jobs = Vec::new();
    for job in plan.jobs {
        heights.push(trace::heights(job.job.clone())?);
        jobs.push(NamedJob { name: job.leaf.to_string(), job: job.job, kind: JobKind::Leaf });
    }
    let largest = heights.iter().enumerate().max_by_key(|(_, heights)| heights.rows).map_or(0, |(index, _)| index);
    let largest = jobs[largest].job.id();

    let client = PodArgs::at([a.clone(), b.clone()]).connect()?;
    let board = Board::new(jobs.iter().map(|job| job.name.len()).max().unwrap_or(0));
    println!("4. All {} jobs go out over HTTP.", jobs.len());
    let proving = prove_all(&client, jobs, Wishes::default(), &board);
    let (results, killed) = tokio::join!(proving, kill_the_pod_that_proves(&mut pods, largest, &board));
    let killed = killed?;
    println!("5. Pod {} was killed in the middle of its proof; the other one made it.", name_of(&killed, &a));

    let made = check(&leaves, &heights, results, &killed, largest)?;
    let collection = plan.frame.assemble(made.iter().map(|row| (row.leaf, row.proved.proof.clone())).collect())?;
    let verified = VerifiedCollection::check(collection, Network::Main).await?;
    println!(
        "6. Assembled: a ProofCollection of {} proofs. neptune-consensus accepts it under main-net rules.\n\n{}\n",
        verified.collection().num_proofs(),
        table(&made, &a),
    );

    let began = Instant::now();
    let raise = tokio::task::spawn_blocking(move || trace::heights(single_proof::raise_job(verified))).await??;
    let pace = made.iter().filter_map(Row::pace).max_by_key(|pace| pace.rows);
    println!("{}\n", raise::report(raise, began.elapsed().as_secs_f64(), machine, pace));
    println!("Demo done in {:.0} s.", started.elapsed().as_secs_f64());
    Ok(())
}

/// Waits until a pod proves the job, gives it some time, and kills the pod. Returns its URL.
async fn kill_the_pod_that_proves(pods: &mut [Pod], job: JobId, board: &Board) -> Result<String> {
    let client = http::client()?;
    loop {
        for pod in pods.iter_mut() {
            let Ok(answer) = client.get(format!("{}/v1/proofs/{job}", pod.url())).timeout(Duration::from_secs(2)).send().await
            else {
                continue;
            };
            let Ok(status) = answer.json::<JobStatus>().await else { continue };
            ensure!(status.state != JobState::Done, "the largest job was over before its pod could be killed");
            if status.state == JobState::Proving {
                tokio::time::sleep(KILL_AFTER).await;
                pod.kill()?;
                board.say(&format!("             SIGKILL to {}, which is proving the largest job", pod.url()));
                return Ok(pod.url().to_owned());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One proof in the final table.
struct Row {
    leaf: Leaf,
    heights: Heights,
    proved: Proved,
}

impl Row {
    fn seconds(&self) -> f64 {
        let on_the_pod = self.proved.status.as_ref().and_then(|status| status.seconds.proved);
        on_the_pod.unwrap_or(self.proved.elapsed.as_secs_f64())
    }

    fn pace(&self) -> Option<raise::Pace> {
        let seconds = self.proved.status.as_ref()?.seconds.proved?;
        Some(raise::Pace { rows: 1 << self.heights.log2_padded_height(), seconds })
    }
}

/// Every job has a proof, it verifies, its height is the traced one, and the largest comes from the surviving pod.
fn check(leaves: &[Leaf], heights: &[Heights], results: Vec<JobResult>, killed: &str, largest: JobId) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for ((&leaf, &heights), result) in leaves.iter().zip(heights).zip(results) {
        let proved = result.outcome.with_context(|| format!("{leaf} was not proven"))?;
        ensure!(triton_vm::verify(Stark::default(), &result.claim, &proved.proof), "{leaf} does not verify");
        ensure!(proved.proof.padded_height()?.ilog2() == heights.log2_padded_height(), "{leaf} has another height than traced");
        ensure!(JobId::of(&result.claim) != largest || proved.pod != killed, "{leaf} came from the dead");
        rows.push(Row { leaf, heights, proved });
    }
    Ok(rows)
}

fn name_of(url: &str, a: &str) -> &'static str {
    if url == a { "a" } else { "b" }
}

fn table(rows: &[Row], a: &str) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["JOB", "POD", "BACKEND", "LOG2 HEIGHT", "ROWS", "SECONDS", "VERIFIED"]);
    for column in [3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in rows {
        table.add_row([
            row.leaf.to_string(),
            name_of(&row.proved.pod, a).to_owned(),
            row.proved.backend.clone().unwrap_or_else(|| "cached".to_owned()),
            row.heights.log2_padded_height().to_string(),
            row.heights.rows.to_string(),
            format!("{:.1}", row.seconds()),
            "yes".to_owned(),
        ]);
    }
    table
}

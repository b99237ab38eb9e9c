//! The same proof with and without the service.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet::pods::PodArgs;
use fleet::program;
use fleet::trace;
use prover_api::ProverJob;
use prover_api::client::{JobBody, ProveOptions};
use triton_vm::prelude::{BFieldElement, NonDeterminism, PublicInput, Stark, VM};
use upgrader_fleet_tests::pods::Pod;

use crate::spread::Spread;

/// Arithmetic, RAM and hash in a loop; reads a salt, so that each claim is new and no proof comes from a cache.
const PROGRAM: &str = "
    read_io 1 push 0 write_mem 1 pop 1
    push 1800 call loop halt
    loop:
        dup 0 push 0 eq skiz return
        push 0 read_mem 1 pop 1
        push 3 mul push 1 add
        push 0 write_mem 1 pop 1
        push -1 add
        recurse
";

/// Log2 of the padded height of one run.
const LOG2_HEIGHT: u32 = 15;

/// Pairs of proofs, with and without. Alternating, so that a change of the machine's mood hits both.
const PAIRS: usize = 5;

pub async fn measure() -> Result<()> {
    let heights = trace::heights(job(0)?)?;
    ensure!(heights.log2_padded_height() == LOG2_HEIGHT, "the bench job has another height: {heights}");

    let mut pod = Pod::start(&[])?;
    pod.ready().await?;
    let client = PodArgs::at([pod.url().to_owned()]).connect()?;
    let (mut bare, mut served) = (vec![], vec![]);
    for pair in 0..PAIRS as u64 {
        let alone = job(2 * pair)?;
        bare.push(tokio::task::spawn_blocking(move || prove_bare(alone)).await??);
        let through_http = job(2 * pair + 1)?;
        let began = Instant::now();
        client.prove(JobBody::from_job(&through_http)?, ProveOptions::default()).await?;
        served.push(began.elapsed());
    }
    let (bare, served) = (Spread::of(bare), Spread::of(served));
    let (bare, served) = (bare.quantile(0.5).as_secs_f64(), served.quantile(0.5).as_secs_f64());
    println!(
        "overhead  {:+.1} %: 2^{LOG2_HEIGHT} rows ({heights}) take {bare:.2} s bare, {served:.2} s through HTTP, verified twice \
         (medians of {PAIRS}, alternating)",
        (served / bare - 1.0) * 100.0,
    );
    Ok(())
}

fn job(salt: u64) -> Result<ProverJob> {
    let program = program::assemble(PROGRAM)?;
    let input = PublicInput::new(vec![BFieldElement::new(salt)]);
    Ok(program::job(program, input, NonDeterminism::default())?)
}

/// What the service does besides serving: trace and prove.
fn prove_bare(job: ProverJob) -> Result<Duration> {
    let began = Instant::now();
    let (trace, _) = VM::trace_execution(job.program, job.claim.input.clone().into(), job.non_determinism)
        .ok()
        .context("the bench job halts")?;
    Stark::default().prove(&job.claim, &trace)?;
    Ok(began.elapsed())
}

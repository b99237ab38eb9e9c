//! Tests of the CUDA prover on a device: every kernel against the CPU, whole proofs against the crate's.
//!
//! `gpu-test [kernels] [rates LOG2] [proofs LOG2]`; without arguments everything. Needs no Rust on the host. Without a
//! device it says so and succeeds, unless `REQUIRE_GPU=1`.

use std::process::ExitCode;
use std::time::Instant;

use gpu_prover::cuda::{CudaStages, parity};
use gpu_prover::error::GpuError;
use gpu_prover::plan::Plan;
use gpu_prover::prover::{self, Unobserved};
use gpu_prover::randomness::Randomness;
use gpu_prover::workloads::{self, Workload};
use gpu_prover::compare;
use triton_vm::prelude::{Prover, Stark};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u32| {
        let place = arguments.iter().position(|a| a == name);
        place.and_then(|i| arguments.get(i + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
    };
    let wants = |name: &str| arguments.is_empty() || arguments.iter().any(|a| a == name);

    let mut stages = match CudaStages::new(0, None) {
        Ok(stages) => stages,
        Err(error) => {
            println!("skipped: {error}");
            let required = std::env::var("REQUIRE_GPU").is_ok_and(|v| v == "1");
            return if required { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let device = stages.device();
    println!("device {}, compute capability {:?}", device.name(), device.capability());
    let mut failures = 0;
    let mut report = |name: &str, outcome: Result<(), String>| match outcome {
        Ok(()) => println!("ok      {name}"),
        Err(error) => {
            println!("FAILED  {name}: {error}");
            failures += 1;
        }
    };
    let mut run = || -> Result<(), GpuError> {
        if wants("kernels") {
            let seed = std::time::SystemTime::now().elapsed().map_or_else(|e| e.duration(), |d| d).as_nanos() as u64;
            parity::kernels(&mut stages, &[9, 10, 11, 12, 13, 14, 17, 20], seed, &mut report)?;
        }
        if wants("proofs") {
            for workload in proof_workloads(number("proofs", 12)) {
                for plan in [None, Some(Plan::CachedCosets(3)), Some(Plan::CosetByCoset)] {
                    stages.set_plan(plan);
                    let name = format!("proof of {} under {plan:?}", workload.name);
                    report(&name, same_proof(&mut stages, &workload)?);
                }
            }
            stages.set_plan(None);
        }
        if wants("rates") {
            for rate in parity::rates(&mut stages, number("rates", 20))? {
                println!(
                    "rate    {:28} {:9.3} ms {:9.3} G {}/s",
                    rate.name, rate.milliseconds, rate.giga_per_second, rate.unit
                );
            }
        }
        Ok(())
    };
    if let Err(error) = run() {
        println!("FAILED  {error}");
        failures += 1;
    }
    println!("{failures} failures");
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn proof_workloads(max_log2: u32) -> Vec<Workload> {
    let mut all = workloads::small();
    all.extend((9..=max_log2).map(workloads::spin));
    all
}

/// The device's proof and the crate's, with the same seed.
fn same_proof(stages: &mut CudaStages, workload: &Workload) -> Result<Result<(), String>, GpuError> {
    let seed = [42; 32];
    let (claim, aet) = match workload.trace() {
        Ok(traced) => traced,
        Err(error) => return Ok(Err(format!("the program fails: {error}"))),
    };
    let begin = Instant::now();
    let ours = prover::prove(stages, &claim, &aet, Randomness::Seed(seed), &mut Unobserved)?;
    let seconds = begin.elapsed().as_secs_f64();
    let theirs =
        Prover::new(Stark::default()).set_randomness_seed_which_may_break_zero_knowledge(seed).prove(&claim, &aet);
    let theirs = match theirs {
        Ok(proof) => proof,
        Err(error) => return Ok(Err(format!("the crate's prover fails: {error}"))),
    };
    println!("        2^{} in {seconds:.3} s", aet.padded_height().ilog2());
    Ok(match compare::first_difference(&ours, &theirs) {
        Some(difference) => Err(difference),
        None if !triton_vm::verify(Stark::default(), &claim, &ours) => Err("the proof does not verify".into()),
        None => Ok(()),
    })
}

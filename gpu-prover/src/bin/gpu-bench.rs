//! Times proofs on a device: `gpu-bench FIRST_LOG2 LAST_LOG2 [RUNS] [--profile]`. Every proof is verified; trace, filling
//! of the main table and verification are timed apart from the proof.

use std::process::ExitCode;
use std::time::Instant;

use gpu_prover::cuda::CudaStages;
use gpu_prover::domain::Domains;
use gpu_prover::main_table::MainTable;
use gpu_prover::prover::{self, Unobserved};
use gpu_prover::randomness::Randomness;
use gpu_prover::workloads;
use triton_vm::prelude::Stark;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u32> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
    let (first, last) = (numbers.first().copied().unwrap_or(10), numbers.get(1).copied().unwrap_or(20));
    let runs = numbers.get(2).copied().unwrap_or(5).max(1) as usize;
    let profile = arguments.iter().any(|a| a == "--profile");

    let mut stages = CudaStages::new(0, None)?;
    println!("device {}, {} runs each, median", stages.device().name(), runs);
    println!("{:>6} {:>24} {:>9} {:>9} {:>9} {:>9}", "log2", "plan", "trace s", "fill s", "prove s", "verify s");
    for log2 in first..=last {
        let begin = Instant::now();
        let (claim, aet) = workloads::spin(log2).trace()?;
        let trace = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let main = MainTable::from_aet(&aet)?;
        let fill = begin.elapsed().as_secs_f64();
        drop(aet);
        let (plan, _) = stages.plan(&Domains::new(1 << log2)?)?;
        let (mut times, mut verification) = (vec![], 0.0);
        for run in 0..=runs {
            stages.set_profiling(profile && run == runs);
            let begin = Instant::now();
            let proof =
                prover::prove_main_table(&mut stages, &claim, &main, Randomness::Os, &mut Unobserved)?;
            // The first run warms up.
            if run > 0 {
                times.push(begin.elapsed().as_secs_f64());
            }
            let begin = Instant::now();
            if !triton_vm::verify(Stark::default(), &claim, &proof) {
                return Err(format!("a proof of height 2^{log2} does not verify").into());
            }
            verification = begin.elapsed().as_secs_f64();
        }
        if profile {
            for (name, seconds) in stages.take_profile() {
                println!("        {name:36} {:9.3} ms", seconds * 1e3);
            }
            times.pop();
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{:>6} {:>24} {trace:9.3} {fill:9.3} {:9.3} {verification:9.3}",
            main.domains().log2_padded_height(),
            format!("{plan:?}"),
            times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
        );
    }
    Ok(())
}

//! Times proofs on a device. Every proof is verified; trace, filling of the main table and verification are timed apart.
//!
//! `gpu-bench FIRST_LOG2 LAST_LOG2 [RUNS] [--profile] [--plan full|N|coset-by-coset] [--cpu LAST_LOG2]`: a count-down loop at
//! these heights; `--cpu` also proves it with the crate's prover, once, up to that height, and prints the ratio.
//!
//! `gpu-bench --job FILE.. [--runs N] [..]`: real jobs, as neptune-core writes them to its prover (JSON; `.zst` is unpacked).

mod floor;
mod job;

use std::process::ExitCode;
use std::time::Instant;

use gpu_prover::cuda::CudaStages;
use gpu_prover::main_table::MainTable;
use gpu_prover::plan::Plan;
use gpu_prover::prover::{self, Unobserved};
use gpu_prover::randomness::Randomness;
use gpu_prover::workloads;
use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::{Claim, Prover, Stark};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What to measure.
#[derive(Debug, Default)]
struct Options {
    numbers: Vec<u32>,
    jobs: Vec<String>,
    runs: Option<usize>,
    profile: bool,
    plan: Option<Plan>,
    cpu: Option<u32>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self::default();
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            let mut value = |what: &str| arguments.next().ok_or(format!("{what} wants a value"));
            match argument.as_str() {
                "--profile" => options.profile = true,
                "--plan" => options.plan = Some(plan(&value("--plan")?)?),
                "--cpu" => options.cpu = Some(value("--cpu")?.parse()?),
                "--runs" => options.runs = Some(value("--runs")?.parse()?),
                "--job" => options.jobs.push(value("--job")?),
                number => options.numbers.push(number.parse().map_err(|_| format!("what is {number}?"))?),
            }
        }
        Ok(options)
    }

    fn runs(&self) -> usize {
        self.runs.or(self.numbers.get(2).map(|&n| n as usize)).unwrap_or(5).max(1)
    }
}

fn plan(text: &str) -> Outcome<Plan> {
    Ok(match text {
        "full" => Plan::Full,
        "coset-by-coset" => Plan::CosetByCoset,
        cached => Plan::CachedCosets(cached.parse().map_err(|_| "a plan is full, a number of cosets, or coset-by-coset")?),
    })
}

fn run(options: &Options) -> Outcome<()> {
    let mut stages = CudaStages::new(0, options.plan)?;
    println!("device {}, median of {} warm proofs, each verified", stages.device().name(), options.runs());
    println!(
        "{:>28} {:>4} {:>16} {:>8} {:>8} {:>8} {:>9} {:>9} {:>7}",
        "job", "log2", "plan", "trace s", "fill s", "prove s", "verify s", "CPU s", "ratio"
    );
    for file in &options.jobs {
        let job = job::Job::read(file)?;
        let begin = Instant::now();
        let trace = job.trace()?;
        let traced = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let main = MainTable::from_trace(&trace)?;
        let filled = begin.elapsed().as_secs_f64();
        drop(trace);
        let aet = if wants_cpu(options, &main) { Some(job.crate_trace()?) } else { None };
        measure(&mut stages, options, &Row { name: job.name(), claim: &job.claim, main: &main, traced, filled }, aet.as_ref())?;
    }
    let heights = match (options.numbers.as_slice(), options.jobs.is_empty()) {
        ([first, last, ..], _) => *first..=*last,
        (_, true) => 10..=20,
        _ => return Ok(()),
    };
    for log2 in heights {
        let workload = workloads::spin(log2);
        let begin = Instant::now();
        let (claim, aet) = workload.trace()?;
        let traced = begin.elapsed().as_secs_f64();
        let begin = Instant::now();
        let main = MainTable::from_aet(&aet)?;
        let filled = begin.elapsed().as_secs_f64();
        let aet = wants_cpu(options, &main).then_some(aet);
        measure(&mut stages, options, &Row { name: &workload.name, claim: &claim, main: &main, traced, filled }, aet.as_ref())?;
    }
    Ok(())
}

fn wants_cpu(options: &Options, main: &MainTable) -> bool {
    options.cpu.is_some_and(|log2| main.domains().log2_padded_height() <= log2)
}

/// A line of the table.
struct Row<'a> {
    name: &'a str,
    claim: &'a Claim,
    main: &'a MainTable,
    traced: f64,
    filled: f64,
}

fn measure(stages: &mut CudaStages, options: &Options, row: &Row, aet: Option<&AlgebraicExecutionTrace>) -> Outcome<()> {
    let (plan, _) = stages.plan(row.main.domains())?;
    let (mut times, mut verification) = (vec![], 0.0);
    // The first run warms up; the last one of a profile waits after each step and is not counted.
    let profiled = usize::from(options.profile);
    for run in 0..=options.runs() + profiled {
        stages.set_profiling(run > options.runs());
        let begin = Instant::now();
        let proof = prover::prove_main_table(stages, row.claim, row.main, Randomness::Os, &mut Unobserved)?;
        if (1..=options.runs()).contains(&run) {
            times.push(begin.elapsed().as_secs_f64());
        }
        let begin = Instant::now();
        if !triton_vm::verify(Stark::default(), row.claim, &proof) {
            return Err(format!("a proof of {} does not verify", row.name).into());
        }
        verification = begin.elapsed().as_secs_f64();
    }
    times.sort_by(f64::total_cmp);
    let seconds = times[times.len() / 2];
    let cpu = aet.map(|aet| -> Outcome<f64> {
        let begin = Instant::now();
        let proof = Prover::new(Stark::default()).prove(row.claim, aet)?;
        let seconds = begin.elapsed().as_secs_f64();
        if triton_vm::verify(Stark::default(), row.claim, &proof) { Ok(seconds) } else { Err("the crate's proof fails".into()) }
    });
    let cpu = cpu.transpose()?;
    let or_dash = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    println!(
        "{:>28} {:>4} {:>16} {:8.3} {:8.3} {seconds:8.4} {verification:9.4} {:>9} {:>7}",
        row.name,
        row.main.domains().log2_padded_height(),
        format!("{plan:?}"),
        row.traced,
        row.filled,
        or_dash(cpu, 2),
        or_dash(cpu.map(|cpu| cpu / seconds), 0),
    );
    if options.profile {
        floor::print(row.main.domains(), plan, &stages.take_profile());
    }
    stages.set_profiling(false);
    Ok(())
}

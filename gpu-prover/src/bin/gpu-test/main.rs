//! Tests of the CUDA prover on a device: every kernel against the CPU, whole proofs against the crate's, faults.
//!
//! `gpu-test [kernels] [proofs] [random N] [mixed LOG2] [ahead] [faults] [processes] [rates LOG2]`; without arguments everything.
//! Needs no Rust on the host. Without a device it says so and succeeds, unless `REQUIRE_GPU=1`.

mod ahead;
mod faults;
mod proofs;

use std::process::{Command, ExitCode};

use gpu_prover::cuda::{CudaStages, parity};
use gpu_prover::error::GpuError;

/// Random programs of a full run.
const RANDOM_PROGRAMS: u32 = 200;

/// Highest mixed workload of a full run.
const MIXED_LOG2: u32 = 18;

fn main() -> ExitCode {
    let arguments = Arguments(std::env::args().skip(1).collect());
    if let Some(code) = faults::child(&arguments.0) {
        return code;
    }
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
    let mut report = Report { failures: 0, passed: 0 };
    if let Err(error) = run(&mut stages, &arguments, &mut report) {
        report.say("the whole run", Err(error.to_string()));
    }
    println!("{} passed, {} failed", report.passed, report.failures);
    if report.failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(stages: &mut CudaStages, arguments: &Arguments, report: &mut Report) -> Result<(), GpuError> {
    if arguments.want("kernels") {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
        let lengths = [9, 10, 11, 12, 13, 14, 17, 20];
        parity::kernels(stages, &lengths, seed, &mut |name, outcome| report.say(name, outcome))?;
    }
    if arguments.want("proofs") {
        proofs::examples(stages, report)?;
    }
    if arguments.want("random") {
        proofs::random(stages, arguments.number("random", RANDOM_PROGRAMS), report)?;
    }
    if arguments.want("mixed") {
        proofs::mixed(stages, arguments.number("mixed", MIXED_LOG2), report)?;
    }
    if arguments.want("ahead") {
        ahead::all(stages, report)?;
    }
    if arguments.want("faults") {
        faults::all(stages, report)?;
    }
    if arguments.want("processes") {
        report.say("two provers in two processes on one device", two_processes());
    }
    if arguments.want("rates") {
        for rate in parity::rates(stages, arguments.number("rates", 20))? {
            println!("rate    {:28} {:9.3} ms {:9.3} G {}/s", rate.name, rate.milliseconds, rate.giga_per_second, rate.unit);
        }
    }
    Ok(())
}

/// This program twice at the same time, each with proofs of its own.
fn two_processes() -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let start = || Command::new(&program).args(["random", "20"]).env("REQUIRE_GPU", "1").output();
    let outputs = std::thread::scope(|scope| [scope.spawn(start), scope.spawn(start)].map(std::thread::ScopedJoinHandle::join));
    for output in outputs {
        let output = output.map_err(|_| "the thread that waits for a process panicked".to_owned())?;
        let output = output.map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stdout).into_owned());
        }
    }
    Ok(())
}

/// Words of the command line: names of tests, each with a number behind it or not.
struct Arguments(Vec<String>);

impl Arguments {
    fn want(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|a| a == name)
    }

    fn number(&self, name: &str, default: u32) -> u32 {
        let place = self.0.iter().position(|a| a == name);
        place.and_then(|i| self.0.get(i + 1)).and_then(|n| n.parse().ok()).unwrap_or(default)
    }
}

/// Prints and counts.
fn holds(condition: bool) -> Result<(), String> {
    if condition { Ok(()) } else { Err("it does not hold".into()) }
}

struct Report {
    failures: u32,
    passed: u32,
}

impl Report {
    fn say(&mut self, name: &str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => {
                println!("ok      {name}");
                self.passed += 1;
            }
            Err(error) => {
                println!("FAILED  {name}: {error}");
                self.failures += 1;
            }
        }
    }
}

//! Which worker processes a pod runs: what was asked for, what the host has, and who gets how many jobs.

use std::time::Duration;

use anyhow::{Context, bail};
use tracing::{info, warn};

use crate::cli::{LogFormat, RoutingChoice, Serve};
use crate::gpu::choice::{self, Decision, Probe};
use crate::gpu::devices::{VisibleDevice, share_jobs};
use crate::gpu::table::MeasuredTable;
use crate::pool::PoolConfig;
use crate::scheduler::{Backend, Routing};

/// Time that a worker has from start to self-test proof. A small proof on a loaded host, or kernels compiled from PTX for a device
/// that is newer than this build.
const START_TIMEOUT: Duration = Duration::from_mins(5);

/// Jobs at once for each GPU: the one that it proves, and one that is traced ahead of it.
const JOBS_PER_GPU: usize = 2;

/// Jobs at once of the mock prover, which only sleeps.
const MOCK_JOBS: usize = 16;

/// How this pod proves.
///
/// # Errors
/// A GPU was asked for and cannot be used; the text says why and what to do.
pub fn decide(options: &Serve) -> anyhow::Result<Decision> {
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let probe = || match &options.worker_program {
        // A worker for tests needs no GPU.
        Some(_) => Probe { devices: Ok(options.num_gpus.map_or(1, usize::from)), no_kernels: None, parts: Vec::new() },
        None => Probe::look(),
    };
    let decision = match choice::decide(options.backend, visible.as_deref(), options.num_gpus, probe) {
        Ok(decision) => decision,
        Err(reason) => bail!("--backend gpu: {reason}. `prover-pod doctor` says more; --backend auto takes the CPU instead"),
    };
    match &decision {
        Decision::Cpu(Some(reason)) => info!(reason, "[HYBRID] Using CPU execution: no GPU is usable"),
        Decision::Gpu(devices) => info!(devices = devices.len(), "[HYBRID] GPU execution is available"),
        Decision::Cpu(None) | Decision::Mock => {}
    }
    Ok(decision)
}

/// The worker processes, GPUs first.
///
/// # Errors
/// This program cannot find its own file.
pub fn workers(options: &Serve, decision: &Decision) -> anyhow::Result<Vec<PoolConfig>> {
    let program = match &options.worker_program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("cannot find this program's own file")?,
    };
    let log_format = if options.log_format == LogFormat::Json { "json" } else { "text" };
    let worker = |backend: Backend, slots: usize, env: Vec<(String, String)>| PoolConfig {
        backend,
        program: program.clone(),
        args: [
            ["worker", "--backend", backend.name(), "--log-format", log_format].map(str::to_owned).to_vec(),
            vec!["--slots".to_owned(), slots.to_string(), "--cycle-limit".to_owned(), options.cycle_limit.to_string()],
        ]
        .concat(),
        env,
        heartbeat_timeout: options.heartbeat_timeout,
        start_timeout: START_TIMEOUT,
    };
    // A CPU proof takes all cores, and is cancelled with its process: one slot each.
    let on_cpu = |processes: usize| vec![worker(Backend::Cpu, 1, Vec::new()); processes];
    let jobs = options.max_concurrent_jobs.map(usize::from);
    Ok(match decision {
        Decision::Cpu(_) => on_cpu(jobs.unwrap_or(1)),
        Decision::Mock => vec![worker(Backend::Mock, jobs.unwrap_or(MOCK_JOBS), Vec::new())],
        Decision::Gpu(devices) => {
            let shares = share_jobs(jobs.unwrap_or(JOBS_PER_GPU * devices.len()), devices.len());
            if shares.len() < devices.len() {
                warn!(used = shares.len(), devices = devices.len(), "fewer jobs at once than GPUs: some GPUs are not used");
            }
            let on_gpu = |(VisibleDevice(name), &jobs): (&VisibleDevice, &usize)| {
                worker(Backend::Gpu, jobs, vec![("CUDA_VISIBLE_DEVICES".to_owned(), name.clone())])
            };
            let mut workers: Vec<PoolConfig> = devices.iter().zip(&shares).map(on_gpu).collect();
            workers.extend(on_cpu(usize::from(options.cpu_jobs)));
            workers
        }
    })
}

/// Measured seconds of proofs, by kind of prover and log2 padded height.
pub type Measured = Vec<(Backend, u8, f64)>;

/// The routing between GPU and CPU, and measured seconds for estimates.
///
/// # Errors
/// The file cannot be used.
pub fn routing(choice: &RoutingChoice) -> anyhow::Result<(Routing, Measured)> {
    match choice {
        RoutingChoice::Gpu => Ok((Routing::default(), Vec::new())),
        RoutingChoice::CollectionsOnCpu => Ok((Routing::CollectionsOnCpu, Vec::new())),
        RoutingChoice::File(path) => {
            let table = MeasuredTable::read(path).with_context(|| format!("--routing {}", path.display()))?;
            info!(path = %path.display(), heights = table.heights.len(), "[HYBRID] routing as measured");
            Ok((table.routing(), table.seconds().collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(arguments: &[&str]) -> Serve {
        let Command::Serve(options) = Cli::parse_from([&["prover-pod", "serve"], arguments].concat()).command else {
            panic!("is serve")
        };
        *options
    }

    fn gpus(names: &[&str]) -> Decision {
        Decision::Gpu(names.iter().map(|&name| VisibleDevice(name.to_owned())).collect())
    }

    fn summary(arguments: &[&str], decision: &Decision) -> Vec<(Backend, String, Option<String>)> {
        let workers = workers(&options(arguments), decision).expect("has workers");
        let slots = |worker: &PoolConfig| {
            let at = worker.args.iter().position(|arg| arg == "--slots").expect("is told");
            worker.args[at + 1].clone()
        };
        workers.iter().map(|worker| (worker.backend, slots(worker), worker.env.first().map(|(_, v)| v.clone()))).collect()
    }

    #[test]
    fn each_gpu_gets_a_process_that_sees_it_alone() {
        let gpu = |slots: &str, name: &str| (Backend::Gpu, slots.to_owned(), Some(name.to_owned()));
        let cpu = (Backend::Cpu, "1".to_owned(), None);
        assert_eq!(summary(&[], &gpus(&["0", "MIG-a"])), [gpu("2", "0"), gpu("2", "MIG-a"), cpu.clone()]);
        assert_eq!(summary(&["--cpu-jobs", "0"], &gpus(&["3"])), [gpu("2", "3")]);
        let uneven = summary(&["--max-concurrent-jobs", "3", "--cpu-jobs", "2"], &gpus(&["0", "1"]));
        assert_eq!(uneven, [gpu("2", "0"), gpu("1", "1"), cpu.clone(), cpu.clone()]);
        let fewer = summary(&["--max-concurrent-jobs", "1"], &gpus(&["0", "1"]));
        assert_eq!(fewer, [gpu("1", "0"), cpu]);
    }

    #[test]
    fn pods_without_a_gpu_are_as_before() {
        assert_eq!(summary(&[], &Decision::Cpu(None)), [(Backend::Cpu, "1".to_owned(), None)]);
        assert_eq!(summary(&["--max-concurrent-jobs", "3"], &Decision::Cpu(None)).len(), 3);
        assert_eq!(summary(&[], &Decision::Mock), [(Backend::Mock, "16".to_owned(), None)]);
    }

    #[test]
    fn routing_names_a_rule_or_a_file() {
        let rule = routing(&options(&["--routing", "collections-on-cpu"]).routing).expect("is a rule");
        assert_eq!(rule.0, Routing::CollectionsOnCpu);
        assert_eq!(routing(&options(&[]).routing).expect("is a rule").0, Routing::default());
        let missing = options(&["--routing", "/nowhere/table.json"]).routing;
        let error = format!("{:#}", routing(&missing).expect_err("is missing"));
        assert!(error.contains("/nowhere/table.json") && error.contains("cannot read"), "{error}");
    }
}

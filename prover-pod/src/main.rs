//! `prover-pod`: see the library.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use prover_pod::cli::{Bench, Cli, Command, Doctor, LogFormat, Worker};
use prover_pod::gpu::bench::Plan;
use prover_pod::scheduler::Backend;
use prover_pod::stock::{give_proxy, give_wallet};
use prover_pod::worker::{CpuBackend, GpuBackend, Limits, MockBackend, ProverBackend};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(options) => {
            start_logging(options.log_format);
            keep_secrets_off_disk();
            serve(*options)
        }
        Command::Worker(options) => {
            start_logging(options.log_format);
            // First of all: a process that cannot be dumped may not write to its own files in `/proc` either.
            die_before_the_service();
            keep_secrets_off_disk();
            work(&options).map_err(anyhow::Error::from)
        }
        Command::Doctor(options) => return doctor(&options),
        Command::Devices => devices(),
        Command::Bench(options) => {
            start_logging(LogFormat::Text);
            bench(&options)
        }
        Command::Openapi => {
            print!("{}", prover_pod::http::description());
            Ok(())
        }
        Command::GiveProxy { to } => {
            start_logging(LogFormat::Json);
            std::env::current_exe().map_err(anyhow::Error::from).and_then(|program| Ok(give_proxy(&program, &to)?))
        }
        Command::GiveWallet { from, to } => {
            start_logging(LogFormat::Json);
            give_wallet(&from, &to).map_err(anyhow::Error::from)
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn doctor(options: &Doctor) -> ExitCode {
    let report = prover_pod::gpu::doctor::examine(options.prove_up_to);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    } else {
        print!("{}", prover_pod::gpu::doctor::text(&report));
    }
    if report.gpu_is_usable { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn devices() -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(&prover_pod::gpu::found::look())?);
    Ok(())
}

fn bench(options: &Bench) -> anyhow::Result<()> {
    let plan =
        Plan { first: options.first, last: options.last, runs: usize::from(options.runs), cpu_seconds: options.cpu_seconds };
    let table = prover_pod::gpu::bench::measure(plan, |line| println!("{line}"))?;
    if let Some(path) = &options.out {
        std::fs::write(path, serde_json::to_vec_pretty(&table)?).with_context(|| format!("cannot write {}", path.display()))?;
        println!("written to {}; use it with `prover-pod serve --routing {}`", path.display(), path.display());
    }
    Ok(())
}

fn serve(options: prover_pod::cli::Serve) -> anyhow::Result<()> {
    allow_many_connections();
    // Blocking threads read large jobs and verify proofs: work for cores, of which there are fewer than callers.
    let blocking = std::thread::available_parallelism().map_or(1, usize::from) + 8;
    let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(blocking).enable_all().build()?;
    let result = runtime.block_on(prover_pod::serve::run(options));
    // Blocking threads may still verify proofs that nobody will fetch.
    runtime.shutdown_background();
    result
}

/// Runs as a worker. Whatever library code prints must not get between the frames: stdout is moved away first.
fn work(options: &Worker) -> io::Result<()> {
    die_with_parent()?;
    std::panic::set_hook(Box::new(|info| {
        // The place, not the message: that may hold values of the witness.
        tracing::error!(place = info.location().map(ToString::to_string), "panic");
    }));
    let input = nix::unistd::dup(io::stdin())?;
    let output = nix::unistd::dup(io::stdout())?;
    nix::unistd::dup2_stdout(io::stderr())?;
    let backend: Arc<dyn ProverBackend> = match options.backend {
        Backend::Cpu => Arc::new(CpuBackend { limits: Limits { cycles: options.cycle_limit, ..Limits::default() } }),
        Backend::Mock => Arc::new(MockBackend { slots: options.slots }),
        Backend::Gpu => {
            let limits = Limits { cycles: options.cycle_limit, ..Limits::default() };
            Arc::new(GpuBackend::open(options.slots, limits).map_err(io::Error::other)?)
        }
    };
    prover_pod::worker::run(backend, input, output)
}

/// A worker whose service was killed with SIGKILL must not go on proving for nobody.
fn die_with_parent() -> io::Result<()> {
    let parent = nix::unistd::getppid();
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // It may have died before the call.
    if nix::unistd::getppid() != parent {
        return Err(io::Error::other("the service is gone"));
    }
    Ok(())
}

/// When memory runs out, the kernel is to take the worker, which is replaced, and not the service with its queue.
fn die_before_the_service() {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", "500") {
        tracing::debug!(%error, "the kernel's choice under memory pressure stays its own");
    }
}

/// Each waiting caller holds a connection; the usual soft limit of 1024 files is for programs that use `select`.
fn allow_many_connections() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// No core dumps, and no reading of this process's memory by others of the same user: it holds witnesses.
fn keep_secrets_off_disk() {
    let limited = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    let hidden = nix::sys::prctl::set_dumpable(false);
    for error in [limited.err(), hidden.err()].into_iter().flatten() {
        tracing::warn!(%error, "cannot switch core dumps off");
    }
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

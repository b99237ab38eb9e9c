//! `prover-pod serve`: puts the parts together, and takes them apart on SIGTERM.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::cli::{LogFormat, Serve};
use crate::http::{Api, Server, TlsFiles, TlsReloader, Tokens, router};
use crate::intake::Intake;
use crate::memory::available_bytes;
use crate::metrics::Metrics;
use crate::pool::PoolConfig;
use crate::scheduler::{Backend, Config, MemoryGate};
use crate::service::{Service, ServiceConfig};
use crate::tvmp;

/// Time that a worker has from start to self-test proof. A small proof on a loaded host.
const START_TIMEOUT: Duration = Duration::from_mins(5);

/// Time for answers to be taken after the last job has ended.
const FAREWELL: Duration = Duration::from_secs(10);

/// Runs the pod until it is told to stop.
///
/// # Errors
/// A wrong combination of options, a file or an address that cannot be used.
pub async fn run(options: Serve) -> anyhow::Result<()> {
    check_network(&options)?;
    let tokens = Tokens::from_file(options.token_file.clone()).context("cannot read the token file")?;
    let tls = match (options.tls_cert.clone(), options.tls_key.clone()) {
        (Some(certificates), Some(key)) => Some(TlsReloader::start(TlsFiles { certificates, key })?),
        _ => None,
    };
    let server = Server::bind(options.listen, tls).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = server.address()?;
    let loopback_only = address.ip().is_loopback();
    if !server.is_tls() && !loopback_only {
        warn!(
            %address,
            "PLAIN HTTP on an address that others reach: jobs of a node carry spending secrets. Give --tls-cert and --tls-key, or \
             listen on loopback"
        );
    }
    if !tokens.required() && !loopback_only {
        warn!(%address, "no --token-file: whoever reaches this address can use the prover");
    }

    let service = Service::start(service_config(&options)?, Metrics::new()?);
    let (stop, stopped) = watch::channel(false);
    if let Some(tcp) = options.tcp {
        let listener = TcpListener::bind(tcp).await.with_context(|| format!("cannot listen on {tcp}"))?;
        if !tcp.ip().is_loopback() {
            warn!(%tcp, "TVMP knows neither encryption nor tokens: whoever reaches this address can use the prover and listen in");
        }
        info!(address = %listener.local_addr()?, "TVMP on TCP");
        tokio::spawn(tvmp::serve_tcp(listener, service.clone(), stopped.clone()));
    }
    if let Some(path) = &options.unix {
        let listener = tvmp::bind_unix(path).await.with_context(|| format!("cannot listen on {}", path.display()))?;
        info!(path = %path.display(), "TVMP on a Unix socket");
        tokio::spawn(tvmp::serve_unix(listener, service.clone(), stopped.clone()));
    }

    let api = Api { service: service.clone(), intake: Intake::new(options.max_body_bytes, prover_api::MAX_JOB_BYTES) };
    let scheme = if server.is_tls() { "https" } else { "http" };
    let serving = tokio::spawn(server.serve(router(api, tokens), stopped));
    if let Some(path) = &options.port_file {
        write_port(path, address.port())?;
    }
    info!("listening on {scheme}://{address}");

    wait_for_signal().await?;
    drain(&service, options.grace_period).await;
    stop.send_replace(true);
    if timeout(FAREWELL, serving).await.is_err() {
        warn!("some connections did not end");
    }
    if let Some(path) = &options.unix {
        drop(std::fs::remove_file(path));
    }
    info!("stopped");
    Ok(())
}

fn check_network(options: &Serve) -> anyhow::Result<()> {
    let mock = options.backend == Backend::Mock;
    match options.network {
        Some(network) if network.is_mock() != mock => bail!(
            "{} and --backend {} do not go together: the mock networks (regtest, testnet-mock) have mock proofs, all others real ones",
            clap::ValueEnum::to_possible_value(&network)
                .map_or_else(String::new, |value| format!("--network {}", value.get_name())),
            options.backend.name()
        ),
        _ => {}
    }
    if options.num_gpus.is_some_and(|gpus| gpus > 0) {
        warn!(num_gpus = options.num_gpus, "this build has no GPU backend: all proofs are made on the CPU");
    }
    Ok(())
}

fn service_config(options: &Serve) -> anyhow::Result<ServiceConfig> {
    let mock = options.backend == Backend::Mock;
    let jobs = usize::from(options.max_concurrent_jobs.unwrap_or(if mock { 16 } else { 1 }));
    let limit = if let Some(limit) = options.memory_limit {
        limit
    } else {
        let free = available_bytes().context("cannot tell how much memory there is; give --memory-limit")?;
        free.saturating_sub(options.max_body_bytes.min(free / 8))
    };
    let memory = MemoryGate { limit };
    info!(
        memory_limit_bytes = limit,
        max_log2_padded_height = memory.largest(options.backend).min(options.max_log2_padded_height.unwrap_or(u8::MAX)),
        backend = options.backend.name(),
        jobs,
        "capacity"
    );
    let program = match &options.worker_program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("cannot find this program's own file")?,
    };
    let log_format = if options.log_format == LogFormat::Json { "json" } else { "text" };
    // The mock prover only sleeps: one process serves all slots. A CPU proof takes all cores, and is cancelled with its process.
    let (processes, slots) = if mock { (1, jobs) } else { (jobs, 1) };
    let args = ["worker", "--backend", options.backend.name(), "--log-format", log_format].map(str::to_owned);
    let limits = ["--slots".to_owned(), slots.to_string(), "--cycle-limit".to_owned(), options.cycle_limit.to_string()];
    let worker = PoolConfig {
        program,
        args: args.into_iter().chain(limits).collect(),
        env: Vec::new(),
        heartbeat_timeout: options.heartbeat_timeout,
        start_timeout: START_TIMEOUT,
    };
    Ok(ServiceConfig {
        scheduler: Config {
            max_queued: options.max_queued,
            max_body_bytes: options.max_body_bytes,
            proof_cache_bytes: options.proof_cache_bytes,
            quarantine_after: options.quarantine_after,
            max_log2_padded_height: options.max_log2_padded_height,
            ..Config::default()
        },
        memory,
        workers: vec![worker; processes],
        mock,
    })
}

/// Written beside and renamed: whoever waits for the file never reads half of it.
fn write_port(path: &PathBuf, port: u16) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, format!("{port}\n")).with_context(|| format!("cannot write {}", beside.display()))?;
    std::fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => info!("SIGTERM"),
        _ = interrupt.recv() => info!("SIGINT"),
    }
    Ok(())
}

/// Lets running jobs end. A second signal ends the wait.
async fn drain(service: &Service, grace: Duration) {
    info!(grace_seconds = grace.as_secs(), "draining: running jobs end, waiting ones go elsewhere");
    tokio::select! {
        drained = timeout(grace, service.drain()) => if drained.is_ok() {
            info!("drained");
        } else {
            warn!("the grace period is over; running jobs are lost here, their callers ask elsewhere");
        },
        _ = wait_for_signal() => warn!("second signal: running jobs are lost here, their callers ask elsewhere"),
    }
}

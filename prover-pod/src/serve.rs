//! `prover-pod serve`: puts the parts together, and takes them apart on SIGTERM.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::agreements::Agreements;
use crate::cli::Serve;
use crate::gpu::choice::{BackendChoice, Decision};
use crate::http::{Api, ReviewOptions, Reviewer, Server, TlsFiles, TlsReloader, Tokens, router};
use crate::intake::Intake;
use crate::layout;
use crate::memory::{GPU_WORKER_BYTES, available_bytes};
use crate::metrics::Metrics;
use crate::pool::PoolConfig;
use crate::scheduler::{Backend, Config, MemoryGate};
use crate::service::{Service, ServiceConfig};
use crate::tvmp;

/// Time for answers to be taken after the last job has ended.
const FAREWELL: Duration = Duration::from_secs(10);

/// Runs the pod until it is told to stop.
///
/// # Errors
/// A wrong combination of options, a file or an address that cannot be used.
pub async fn run(options: Serve) -> anyhow::Result<()> {
    check_network(&options)?;
    let mut tokens = Tokens::from_file(options.token_file.clone()).context("cannot read the token file")?;
    if !options.service_accounts.is_empty() {
        let review = ReviewOptions {
            api: options.kube_api.clone(),
            directory: options.kube_dir.clone(),
            audience: options.token_audience.clone(),
            accounts: options.service_accounts.clone(),
            believed_for: options.token_review_seconds,
        };
        tokens = tokens.with_reviewer(Reviewer::new(review).context("service accounts cannot be let in")?);
    }
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
        warn!(%address, "no --token-file and no --allow-service-account: whoever reaches this address can use the prover");
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

    let intake = Intake::new(options.max_body_bytes, prover_api::MAX_JOB_BYTES);
    let api = Api { service: service.clone(), intake, agreements: Agreements::default() };
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
    let mock = options.backend == BackendChoice::Mock;
    match options.network {
        Some(network) if network.is_mock() != mock => bail!(
            "{} and --backend {} do not go together: the mock networks (regtest, testnet-mock) have mock proofs, all others real ones",
            clap::ValueEnum::to_possible_value(&network)
                .map_or_else(String::new, |value| format!("--network {}", value.get_name())),
            options.backend.name()
        ),
        _ => {}
    }
    Ok(())
}

fn service_config(options: &Serve) -> anyhow::Result<ServiceConfig> {
    let decision = layout::decide(options)?;
    let workers = layout::workers(options, &decision)?;
    let limit = if let Some(limit) = options.memory_limit {
        limit
    } else {
        let free = available_bytes().context("cannot tell how much memory there is; give --memory-limit")?;
        let gpus = workers.iter().filter(|worker| worker.backend == Backend::Gpu).count() as u64;
        free.saturating_sub(options.max_body_bytes.min(free / 8)).saturating_sub(gpus * GPU_WORKER_BYTES)
    };
    let memory = MemoryGate { limit };
    let (routing, measured) = layout::routing(&options.routing)?;
    let main = workers.first().map_or(Backend::Cpu, |worker| worker.backend);
    info!(
        memory_limit_bytes = limit,
        max_log2_padded_height = memory.largest(main).min(options.max_log2_padded_height.unwrap_or(u8::MAX)),
        backend = main.name(),
        workers = workers.len(),
        "capacity"
    );
    Ok(ServiceConfig {
        scheduler: Config {
            max_queued: options.max_queued,
            max_body_bytes: options.max_body_bytes,
            proof_cache_bytes: options.proof_cache_bytes,
            quarantine_after: options.quarantine_after,
            max_log2_padded_height: options.max_log2_padded_height,
            routing,
            gpu_lanes: gpu_lanes(&workers),
            ..Config::default()
        },
        memory,
        workers,
        measured,
        mock: decision == Decision::Mock,
    })
}

/// A program's run takes a core for a second, the filling of a table all of them for half of one: a quarter of the cores for each
/// GPU. By the scheduler's test two are enough.
fn gpu_lanes(workers: &[PoolConfig]) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let gpus = workers.iter().filter(|worker| worker.backend == Backend::Gpu).count();
    (cores / (4 * gpus.max(1))).clamp(2, 4)
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

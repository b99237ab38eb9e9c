//! `upgrader`: see the library.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use prover_api::client::{Client, Token};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use upgrader::choices::{Choices, FleetSecret};
use upgrader::cli::{Cli, LogFormat};
use upgrader::engine::{Context, Engine, Options, Proving};
use upgrader::explain::Board;
use upgrader::http;
use upgrader::metrics::Metrics;
use upgrader::node::{NodeError, Nodes};
use upgrader::policy::Policy;
use upgrader::recipient::FeeAddress;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // What neptune-consensus finds wrong in a witness it logs whole.
    let quiet = "neptune_consensus::transaction::primitive_witness=off".parse();
    let filter = quiet.map_or_else(|_| EnvFilter::new("error"), |quiet| filter.add_directive(quiet));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let nodes = Nodes::new(&cli.nodes)?;
    let mut provers = Client::builder().endpoints(cli.provers.clone());
    if let Some(path) = &cli.prover_token_file {
        let token = Token::from_file(path).with_context(|| format!("cannot read {}", path.display()))?;
        provers = provers.token(token);
    }
    let provers = provers.build().context("cannot use the prover pods")?;
    let address = cli.fee_address.as_deref().map(|text| FeeAddress::parse(text, cli.network)).transpose()?;
    if address.is_none() && cli.min_gobbling_fee.is_positive() && cli.tx_proof_upgrading {
        bail!("give --fee-address for the fees, or --min-gobbling-fee 0 to upgrade for free");
    }
    let secret = match &cli.fleet_secret_file {
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            text.parse::<FleetSecret>().with_context(|| path.display().to_string())?
        }
        None => FleetSecret::random(),
    };
    let metrics = Arc::new(Metrics::new(cli.price_per_prover_hour)?);
    let context = Arc::new(Context {
        nodes,
        provers,
        network: cli.network,
        proving: Proving::of(cli.network, cli.mock_proof_time),
        policy: Policy {
            gobbling_fraction: if address.is_some() { cli.gobbling_fraction } else { 0.0 },
            min_gobbling_fee: cli.min_gobbling_fee,
            max_num_proofs: cli.max_num_proofs,
        },
        address,
        choices: Choices::new(secret),
        metrics: metrics.clone(),
        heavy: Semaphore::new(1),
        gpu: AtomicBool::new(false),
        jobs: AtomicU64::new(0),
        running: AtomicUsize::new(0),
    });

    let board = Arc::new(Board::new(cli.tx_upgrade_filter));
    let (listener, bound) = http::bind(cli.listen).await.with_context(|| format!("cannot listen on {}", cli.listen))?;
    if let Some(path) = &cli.port_file {
        std::fs::write(path, format!("{}\n", bound.port())).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let stop = CancellationToken::new();
    let served = CancellationToken::new();
    let server = tokio::spawn(http::serve(listener, http::router(board.clone(), metrics), served.clone()));
    tracing::info!(listen = %bound, shard = %cli.tx_upgrade_filter, network = %cli.network, "upgrader is up");

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopping.cancel();
    });

    if await_network(&context, &stop).await? {
        let options = Options {
            shard: cli.tx_upgrade_filter,
            enabled: cli.tx_proof_upgrading,
            max_parallel_upgrades: usize::from(cli.max_parallel_upgrades),
            poll_interval: cli.poll_interval,
            grace: cli.grace_period,
        };
        Engine::new(context, options, board).run(stop).await;
    }
    served.cancel();
    server.await??;
    Ok(())
}

/// Waits for a node and checks that it is on the right network: proofs for another one would be worthless. False: told to stop.
async fn await_network(context: &Context, stop: &CancellationToken) -> Result<bool> {
    let mut said = false;
    loop {
        let answer = tokio::select! {
            answer = context.nodes.network_id() => answer,
            () = stop.cancelled() => return Ok(false),
        };
        match answer {
            Ok(network) if network == context.network => return Ok(true),
            Ok(network) => bail!("the node is on {network} and this upgrader on {}; give --network {network}", context.network),
            Err(error @ NodeError::MethodMissing) => bail!("{error}"),
            Err(error) if !said => {
                tracing::warn!(node = context.nodes.current(), %error, "waiting for the node");
                said = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = stop.cancelled() => return Ok(false),
        }
    }
}

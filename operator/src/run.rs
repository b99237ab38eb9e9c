//! The process: watches, leadership, reconciling, and an orderly end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt;
use futures::channel::mpsc;
use kube::runtime::controller::Config as ControllerConfig;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::{Controller, WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, Resource};
use rand::RngExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::announce::Announcer;
use crate::args::Run;
use crate::build::{Defaults, MANAGER};
use crate::caches::{Caches, few_at_once};
use crate::http::{LogFilter, Probes, serve};
use crate::kinds::Kind;
use crate::lease::Candidate;
use crate::metrics::Metrics;
use crate::poll::{Answers, Poller};
use crate::reconcile::{Context, Guarded, after_error, reconcile};
use crate::token::Tokens;
use crate::writer::Writer;

/// How the process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it was told.
    Told,
    /// Another process leads now; this one must not go on.
    LeadershipLost,
}

/// Runs until SIGTERM or SIGINT, or until leadership is lost.
///
/// # Errors
/// No API server, or an address that cannot be had.
pub async fn run(args: Run, filter: Option<LogFilter>) -> anyhow::Result<Ending> {
    let config = Config::infer().await.context("no kubeconfig and not in a cluster")?;
    let client = Client::try_from(config).context("the API server's address or credentials")?;
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;

    let metrics = Metrics::new().context("metrics")?;
    let (trigger, triggered) = mpsc::unbounded();
    let optional = monitoring_kinds(&client).await;
    let watches = CancellationToken::new();
    let namespace = args.watch_namespace.as_deref();
    let caches = Caches::start(&client, namespace, &optional, &trigger, &watches);
    let definition = Arc::new(AtomicBool::new(false));

    let probes = Probes { metrics: metrics.clone(), caches: caches.clone(), definition: Arc::clone(&definition), filter };
    let http = tokio::spawn(serve(args.listen, probes, watches.clone()));

    let (answers, tokens) = (Answers::default(), Tokens::default());
    if args.poll_seconds > 0 {
        let poller = Poller {
            // Certificates are not checked: over TLS nothing is asked but readiness, and nothing sent.
            client: reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                // A new connection each time: one that is kept costs memory and a file for each of thousands of pods, and says
                // less, for a pod that takes no new connections does no work.
                .pool_max_idle_per_host(0)
                .tls_danger_accept_invalid_certs(true)
                .build()
                .context("a client for pods")?,
            pods: caches.pods.clone(),
            answers: answers.clone(),
            trigger: trigger.clone(),
            metrics: metrics.clone(),
            tokens: tokens.clone(),
            through: args.poll_through.clone(),
        };
        tokio::spawn(poller.run(Duration::from_secs(u64::from(args.poll_seconds)), watches.clone()));
    }

    // Not the leader: caches are warm, nothing is written.
    let identity = args.identity.clone().unwrap_or_else(|| "operator".to_owned());
    let identity = format!("{identity}_{:08x}", rand::rng().random::<u32>());
    let mut candidate = Candidate::new(client.clone(), &args.namespace, &args.lease, identity, args.lease_duration());
    if !ready(&client, namespace, &caches, &definition, &stop).await {
        return end(http, &watches, Ending::Told).await;
    }
    if !candidate.acquire(&stop).await {
        return end(http, &watches, Ending::Told).await;
    }
    metrics.leader.set(1);

    let leadership = candidate.leadership();
    let writer = Arc::new(Writer::new(client.clone(), leadership, metrics.clone(), args.abort_after_writes));
    let reporter = Reporter { controller: MANAGER.to_owned(), instance: args.identity.clone() };
    let defaults = Defaults {
        upgrader_image: args.upgrader_image.clone(),
        prover_image: args.prover_image.clone(),
        operator_namespace: args.namespace.clone(),
    };
    let token_every = Duration::from_hours(24 * u64::from(args.token_days));
    let (announcer, announcing) = Announcer::start(Recorder::new(client.clone(), reporter), Arc::clone(&writer));
    let context = Arc::new(Context::new(caches, answers, tokens, writer, announcer, metrics.clone(), defaults, token_every));

    let api: Api<Guarded> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let reconciling = CancellationToken::new();
    let (fleets, writer) = reflector::store();
    let forgetting = Arc::clone(&context);
    // A fleet goes without a word where nothing holds its deletion up: then the watch alone tells.
    let watch = watcher(api, few_at_once()).modify(slim).reflect(writer).inspect(move |event| {
        if let Ok(watcher::Event::Delete(gone)) = event {
            forgetting.forget(gone.meta());
        }
    });
    let controller = Controller::for_stream(watch.applied_objects(), fleets)
        .with_config(ControllerConfig::default().concurrency(args.concurrency).debounce(Duration::from_millis(50)))
        .reconcile_on(triggered)
        .graceful_shutdown_on(reconciling.clone().cancelled_owned())
        .run(reconcile, after_error, context)
        .for_each(|_| std::future::ready(()));
    let controller = tokio::spawn(controller);

    let told = candidate.keep(&stop).await;
    metrics.leader.set(0);
    if !told {
        error!("leadership lost: this process ends, so that it writes nothing more");
        return Ok(Ending::LeadershipLost);
    }
    // Running reconciles end first: until then the Lease is ours.
    reconciling.cancel();
    if tokio::time::timeout(Duration::from_secs(20), controller).await.is_err() {
        warn!("a reconcile did not end in 20 seconds");
    }
    // The last ones have left their events; a reconcile that goes on keeps the task alive.
    let _ = tokio::time::timeout(Duration::from_secs(5), announcing).await;
    candidate.release().await;
    end(http, &watches, Ending::Told).await
}

/// Takes out what nobody reads: who manages which field of a fleet is more than the fleet itself.
fn slim(fleet: &mut Guarded) {
    let meta = fleet.meta_mut();
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

async fn end(
    http: tokio::task::JoinHandle<std::io::Result<()>>,
    watches: &CancellationToken,
    ending: Ending,
) -> anyhow::Result<Ending> {
    watches.cancel();
    match tokio::time::timeout(Duration::from_secs(5), http).await {
        Ok(Ok(served)) => served.context("serving probes")?,
        Ok(Err(error)) => warn!(%error, "serving probes"),
        Err(_) => {}
    }
    info!("stopped");
    Ok(ending)
}

/// Waits for the definition and for all watches; false when told to stop before.
async fn ready(
    client: &Client,
    namespace: Option<&str>,
    caches: &Caches,
    definition: &AtomicBool,
    stop: &CancellationToken,
) -> bool {
    let api: Api<Guarded> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let waiting = async {
        loop {
            match api.list(&kube::api::ListParams::default().limit(1)).await {
                Ok(_) => break,
                Err(error) => warn!(%error, "upgraderfleets cannot be listed: is the definition applied?"),
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        definition.store(true, Ordering::Release);
        caches.wait().await;
    };
    tokio::select! {
        () = stop.cancelled() => false,
        () = waiting => true,
    }
}

/// The kinds of Prometheus' operator that the cluster has.
async fn monitoring_kinds(client: &Client) -> Vec<Kind> {
    let Ok(list) = client.list_api_group_resources("monitoring.coreos.com/v1").await else {
        info!("the cluster has no monitoring.coreos.com/v1: ServiceMonitors and PrometheusRules are left out");
        return Vec::new();
    };
    let has = |kind: &Kind| list.resources.iter().any(|resource| resource.kind == kind.name());
    Kind::ALL.into_iter().filter(|kind| kind.is_optional() && has(kind)).collect()
}

fn stop_on_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("told to stop");
        stop.cancel();
    });
    Ok(())
}

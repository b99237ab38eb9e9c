//! `/healthz`, `/readyz`, `/metrics`, and the log's filter at `/log`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::caches::Caches;
use crate::metrics::Metrics;

/// What changes the log's filter at run time.
pub type LogFilter = reload::Handle<EnvFilter, Registry>;

/// What the endpoints tell.
#[derive(Clone)]
pub struct Probes {
    /// Numbers.
    pub metrics: Metrics,
    /// The watches.
    pub caches: Caches,
    /// Whether the API server has our definition.
    pub definition: Arc<AtomicBool>,
    /// The log's filter; none in tests.
    pub filter: Option<LogFilter>,
}

/// Serves until the token says stop.
///
/// # Errors
/// The address cannot be had.
pub async fn serve(listen: SocketAddr, probes: Probes, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/log", get(filter).put(set_filter))
        .with_state(probes);
    let listener = tokio::net::TcpListener::bind(listen).await?;
    info!(address = %listener.local_addr()?, "listening");
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Ready when everything has been listed once. Standing by is ready, too: the rollout of two replicas must not wait for the first
/// to give up the Lease.
async fn readyz(State(probes): State<Probes>) -> Response {
    let mut missing = probes.caches.missing();
    if !probes.definition.load(Ordering::Acquire) {
        missing.push("the definition of upgraderfleets.upgrader-fleet.dev".to_owned());
    }
    if missing.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", "))).into_response()
    }
}

async fn metrics(State(probes): State<Probes>) -> Response {
    match probes.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn filter(State(probes): State<Probes>) -> Response {
    let text = probes.filter.and_then(|filter| filter.with_current(ToString::to_string).ok());
    text.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |text| format!("{text}\n").into_response())
}

async fn set_filter(State(probes): State<Probes>, body: String) -> Response {
    match (body.trim().parse::<EnvFilter>(), probes.filter) {
        (Ok(new), Some(filter)) => match filter.reload(new) {
            Ok(()) => {
                info!(filter = body.trim(), "the log's filter is another");
                StatusCode::NO_CONTENT.into_response()
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        (Err(error), _) => {
            (StatusCode::BAD_REQUEST, format!("not a filter such as info,operator=debug: {error}\n")).into_response()
        }
        (Ok(_), None) => StatusCode::NOT_FOUND.into_response(),
    }
}

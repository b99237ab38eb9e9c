//! What an upgrader answers over HTTP: health, metrics, explanations. Nothing secret, nothing that changes anything.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::TxId;
use crate::explain::{Board, Recent, Running};
use crate::metrics::Metrics;

#[derive(Clone)]
struct Shared {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
}

#[derive(Serialize)]
struct Upgrades {
    running: Vec<Running>,
    recent: Vec<Recent>,
}

/// The routes.
pub fn router(board: Arc<Board>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/upgrades", get(upgrades))
        .route("/explain/{txid}", get(explain))
        .with_state(Shared { board, metrics })
}

/// Serves until told to stop.
///
/// # Errors
/// Those of the listener.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

/// Binds, and says where.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let readiness = shared.board.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    match shared.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn upgrades(State(shared): State<Shared>) -> Json<Upgrades> {
    let (running, recent) = shared.board.upgrades();
    Json(Upgrades { running, recent })
}

async fn explain(State(shared): State<Shared>, Path(text): Path<String>) -> Response {
    match text.parse::<TxId>() {
        Ok(txid) => Json(shared.board.explain(txid)).into_response(),
        Err(error) => {
            let problem = json!({"title": "not a transaction id", "status": 400, "detail": error.to_string()});
            let media = [(header::CONTENT_TYPE, "application/problem+json")];
            (StatusCode::BAD_REQUEST, media, problem.to_string()).into_response()
        }
    }
}

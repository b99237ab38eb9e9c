//! The HTTP API, version 1.

mod auth;
mod destination;
mod info;
mod problem;
mod proofs;
mod review;
mod server;

use std::sync::Arc;

pub use auth::Tokens;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Router, http::StatusCode};
pub use problem::{ApiError, ended, refused};
use prover_api::{Problem, ProblemType};
pub use review::{ReviewOptions, Reviewer};
pub use server::{Server, TlsFiles, TlsReloader};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use utoipa::OpenApi;

use crate::agreements::Agreements;
use crate::intake::Intake;
use crate::service::Service;

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Api {
    /// The pod.
    pub service: Service,
    /// Uploads.
    pub intake: Intake,
    /// What clients have agreed on.
    pub agreements: Agreements,
}

/// All routes.
pub fn router(api: Api, tokens: Tokens) -> Router {
    let v1 = Router::new()
        .route("/v1/proofs", post(proofs::submit))
        .route("/v1/proofs/{id}", get(proofs::status).delete(proofs::cancel))
        .route("/v1/proofs/{id}/proof", get(proofs::proof))
        .route("/v1/proofs/{id}/events", get(proofs::events))
        .route("/v1/proofs/{id}/destination", put(destination::agree))
        .route("/v1/devices", get(info::devices))
        .route("/v1/capacity", get(info::capacity))
        .layer(middleware::from_fn_with_state(tokens, auth::require_token));
    let metrics = api.service.metrics().clone();
    Router::new()
        .merge(v1)
        .route("/openapi.json", get(info::openapi))
        .route("/healthz", get(info::healthz))
        .route("/readyz", get(info::readyz))
        .route("/metrics", get(info::metrics))
        .fallback(|| async { ApiError(Problem::new(ProblemType::NotFound)) })
        .method_not_allowed_fallback(|| async { ApiError(Problem::new(ProblemType::MethodNotAllowed)) })
        .with_state(Arc::new(api))
        .layer(middleware::from_fn_with_state(metrics, count))
        // Proofs stay as they are: their field elements are as good as random, gzip saves 1.3 % of them.
        .layer(CompressionLayer::new().compress_when(DefaultPredicate::new().and(NotForContentType::const_new(PROOF))))
}

/// Media type of proofs.
const PROOF: &str = "application/octet-stream";

/// Counts answers by route, not by path: ids are no labels.
async fn count(State(metrics): State<crate::metrics::Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "PUT" | "DELETE" | "HEAD") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    metrics.http_requests.with_label_values(&[&method, &route, response.status().as_str()]).inc();
    response
}

/// The API's description.
#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Prover pod",
        description = "Takes proof jobs of Triton VM (proof version 8), proves them and returns verified proofs. \
            The claim is the identity of a job: equal claims share one run, and one proof serves all callers."
    ),
    paths(
        proofs::submit,
        proofs::status,
        proofs::cancel,
        proofs::proof,
        proofs::events,
        destination::agree,
        info::devices,
        info::capacity,
        info::openapi,
        info::healthz,
        info::readyz,
        info::metrics
    ),
    components(schemas(
        prover_api::Capacity,
        prover_api::Destination,
        prover_api::DeviceInfo,
        prover_api::GpuInfo,
        prover_api::HeightPlan,
        prover_api::JobKind,
        prover_api::JobState,
        prover_api::JobStatus,
        prover_api::MockJob,
        prover_api::Priority,
        Problem,
        ProblemType,
        prover_api::QueueLength,
        prover_api::StageSeconds
    ))
)]
pub struct Description;

/// The description as JSON, with a line end: what `docs/openapi.json` holds.
pub fn description() -> String {
    let mut text = Description::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// 200 with a text, or 503.
fn verdict(ok: bool, text: String) -> Response {
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text).into_response()
}

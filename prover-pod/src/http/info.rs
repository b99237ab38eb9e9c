//! What the pod says of itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use prover_api::{Capacity, DeviceInfo, Problem, ProblemType};

use super::{Api, ApiError, description, verdict};

/// The devices of the pod and what they are doing.
#[utoipa::path(get, path = "/v1/devices", tag = "pod",
    responses((status = 200, body = Vec<DeviceInfo>), (status = 401, body = Problem, content_type = "application/problem+json")))]
pub async fn devices(State(api): State<Arc<Api>>) -> Json<Vec<DeviceInfo>> {
    Json(api.service.devices())
}

/// What the pod can take now: what a client needs to choose one.
#[utoipa::path(get, path = "/v1/capacity", tag = "pod",
    responses((status = 200, body = Capacity), (status = 401, body = Problem, content_type = "application/problem+json")))]
pub async fn capacity(State(api): State<Arc<Api>>) -> Json<Capacity> {
    Json(api.service.capacity())
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", tag = "pod", responses((status = 200, content_type = "application/json")))]
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], description()).into_response()
}

/// Whether the process serves at all.
#[utoipa::path(get, path = "/healthz", tag = "pod", responses((status = 200)))]
pub async fn healthz(State(api): State<Arc<Api>>) -> Response {
    // Taking the lock is the check: a pod that hangs in it must not look healthy.
    verdict(true, format!("ok, {} jobs running\n", api.service.capacity().running))
}

/// Whether the pod takes jobs: some device has passed its self-test, and the pod is not draining.
#[utoipa::path(get, path = "/readyz", tag = "pod", responses((status = 200), (status = 503)))]
pub async fn readyz(State(api): State<Arc<Api>>) -> Response {
    let capacity = api.service.capacity();
    let text = if capacity.ready {
        "ready\n".to_owned()
    } else if capacity.draining {
        "draining: running jobs end, new ones go elsewhere\n".to_owned()
    } else {
        let devices = api.service.devices();
        let quarantined = devices.iter().filter(|device| device.quarantined).count();
        format!("no device is ready: {} known, {quarantined} quarantined, the others start or test themselves\n", devices.len())
    };
    verdict(capacity.ready, text)
}

/// Metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "pod", responses((status = 200, content_type = "text/plain")))]
pub async fn metrics(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    api.service.refresh_gauges();
    let text = api.service.metrics().render().map_err(|_| Problem::new(ProblemType::Internal))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}

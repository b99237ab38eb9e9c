//! Clients that want the same proof at the same time agree on where to send it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use prover_api::{Destination, Problem, ProblemType};
use tokio::time::timeout;

use super::proofs::job_id;
use super::{Api, ApiError};

/// Longest body: two names of pods and what JSON puts around them.
const MAX_BYTES: usize = 4 << 10;

/// How long the body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// Agrees with other clients on the pod that a new job is sent to.
///
/// Two clients that look for a job at the same moment both find it nowhere, and each chooses a pod by what that one has to do at
/// that moment: the job would be proven twice. So each names its choice, before it sends the job, to the first two pods in the
/// order of the job that are up, and goes where the answer says: to the choice of whoever came first, within the last ten seconds.
/// The pod that is asked sends nothing to anybody. For an hour it tells those who ask it for the job where it went (`sent_to` in
/// the problem `not-found`).
#[utoipa::path(put, path = "/v1/proofs/{id}/destination", tag = "proofs",
    params(("id" = String, Path, description = "Tip5 hash of the claim, 80 hexadecimal digits")),
    request_body(content = Destination, description = "The caller's choice"),
    responses((status = 200, body = Destination, description = "What counts"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "bad-request"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request-timeout"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "payload-too-large")))]
pub async fn agree(State(api): State<Arc<Api>>, Path(id): Path<String>, body: Body) -> Result<Json<Destination>, ApiError> {
    let job = job_id(&id)?;
    let body = timeout(ARRIVES_WITHIN, to_bytes(body, MAX_BYTES)).await;
    let bytes = body
        .map_err(|_| Problem::new(ProblemType::RequestTimeout).detail("the body stopped coming"))?
        .map_err(|_| Problem::new(ProblemType::PayloadTooLarge).detail(format!("at most {MAX_BYTES} bytes")))?;
    let choice: Destination = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(ProblemType::BadRequest).detail(format!("not a destination: {error}")))?;
    if !choice.is_sound() {
        let most = Destination::MAX_POD_BYTES;
        let why = format!("the name of a pod is its base URL: 1 to {most} visible ASCII characters");
        return Err(Problem::new(ProblemType::BadRequest).detail(why).into());
    }
    Ok(Json(Destination { pod: api.agreements.agree(job, choice), instead_of: None }))
}

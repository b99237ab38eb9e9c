//! Jobs and proofs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use prover_api::{JobId, JobKind, JobState, JobStatus, Priority, Problem, ProblemType, headers};
use tokio_stream::wrappers::WatchStream;
use tracing::info;

use super::{Api, ApiError, ended};
use crate::intake::{Encoding, Wishes, parse, parse_deadline};
use crate::scheduler::Accepted;
use crate::service::{Answer, ClientId};

/// Bodies up to this length are read in less time than it takes to hand them to another thread.
const READ_AT_ONCE: usize = 64 << 10;

/// How often a silent event stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Asks for a proof.
///
/// The body is a prover job: the JSON document that neptune-core writes to its prover (program, claim, non_determinism,
/// max_log2_padded_height, env_vars), or on a pod of the mock networks a MockJob. Waits for the proof, unless
/// `Prefer: respond-async` is sent. Hanging up withdraws the wish; the job goes on while others want it.
#[utoipa::path(post, path = "/v1/proofs", tag = "proofs",
    params(
        ("X-Priority" = Option<Priority>, Header, description = "Urgency; `normal` when not sent"),
        ("X-Force-Cpu" = Option<bool>, Header, description = "Not on a GPU, as long as the pod has a CPU prover"),
        ("X-Deadline" = Option<String>, Header, description = "When the caller stops waiting: seconds from now, or RFC 3339"),
        ("X-Job-Kind" = Option<JobKind>, Header, description = "What the job is for; a label in metrics"),
        ("X-Client-Id" = Option<String>, Header, description = "With respond-async: the name under which the wish can be cancelled"),
        ("X-Job-Id" = Option<String>, Header, description = "The job's id, if the caller knows it: with it, a pod that drains lets callers join a job that it still makes"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer at once, 202"),
        ("Content-Encoding" = Option<String>, Header, description = "`gzip`, `zstd` or none; 256 MiB after decompression"),
    ),
    request_body(content = String, content_type = "application/json", description = "A prover job or, on mock networks, a MockJob"),
    responses(
        (status = 200, content_type = "application/octet-stream", description = "The verified proof, `bincode(Proof)`"),
        (status = 202, body = JobStatus, description = "Accepted; `Location` tells where to look"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "malformed-job, bad-request"),
        (status = 401, body = Problem, content_type = "application/problem+json", description = "unauthorized"),
        (status = 408, body = Problem, content_type = "application/problem+json", description = "request-timeout"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "proof-version, wrong-network"),
        (status = 413, body = Problem, content_type = "application/problem+json", description = "payload-too-large"),
        (status = 415, body = Problem, content_type = "application/problem+json", description = "unsupported-encoding"),
        (status = 422, body = Problem, content_type = "application/problem+json",
            description = "padded-height-too-big, program-failed, program-endless, program-digest-mismatch, output-mismatch"),
        (status = 429, body = Problem, content_type = "application/problem+json", description = "queue-full, with Retry-After"),
        (status = 499, body = Problem, content_type = "application/problem+json", description = "cancelled"),
        (status = 500, body = Problem, content_type = "application/problem+json",
            description = "worker-lost, invalid-proof, prover-failed, internal"),
        (status = 503, body = Problem, content_type = "application/problem+json", description = "draining, no-device, with Retry-After"),
        (status = 504, body = Problem, content_type = "application/problem+json", description = "deadline-exceeded"),
    ))]
pub async fn submit(State(api): State<Arc<Api>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let (wishes, client, respond_async) = (wishes(&headers)?, client_id(&headers)?, prefers_async(&headers));
    if wishes.deadline.is_some_and(|left| left.is_zero()) {
        return Err(Problem::new(ProblemType::DeadlineExceeded).detail("it had passed before the job came").into());
    }
    let named = text(&headers, headers::JOB_ID)?.map(job_id).transpose()?;
    if api.service.is_draining() && !named.is_some_and(|job| api.service.holds(job)) {
        // Before the upload: it would be for nothing.
        return Err(super::refused(crate::scheduler::Refusal::Draining).into());
    }
    let encoding = Encoding::parse(text(&headers, header::CONTENT_ENCODING.as_str())?)?;
    api.intake.admits(declared_length(&headers))?;
    let bytes = api.intake.read(body.into_data_stream(), encoding).await?;
    let mock = api.service.is_mock();
    let request = if bytes.len() <= READ_AT_ONCE {
        parse(bytes, &wishes, mock)?
    } else {
        // Tens of megabytes of JSON are walked once; that must not hold up the other connections.
        let reading = tokio::task::spawn_blocking(move || parse(bytes, &wishes, mock));
        reading.await.map_err(|_| Problem::new(ProblemType::Internal))??
    };
    let job = request.job;
    info!(%job, priority = request.priority.name(), bytes = request.body.len(), kind = request.kind.name(), respond_async, "job: received");
    if !respond_async {
        let ticket = api.service.submit(request)?;
        return match ticket.answer().await {
            Answer::Proof(proof) => Ok(proof_response(&api, job, proof)),
            other => Err(about(job, ended(&other))),
        };
    }
    match api.service.submit_detached(request, &client)? {
        Accepted::Cached => {
            let proof = api.service.proof(job).ok_or_else(|| about(job, Problem::new(ProblemType::NotFound)))?;
            Ok(proof_response(&api, job, proof))
        }
        Accepted::Attached | Accepted::Queued => {
            let status = api.service.status(job);
            let location = [(header::LOCATION, format!("/v1/proofs/{job}"))];
            Ok((StatusCode::ACCEPTED, location, Json(status)).into_response())
        }
    }
}

/// The status of a job.
#[utoipa::path(get, path = "/v1/proofs/{id}", tag = "proofs",
    params(("id" = String, Path, description = "Tip5 hash of the claim, 80 hexadecimal digits")),
    responses((status = 200, body = JobStatus),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "bad-request"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found")))]
pub async fn status(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<JobStatus>, ApiError> {
    let job = job_id(&id)?;
    api.service.status(job).map(Json).ok_or_else(|| {
        let sent_to = api.agreements.sent_to(job).map(Into::into);
        about(job, Problem { sent_to, ..Problem::new(ProblemType::NotFound) })
    })
}

/// Withdraws the wish that was posted with `respond-async` under the same `X-Client-Id`. The job ends when nobody else wants it.
/// Repeating it changes nothing.
#[utoipa::path(delete, path = "/v1/proofs/{id}", tag = "proofs",
    params(("id" = String, Path, description = "Tip5 hash of the claim, 80 hexadecimal digits"),
        ("X-Client-Id" = Option<String>, Header, description = "The name that the job was posted under")),
    responses((status = 204, description = "Withdrawn, or there was nothing to withdraw"),
        (status = 400, body = Problem, content_type = "application/problem+json", description = "bad-request")))]
pub async fn cancel(State(api): State<Arc<Api>>, Path(id): Path<String>, headers: HeaderMap) -> Result<StatusCode, ApiError> {
    let job = job_id(&id)?;
    if api.service.cancel(job, &client_id(&headers)?) {
        info!(%job, "job: withdrawn by a client");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The proof of a finished job.
#[utoipa::path(get, path = "/v1/proofs/{id}/proof", tag = "proofs",
    params(("id" = String, Path, description = "Tip5 hash of the claim, 80 hexadecimal digits")),
    responses((status = 200, content_type = "application/octet-stream", description = "The verified proof, `bincode(Proof)`"),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found"),
        (status = 409, body = Problem, content_type = "application/problem+json", description = "not-finished"),
        (status = 422, body = Problem, content_type = "application/problem+json", description = "Why the job failed")))]
pub async fn proof(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let job = job_id(&id)?;
    if let Some(proof) = api.service.proof(job) {
        return Ok(proof_response(&api, job, proof));
    }
    let status = api.service.status(job).ok_or_else(|| about(job, Problem::new(ProblemType::NotFound)))?;
    Err(match status.state {
        JobState::Failed => about(job, status.problem.unwrap_or_else(|| Problem::new(ProblemType::Internal))),
        JobState::Cancelled => about(job, status.problem.unwrap_or_else(|| Problem::new(ProblemType::Cancelled))),
        JobState::Done => {
            about(job, Problem::new(ProblemType::NotFound).detail("the proof has left the cache; post the job again"))
        }
        other => {
            let problem = Problem::new(ProblemType::NotFinished).detail(format!("the job is {}", other.name()));
            about(job, Problem { retry_after_seconds: Some(1), ..problem })
        }
    })
}

/// The status of a job at each change, as server-sent events named `status`, and twice a second while it is proven. The stream
/// ends with a final status.
#[utoipa::path(get, path = "/v1/proofs/{id}/events", tag = "proofs",
    params(("id" = String, Path, description = "Tip5 hash of the claim, 80 hexadecimal digits")),
    responses((status = 200, content_type = "text/event-stream", body = JobStatus),
        (status = 404, body = Problem, content_type = "application/problem+json", description = "not-found")))]
pub async fn events(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let job = job_id(&id)?;
    let changes = api.service.watch(job).ok_or_else(|| about(job, Problem::new(ProblemType::NotFound)))?;
    let clock = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(PROGRESS));
    let progress = clock.skip(1).filter_map(move |_| {
        let status = api.service.status(job);
        async move { status.filter(|status| status.state == JobState::Proving) }
    });
    // `select` would go on with the clock after the last change; the end of the changes is the end.
    let changes = WatchStream::new(changes).map(Some).chain(futures::stream::once(async { None }));
    let statuses = futures::stream::select(changes, progress.map(Some));
    let until_final = statuses.scan(false, |over, status| {
        let go_on = !*over;
        *over |= status.as_ref().is_none_or(|status| status.state.is_final());
        async move { if go_on { Some(status) } else { None } }
    });
    let events = until_final.filter_map(|status| async move {
        let event = Event::default().event("status").json_data(status?).ok()?;
        Some(Ok(event))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// How often a running proof's progress is sent.
const PROGRESS: Duration = Duration::from_millis(500);

fn proof_response(api: &Api, job: JobId, proof: Bytes) -> Response {
    let mut response = proof.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(super::PROOF));
    if let Ok(id) = HeaderValue::from_str(&job.to_string()) {
        headers.insert(headers::JOB_ID, id);
    }
    if let Some(height) = api.service.status(job).and_then(|status| status.log2_padded_height) {
        headers.insert(headers::LOG2_PADDED_HEIGHT, u16::from(height).into());
    }
    response
}

fn about(job: JobId, mut problem: Problem) -> ApiError {
    problem.instance = Some(format!("/v1/proofs/{job}").into());
    ApiError(problem)
}

pub(super) fn job_id(text: &str) -> Result<JobId, ApiError> {
    text.parse().map_err(|error| ApiError(Problem::new(ProblemType::BadRequest).detail(format!("{error}"))))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let bad = |_| Problem::new(ProblemType::BadRequest).detail(format!("the header {name} is not plain text"));
    headers.get(name).map(|value| value.to_str().map_err(bad)).transpose()
}

fn wishes(headers: &HeaderMap) -> Result<Wishes, Problem> {
    let bad = |detail: String| Problem::new(ProblemType::BadRequest).detail(detail);
    let priority = match text(headers, headers::PRIORITY)? {
        None => Priority::default(),
        Some(name) => name.parse().map_err(|error| bad(format!("X-Priority: {error}")))?,
    };
    let force_cpu = match text(headers, headers::FORCE_CPU)?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(_) => return Err(bad("X-Force-Cpu is true or false".to_owned())),
    };
    let deadline = text(headers, headers::DEADLINE)?.map(|value| parse_deadline(value, SystemTime::now())).transpose()?;
    let kind = text(headers, headers::JOB_KIND)?.map(JobKind::from_name).unwrap_or_default();
    Ok(Wishes { priority, force_cpu, deadline, kind })
}

/// What the caller says that it will send; nothing for a body in chunks.
fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn client_id(headers: &HeaderMap) -> Result<ClientId, Problem> {
    let id = text(headers, headers::CLIENT_ID)?.unwrap_or_default();
    if id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(ClientId(id.to_owned()))
    } else {
        Err(Problem::new(ProblemType::BadRequest).detail("X-Client-Id is at most 64 visible ASCII characters"))
    }
}

/// RFC 7240: preferences are separated by commas, in one header or several.
fn prefers_async(headers: &HeaderMap) -> bool {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case("respond-async"))
}

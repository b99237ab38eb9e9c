//! One request, one answer: the calls of the API, without any policy.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use super::backoff::retry_after;
use super::endpoints::Endpoint;
use super::sse::EventReader;
use super::token::Token;
use crate::proof::MAX_PROOF_BYTES;
use crate::{Destination, JobId, JobKind, JobStatus, Priority, Problem, ProblemType, headers};

/// Longest answer other than a proof.
const MAX_JSON_BYTES: usize = 4 << 20;

/// Why a call has no result.
#[derive(Debug, Clone)]
pub enum CallError {
    /// No connection, a lost one, silence, or an answer that no pod gives.
    Unreachable(String),
    /// The pod says no.
    Problem {
        /// Its words.
        problem: Box<Problem>,
        /// When to ask again.
        retry_after: Option<Duration>,
        /// The token that came with the request.
        token: Option<String>,
    },
}

impl CallError {
    fn garbled(what: &str) -> Self {
        Self::Unreachable(what.to_owned())
    }

    /// From the network. The URL is left out: it names the pod, which whoever reports this knows.
    fn network(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Unreachable(text)
    }
}

/// Time limits of calls.
#[derive(Debug, Clone, Copy)]
pub struct CallTimes {
    /// Short questions.
    pub ask: Duration,
    /// Sending a job, up to its acceptance.
    pub send: Duration,
    /// Fetching a proof.
    pub fetch: Duration,
}

/// What goes with a job.
#[derive(Debug)]
pub struct Sending<'a> {
    /// Which job it is.
    pub id: JobId,
    /// Compressed.
    pub body: Bytes,
    /// Of the body.
    pub encoding: Option<&'static str>,
    /// How urgent.
    pub priority: Priority,
    /// What for.
    pub kind: JobKind,
    /// Not on a GPU.
    pub force_cpu: bool,
    /// Seconds left.
    pub deadline: Option<u64>,
    /// Who may cancel it.
    pub client_id: &'a str,
}

/// The pod took the job.
#[derive(Debug)]
pub enum Accepted {
    /// It had the proof.
    Proof(Bytes),
    /// It works on it.
    Status(Option<Box<JobStatus>>),
}

/// A pod as seen by one call after the other.
pub struct Pod<'a> {
    /// Which.
    pub endpoint: &'a Endpoint,
    /// What to authenticate with.
    pub token: &'a Token,
    /// Limits.
    pub times: CallTimes,
}

impl Pod<'_> {
    async fn call(&self, request: RequestBuilder) -> Result<Response, CallError> {
        let token = self.token.current();
        let request = match &token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let response = request.send().await.map_err(CallError::network)?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response, token).await) }
    }

    fn request(&self, method: Method, path: &str, limit: Duration) -> RequestBuilder {
        self.endpoint.http.request(method, self.endpoint.url(path)).timeout(limit)
    }

    /// `GET` of a JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let response = self.call(self.request(Method::GET, path, self.times.ask)).await?;
        let body = collect(response, MAX_JSON_BYTES).await?;
        serde_json::from_slice(&body).map_err(|_| CallError::garbled("the answer is not the expected JSON"))
    }

    /// State of a job.
    pub async fn status(&self, id: JobId) -> Result<JobStatus, CallError> {
        self.get(&format!("/v1/proofs/{id}")).await
    }

    /// The proof of a job.
    pub async fn proof(&self, id: JobId) -> Result<Bytes, CallError> {
        let response = self.call(self.request(Method::GET, &format!("/v1/proofs/{id}/proof"), self.times.fetch)).await?;
        collect(response, MAX_PROOF_BYTES).await
    }

    /// Sends a job.
    pub async fn send(&self, job: &Sending<'_>) -> Result<Accepted, CallError> {
        let mut request = self
            .request(Method::POST, "/v1/proofs", self.times.send)
            .header(CONTENT_TYPE, "application/json")
            .header("prefer", "respond-async")
            .header(headers::JOB_ID, job.id.to_string())
            .header(headers::PRIORITY, job.priority.name())
            .header(headers::JOB_KIND, job.kind.name())
            .header(headers::CLIENT_ID, job.client_id);
        if let Some(encoding) = job.encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        if job.force_cpu {
            request = request.header(headers::FORCE_CPU, "true");
        }
        if let Some(seconds) = job.deadline {
            request = request.header(headers::DEADLINE, seconds);
        }
        let response = self.call(request.body(job.body.clone())).await?;
        match response.status() {
            StatusCode::OK => collect(response, MAX_PROOF_BYTES).await.map(Accepted::Proof),
            StatusCode::ACCEPTED => {
                // The status is a courtesy: the events begin with it too.
                let body = collect(response, MAX_JSON_BYTES).await?;
                Ok(Accepted::Status(serde_json::from_slice(&body).ok()))
            }
            other => Err(CallError::Unreachable(format!("HTTP status {other} to a job"))),
        }
    }

    /// Names the pod that the caller would send a job to, in place of one that is of no use to it; gives the one that counts.
    pub async fn agree(&self, id: JobId, choice: &Destination) -> Result<String, CallError> {
        let request = self.request(Method::PUT, &format!("/v1/proofs/{id}/destination"), self.times.ask);
        let response = self.call(request.json(choice)).await?;
        let body = collect(response, MAX_JSON_BYTES).await?;
        let answer: Destination =
            serde_json::from_slice(&body).map_err(|_| CallError::garbled("the answer is not the expected JSON"))?;
        Ok(answer.pod)
    }

    /// Withdraws what `client_id` asked for.
    pub async fn cancel(&self, id: JobId, client_id: &str) -> Result<(), CallError> {
        let request = self.request(Method::DELETE, &format!("/v1/proofs/{id}"), self.times.ask);
        self.call(request.header(headers::CLIENT_ID, client_id)).await.map(drop)
    }

    /// The progress of a job.
    pub async fn events(&self, id: JobId) -> Result<Events, CallError> {
        // No limit in all: the stream lasts as long as the job.
        let request = self.endpoint.http.get(self.endpoint.url(&format!("/v1/proofs/{id}/events")));
        let call = self.call(request.header("accept", "text/event-stream"));
        let response =
            tokio::time::timeout(self.times.ask, call).await.map_err(|_| CallError::garbled("no answer in time"))??;
        Ok(Events { response, reader: EventReader::default(), ready: Vec::new().into_iter() })
    }
}

/// A stream of statuses.
pub struct Events {
    response: Response,
    reader: EventReader,
    ready: std::vec::IntoIter<Vec<u8>>,
}

impl Events {
    /// The next status; nothing when the stream is at its end.
    pub async fn next(&mut self) -> Result<Option<JobStatus>, CallError> {
        loop {
            if let Some(data) = self.ready.next() {
                let status = serde_json::from_slice(&data).map_err(|_| CallError::garbled("an event is not a job's status"))?;
                return Ok(Some(status));
            }
            let Some(bytes) = self.response.chunk().await.map_err(CallError::network)? else { return Ok(None) };
            let events = self.reader.feed(&bytes).map_err(|error| CallError::Unreachable(error.to_string()))?;
            self.ready = events.into_iter();
        }
    }
}

/// Reads a body, but not more than `most` bytes of it, whatever `Content-Length` says.
async fn collect(response: Response, most: usize) -> Result<Bytes, CallError> {
    let too_long = || CallError::garbled("the answer is too long");
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(CallError::network)?;
        if body.len() + chunk.len() > most {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn refused(response: Response, token: Option<String>) -> CallError {
    let status = response.status();
    let after = header(response.headers(), RETRY_AFTER.as_str()).and_then(|text| retry_after(Some(text)));
    let body = collect(response, MAX_JSON_BYTES).await.unwrap_or_default();
    match problem_of(status.as_u16(), &body) {
        Some(problem) => {
            let retry_after = after.or(problem.retry_after_seconds.map(Duration::from_secs));
            CallError::Problem { problem: Box::new(problem), retry_after, token }
        }
        None => CallError::Unreachable(format!("HTTP status {status}")),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The problem in a refusal. What stands between client and pod (a gateway, an ingress) answers without one: then the status
/// tells, as far as it can. Nothing when it tells only that something is in the way.
fn problem_of(status: u16, body: &[u8]) -> Option<Problem> {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return Some(Problem { status, ..problem });
    }
    let kind = match status {
        401 | 403 => ProblemType::Unauthorized,
        413 => ProblemType::PayloadTooLarge,
        415 => ProblemType::UnsupportedEncoding,
        429 => ProblemType::QueueFull,
        503 => ProblemType::NoDevice,
        _ => return None,
    };
    Some(Problem { status, ..Problem::new(kind).detail("said by something between here and the pod") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_without_problem_are_read_by_their_status() {
        let kind = |status, body: &str| problem_of(status, body.as_bytes()).map(|problem| problem.problem_type);
        let problem = serde_json::to_string(&Problem::new(ProblemType::Draining)).expect("encodes");
        assert_eq!(kind(503, &problem), Some(ProblemType::Draining));
        assert_eq!(kind(503, "<html>"), Some(ProblemType::NoDevice));
        assert_eq!(kind(429, ""), Some(ProblemType::QueueFull));
        assert_eq!(kind(403, ""), Some(ProblemType::Unauthorized));
        for silent in [404, 500, 502, 504, 301] {
            assert_eq!(kind(silent, "<html>"), None, "{silent}");
        }
    }
}

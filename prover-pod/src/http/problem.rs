//! Problems as answers.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prover_api::{PROBLEM_JSON, Problem, ProblemType};

use crate::scheduler::Refusal;
use crate::service::{Answer, draining, problem_of};

/// An error answer.
#[derive(Debug, Clone)]
pub struct ApiError(pub Problem);

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self(refused(refusal))
    }
}

/// A refusal as callers see it.
pub fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::QueueFull { retry_after } => Problem {
            retry_after_seconds: Some(retry_after.as_secs().max(1)),
            ..Problem::new(ProblemType::QueueFull).detail("ask another pod, or this one later")
        },
        Refusal::Draining => draining(1),
        Refusal::NoDevice => Problem {
            retry_after_seconds: Some(60),
            ..Problem::new(ProblemType::NoDevice).detail("every device of this pod is quarantined")
        },
    }
}

/// What a caller gets when there is no proof.
pub fn ended(answer: &Answer) -> Problem {
    match answer {
        Answer::Proof(_) => Problem::new(ProblemType::Internal),
        Answer::Failed(failure) => problem_of(failure),
        Answer::DeadlineExceeded => Problem::new(ProblemType::DeadlineExceeded),
        Answer::Cancelled => Problem::new(ProblemType::Cancelled),
        Answer::Draining { retry_after } => draining(retry_after.as_secs()),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.0.retry_after_seconds;
        let kind = self.0.problem_type;
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if kind == ProblemType::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

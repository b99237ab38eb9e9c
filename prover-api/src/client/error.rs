//! Why a client cannot be made, or a job not be proven.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Problem, ProblemType};

/// The settings are unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// There is nobody to ask.
    #[error(
        "no prover pod is configured: give at least one endpoint, such as http://127.0.0.1:8080 or dns+http://prover-pods:8080"
    )]
    NoEndpoints,
    /// Not an endpoint.
    #[error("{endpoint:?} is not the address of a prover pod: {why}")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong.
        why: String,
    },
    /// Not a file of certificates.
    #[error("cannot read certificate authorities from {}: {why}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// TLS cannot be set up.
    #[error("cannot set up HTTP: {0}")]
    Http(String),
}

/// A job has no proof.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// The job itself is wrong: no pod will prove it.
    #[error("{pod} refuses the job for good: {problem}")]
    Refused {
        /// Who said so.
        pod: String,
        /// Why.
        problem: Box<Problem>,
    },
    /// No pod admits the height, or the job's own limit forbids it.
    #[error("the padded height 2^{log2_padded_height} is too big for {}", if *.over_own_limit { "the job's own limit" } else { "every pod" })]
    TooBig {
        /// Exact.
        log2_padded_height: u8,
        /// Whether it is the job's own `max_log2_padded_height` that was exceeded.
        over_own_limit: bool,
    },
    /// All pods said no to this job, each for a reason of its own; this is the last one.
    #[error("no pod takes the job; the last one, {pod}, says: {why}")]
    NowhereLeft {
        /// Who said no last.
        pod: String,
        /// Why.
        why: String,
    },
    /// No pod could be reached, or all were busy, for as long as patience lasted.
    #[error("no pod took the job for {} s; last: {last}", waited.as_secs())]
    Patience {
        /// How long.
        waited: Duration,
        /// What went wrong last.
        last: String,
    },
    /// The caller's deadline passed.
    #[error("the deadline passed before there was a proof")]
    Deadline,
    /// The job could not be encoded.
    #[error("cannot encode the job: {0}")]
    Encoding(String),
}

impl ClientError {
    /// Whether the job or its caller set the limit, so that another prover would not help either.
    pub fn is_about_the_job(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Deadline | Self::Encoding(_) => true,
            Self::TooBig { over_own_limit, .. } => *over_own_limit,
            Self::NowhereLeft { .. } | Self::Patience { .. } => false,
        }
    }

    pub(super) fn refused(pod: &str, problem: Problem) -> Self {
        match (problem.problem_type, problem.log2_padded_height) {
            (ProblemType::PaddedHeightTooBig, Some(log2_padded_height)) => {
                Self::TooBig { log2_padded_height, over_own_limit: true }
            }
            (ProblemType::DeadlineExceeded, _) => Self::Deadline,
            _ => Self::Refused { pod: pod.to_owned(), problem: Box::new(problem) },
        }
    }
}

//! What a caller gets.

use std::time::Duration;

use bytes::Bytes;
use prover_api::JobId;
use tokio::sync::oneshot;

use super::Service;
use crate::scheduler::{Failure, InterestId};

/// Who may cancel a detached wish: the value of `X-Client-Id`, or the empty one that all callers without the header share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ClientId(pub String);

/// How a wish ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// `bincode(Proof)`, verified.
    Proof(Bytes),
    /// It failed.
    Failed(Failure),
    /// Too late.
    DeadlineExceeded,
    /// Somebody cancelled it.
    Cancelled,
    /// The pod is shutting down; ask another.
    Draining {
        /// When this pod's successor may be up.
        retry_after: Duration,
    },
}

/// A connection's hold on a job. Dropping it withdraws the wish.
#[derive(Debug)]
pub struct Ticket {
    job: JobId,
    waiting: Option<(Service, InterestId, oneshot::Receiver<Answer>)>,
    ready: Option<Bytes>,
}

impl Ticket {
    pub(super) fn ready(job: JobId, proof: Option<Bytes>) -> Self {
        Self { job, waiting: None, ready: proof }
    }

    pub(super) fn waiting(service: Service, job: JobId, interest: InterestId, answer: oneshot::Receiver<Answer>) -> Self {
        Self { job, waiting: Some((service, interest, answer)), ready: None }
    }

    /// Which job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Waits for the end. Dropping the future withdraws too.
    pub async fn answer(mut self) -> Answer {
        let Some((_, _, receiver)) = &mut self.waiting else {
            // A cached proof can only be missing if it left the cache between two calls; the caller asks again.
            return self.ready.take().map_or(Answer::Cancelled, Answer::Proof);
        };
        let answer = receiver.await.unwrap_or(Answer::Cancelled);
        self.waiting = None;
        answer
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some((service, interest, _)) = self.waiting.take() {
            service.withdraw(self.job, interest);
        }
    }
}

//! Follows an accepted job to its end at the pod, and tells its caller what is new.

use std::time::Instant;

use bytes::Bytes;

use super::Run;
use crate::client::ProveOptions;
use crate::client::endpoints::Endpoint;
use crate::client::http::{CallError, Pod};
use crate::{JobState, JobStatus, Problem, ProblemType};

/// What came of a job that a pod had accepted.
pub enum Followed {
    Proof(Bytes, Option<Box<JobStatus>>),
    /// The pod says that there will be none.
    Ended(Box<Problem>),
    /// The pod does not know the job any more.
    Gone,
    /// The pod cannot be reached any more.
    Lost(String),
}

impl Run<'_> {
    /// Follows an accepted job to its end there, through lost connections.
    pub async fn follow(&self, endpoint: &Endpoint, first: Option<JobStatus>) -> Followed {
        let pod = self.shared.pod(endpoint);
        let mut news = News { endpoint, options: self.options, limit: self.limit, last: None };
        let mut lost_since = None;
        let mut failures = 0;
        let mut ended = first.and_then(|status| news.tell(status));
        loop {
            if ended.is_none() {
                ended = self.watch(&pod, &mut news).await;
            }
            let error = match &ended {
                Some(status) if status.state == JobState::Done => match pod.proof(self.id).await {
                    Ok(bytes) => return Followed::Proof(bytes, ended.map(Box::new)),
                    Err(error) => error,
                },
                Some(status) => return Followed::Ended(Box::new(why_ended(status, self.limit))),
                None => match pod.status(self.id).await {
                    Ok(status) => {
                        (lost_since, failures) = (None, 0);
                        ended = news.tell(status);
                        if ended.is_none() {
                            tokio::time::sleep(self.shared.timing.poll).await;
                        }
                        continue;
                    }
                    Err(error) => error,
                },
            };
            let why = match error {
                CallError::Unreachable(why) => why,
                CallError::Problem { problem, .. } if problem.problem_type == ProblemType::NotFound => return Followed::Gone,
                CallError::Problem { problem, token, .. } if problem.problem_type == ProblemType::Unauthorized => {
                    self.shared.token.renew(token.as_deref());
                    problem.to_string()
                }
                CallError::Problem { problem, .. } if ended.is_some() => return Followed::Ended(problem),
                CallError::Problem { problem, .. } => problem.to_string(),
            };
            failures += 1;
            if lost_since.get_or_insert_with(Instant::now).elapsed() >= self.shared.timing.resume {
                return Followed::Lost(why);
            }
            tokio::time::sleep(self.shared.timing.backoff.wait(failures, rand::random()).min(self.shared.timing.resume / 4))
                .await;
        }
    }

    /// Reads the progress stream as long as there is one. Gives the final status, if that is how it ends.
    async fn watch(&self, pod: &Pod<'_>, news: &mut News<'_>) -> Option<JobStatus> {
        let mut events = pod.events(self.id).await.ok()?;
        loop {
            match tokio::time::timeout(self.shared.timing.silence, events.next()).await {
                Ok(Ok(Some(status))) => {
                    let ended = news.tell(status);
                    if ended.is_some() {
                        return ended;
                    }
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return None,
            }
        }
    }
}

/// Tells the caller what is new, once.
struct News<'a> {
    endpoint: &'a Endpoint,
    options: &'a ProveOptions,
    limit: Option<u8>,
    last: Option<JobStatus>,
}

impl News<'_> {
    /// Gives the status back if it is final for this caller: others may still want a job that is too big for this one.
    fn tell(&mut self, status: JobStatus) -> Option<JobStatus> {
        if self.last.as_ref() != Some(&status) {
            if let Some(progress) = &self.options.progress {
                progress(&self.endpoint.name, &status);
            }
            self.last = Some(status.clone());
        }
        (status.state.is_final() || is_over(&status, self.limit)).then_some(status)
    }
}

/// Whether the job goes on at the pod although it is bigger than its caller admits.
fn is_over(status: &JobStatus, limit: Option<u8>) -> bool {
    !status.state.is_final() && status.log2_padded_height.zip(limit).is_some_and(|(height, limit)| height > limit)
}

fn why_ended(status: &JobStatus, limit: Option<u8>) -> Problem {
    if is_over(status, limit) {
        let (log2_padded_height, max_log2_padded_height) = (status.log2_padded_height, limit);
        return Problem { log2_padded_height, max_log2_padded_height, ..Problem::new(ProblemType::PaddedHeightTooBig) };
    }
    let unsaid = if status.state == JobState::Cancelled { ProblemType::Cancelled } else { ProblemType::Internal };
    status.problem.clone().unwrap_or_else(|| Problem::new(unsaid))
}

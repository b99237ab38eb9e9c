//! A wish that a pod has on record for us. Whoever drops it unfulfilled withdraws it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Shared;
use super::endpoints::Endpoint;
use super::http::CallError;
use crate::JobId;

/// Attempts to withdraw, and the pause between them: a pod that is unreachable for longer has other means, the job's deadline
/// first of all.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// One job at one pod, under a name of its own: a late withdrawal of this wish never meets another wish for the same job.
pub struct Wish {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    id: JobId,
    client_id: String,
    accepted: bool,
    ended: bool,
}

impl Wish {
    /// To be made before the job is sent: once a request is under way it may have been accepted.
    pub fn new(shared: &Arc<Shared>, endpoint: &Endpoint, id: JobId) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let client_id = format!("{:016x}-{}", shared.nonce, NEXT.fetch_add(1, Ordering::Relaxed));
        Self { shared: shared.clone(), endpoint: endpoint.clone(), id, client_id, accepted: false, ended: false }
    }

    /// Value of the header [`crate::headers::CLIENT_ID`].
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The pod has said that it has the job.
    pub fn accepted(&mut self) {
        self.accepted = true;
    }

    /// The pod has no job of ours any more: there is nothing to withdraw.
    pub fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        // Without a runtime there is no connection either.
        let (false, Ok(runtime)) = (self.ended, tokio::runtime::Handle::try_current()) else { return };
        let (shared, endpoint, id) = (self.shared.clone(), self.endpoint.clone(), self.id);
        let (client_id, accepted) = (std::mem::take(&mut self.client_id), self.accepted);
        let withdrawal = async move {
            for attempt in 1..=ATTEMPTS {
                match shared.pod(&endpoint).cancel(id, &client_id).await {
                    // A job that was still on its way may be taken on after its withdrawal: once more, a moment later.
                    Ok(()) if !accepted && attempt == 1 => tokio::time::sleep(PAUSE).await,
                    Ok(()) | Err(CallError::Problem { .. }) => return,
                    Err(CallError::Unreachable(why)) if attempt == ATTEMPTS => {
                        tracing::warn!(job = %id, pod = %endpoint.name, %why, "could not withdraw a job");
                    }
                    Err(CallError::Unreachable(_)) => tokio::time::sleep(PAUSE).await,
                }
            }
        };
        self.shared.withdrawals.spawn_on(withdrawal, &runtime);
    }
}

//! Carrying out what the scheduler decides.

use std::sync::Arc;

use bytes::Bytes;
use prover_api::JobId;
use tracing::{debug, error, info, warn};
use triton_vm::prelude::Claim;

use super::{Answer, Service, State};
use crate::protocol::ToWorker;
use crate::scheduler::{Backend, BodyId, Effect, Outcome, WorkerId};
use crate::worker::valid_mock_proof;

impl Service {
    pub(super) fn carry_out(&self, state: &mut State, effect: Effect) {
        match effect {
            Effect::Inspect { worker, job, body } => state.order_with_body(worker, ToWorker::Inspect { job }, body),
            Effect::Trace { worker, job, body } => state.order_with_body(worker, ToWorker::Trace { job }, body),
            Effect::Prove { worker, job, body, lde, why } => {
                info!(%job, %worker, ?lde, "job: running");
                // Of a run that was lost.
                state.stages.remove(&job);
                let height = state.scheduler.view(job).and_then(|view| view.log2_padded_height);
                super::hybrid::log(job, worker, state.backend(worker), why, height);
                state.order_with_body(worker, ToWorker::Prove { job, lde }, body);
            }
            Effect::Discard { worker, job } => state.order(worker, ToWorker::Discard { job }, Bytes::new()),
            Effect::Abort { worker, job } => {
                info!(%job, %worker, "job: stopping");
                if state.backend(worker).abort_kills() {
                    state.stop(worker);
                } else {
                    state.order(worker, ToWorker::Abort { job }, Bytes::new());
                }
            }
            Effect::Restart { worker } => state.stop(worker),
            Effect::Verify { worker, job, run } => self.verify(state, worker, job, run),
            Effect::Answer { interest, job, outcome } => self.answer(state, job, interest, outcome),
            Effect::Changed { job } => self.publish(state, job),
            Effect::DropBody { job, body } => {
                state.bodies.remove(&(job, body));
            }
            Effect::DropProof { job } => {
                state.proofs.remove(&job);
                state.uncollected.remove(&job);
            }
        }
    }

    fn answer(&self, state: &mut State, job: JobId, interest: crate::scheduler::InterestId, outcome: Outcome) {
        if state.forget_detached(interest) && outcome == Outcome::Proved {
            state.uncollected.entry(job).or_insert((0, self.now())).0 += 1;
        }
        let Some(caller) = state.callers.remove(&interest) else { return };
        let answer = match outcome {
            Outcome::Proved => match state.proofs.get(&job) {
                Some(proof) => Answer::Proof(proof.clone()),
                None => Answer::Cancelled,
            },
            Outcome::Failed(failure) => Answer::Failed(failure),
            Outcome::DeadlineExceeded => Answer::DeadlineExceeded,
            Outcome::Cancelled => Answer::Cancelled,
            Outcome::Draining => Answer::Draining { retry_after: state.scheduler.retry_after() },
        };
        // A caller that hung up in this very moment has no use for it.
        drop(caller.send(answer));
    }

    /// Verifies on a blocking thread and reports. This is what keeps wrong proofs in the pod.
    fn verify(&self, state: &mut State, worker: WorkerId, job: JobId, run: u64) {
        let proof = state.unverified.remove(&job).unwrap_or_default();
        let Some(facts) = state.facts.get(&job).cloned() else { return };
        let backend = state.backend(worker);
        let service = self.clone();
        tokio::spawn(async move {
            let valid = if backend == Backend::Mock {
                prover_api::proof::decode(&proof).is_ok_and(|proof| proof == valid_mock_proof())
            } else {
                service.is_valid(facts.claim, proof.clone()).await
            };
            if !valid {
                warn!(%job, %worker, backend = backend.name(), "job: the device returned a proof that does not verify");
                service.metrics().verification_failures.with_label_values(&[backend.name()]).inc();
            }
            service.with(|state, now, effects| {
                if valid {
                    state.proofs.insert(job, proof.clone());
                }
                let was_quarantined = state.scheduler.is_quarantined(worker);
                state.scheduler.verified(now, worker, job, run, valid.then_some(proof.len() as u64), effects);
                if !was_quarantined && state.scheduler.is_quarantined(worker) {
                    error!(
                        %worker,
                        backend = backend.name(),
                        "the device is quarantined: it made too many wrong proofs and gets no more jobs until this pod is restarted"
                    );
                }
            });
        });
    }

    /// Whether `proof` proves `claim`, by the unmodified verifier.
    pub(super) async fn is_valid(&self, claim: Arc<Claim>, proof: Bytes) -> bool {
        let Ok(_permit) = self.shared.verifications.acquire().await else { return false };
        let timer = self.metrics().verification_seconds.start_timer();
        let verdict = tokio::task::spawn_blocking(move || prover_api::proof::verify(&claim, &proof)).await;
        timer.observe_duration();
        match verdict {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                debug!(%error, "verification failed");
                false
            }
            Err(_) => false,
        }
    }

    /// Tells watchers, counts ends, and forgets what only a live job needs.
    pub(super) fn publish(&self, state: &mut State, job: JobId) {
        // A status costs a walk along the queue: made only when somebody watches, or at the end.
        if state.scheduler.is_live(job) && !state.watchers.contains_key(&job) {
            return;
        }
        let Some(status) = self.status_of(state, job) else { return };
        let ended = status.state.is_final();
        if let Some(watcher) = state.watchers.get(&job) {
            watcher.send_replace(status.clone());
        }
        if ended {
            state.watchers.remove(&job);
            state.stages.remove(&job);
            if let Some(facts) = state.facts.remove(&job) {
                self.metrics().count_end(&status, facts.kind);
                info!(
                    %job,
                    state = ?status.state,
                    kind = facts.kind.name(),
                    log2_padded_height = status.log2_padded_height,
                    queued_seconds = status.seconds.queued,
                    proved_seconds = status.seconds.proved,
                    problem = status.problem.as_ref().map(|problem| problem.problem_type.slug()),
                    "job: ended"
                );
            }
        }
    }
}

impl State {
    /// Forgets the name under which a wish could be cancelled. `false` when it had none: its caller waits on a connection.
    pub(super) fn forget_detached(&mut self, interest: crate::scheduler::InterestId) -> bool {
        let Some(key) = self.detached_by.remove(&interest) else { return false };
        self.detached.remove(&key);
        true
    }

    fn order_with_body(&mut self, worker: WorkerId, order: ToWorker, body: BodyId) {
        let bytes = self.bodies.get(&(order.job(), body)).cloned().unwrap_or_default();
        self.order(worker, order, bytes);
    }

    fn order(&mut self, worker: WorkerId, order: ToWorker, body: Bytes) {
        if let Some(handle) = self.workers.get(&worker).and_then(|known| known.handle.as_ref()) {
            handle.order(order, body);
        }
    }

    /// From here on the process is gone, whatever it still says: no order may go to it.
    fn stop(&mut self, worker: WorkerId) {
        if let Some(handle) = self.workers.get_mut(&worker).and_then(|known| known.handle.take()) {
            handle.stop();
        }
    }

    fn backend(&self, worker: WorkerId) -> Backend {
        self.scheduler.backend(worker).unwrap_or(Backend::Cpu)
    }
}

//! What workers and the verifier report.

use prover_api::{JobId, JobState};

use super::job::Phase;
use super::state::Scheduler;
use super::worker::Worker;
use super::{Backend, Effect, Failure, Offer, Outcome, Time, WorkerId};

impl Scheduler {
    /// The pod starts a worker: jobs for its kind of prover wait for it.
    pub fn expect_worker(&mut self, id: WorkerId, backend: Backend) {
        self.workers.entry(id).or_insert_with(|| Worker::expected(backend, &self.config));
        self.workers_changed();
    }

    /// A worker process is up and has passed its self-test.
    pub fn worker_up(&mut self, now: Time, id: WorkerId, offer: Offer, effects: &mut Vec<Effect>) {
        let worker = self.workers.entry(id).or_insert_with(|| Worker::expected(offer.backend, &self.config));
        worker.take(offer, &self.config);
        worker.up = true;
        worker.failed_starts = 0;
        self.workers_changed();
        self.refuse_all_too_big(now, effects);
        self.pump(now, effects);
    }

    /// A worker process died. Jobs that it was working on count an attempt; a trace that it merely held does not, and nothing
    /// counts when the scheduler itself asked for the death ([`Effect::Abort`], [`Effect::Restart`]).
    pub fn worker_down(&mut self, now: Time, id: WorkerId, effects: &mut Vec<Effect>) {
        if let Some(worker) = self.workers.get_mut(&id)
            && !worker.up
        {
            worker.failed_starts = worker.failed_starts.saturating_add(1);
        }
        self.forget_process(now, id, true, effects);
        self.refuse_all_too_big(now, effects);
        self.pump(now, effects);
    }

    /// The exact height of a job's program is known, and whether the worker has `kept` its trace.
    pub fn inspected(
        &mut self,
        now: Time,
        id: WorkerId,
        job_id: JobId,
        log2_height: u8,
        kept: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !self.is_working(id, job_id) {
            return;
        }
        self.release_lane(id, job_id);
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        job.log2_padded_height = Some(log2_height);
        job.phase = Phase::Idle;
        job.home = job.home.filter(|_| kept || job.slot.is_some());
        effects.push(Effect::Changed { job: job_id });
        self.refuse_by_own_limit(now, job_id, effects);
        self.refuse_too_big(now, job_id, effects);
        self.advance(now, job_id, effects);
        self.pump(now, effects);
    }

    /// A trace is complete. Inside a slot the proof begins at once; outside, the worker holds the trace.
    pub fn traced(&mut self, now: Time, id: WorkerId, job_id: JobId, effects: &mut Vec<Effect>) {
        if !self.is_working(id, job_id) {
            return;
        }
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        match job.phase {
            Phase::Tracing(_) => {
                job.phase = Phase::Proving(id);
                job.timings.proving = Some(now);
            }
            Phase::TracingAhead(_) => {
                job.phase = Phase::Idle;
                job.traced_on = Some(id);
                self.release_lane(id, job_id);
                self.advance(now, job_id, effects);
            }
            _ => return,
        }
        effects.push(Effect::Changed { job: job_id });
        self.pump(now, effects);
    }

    /// The worker returned a proof; the shell holds its bytes until [`Self::verified`].
    pub fn proved(&mut self, now: Time, id: WorkerId, job_id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        if job.slot != Some(id) || !matches!(job.phase, Phase::Tracing(_) | Phase::Proving(_)) {
            return;
        }
        self.next_run += 1;
        let run = self.next_run;
        job.phase = Phase::Verifying(id, run);
        job.timings.proving.get_or_insert(now);
        job.timings.proved = Some(now);
        self.release_slot(job_id);
        effects.push(Effect::Changed { job: job_id });
        effects.push(Effect::Verify { worker: id, job: job_id, run });
        self.pump(now, effects);
    }

    /// The service's own verification of what `id` returned: a proof of so many bytes, or a wrong one. A true proof is never
    /// wasted: it ends whatever job has its claim now, and is kept when nobody waits any more.
    pub fn verified(
        &mut self,
        now: Time,
        id: WorkerId,
        job_id: JobId,
        run: u64,
        bytes: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let mine = self.jobs.get(&job_id).is_some_and(|job| job.phase == Phase::Verifying(id, run));
        let Some(bytes) = bytes else {
            if mine {
                if let Some(job) = self.jobs.get_mut(&job_id) {
                    job.phase = Phase::Idle;
                }
                self.retry(now, job_id, id, Failure::InvalidProof, effects);
            }
            self.count_wrong_proof(now, id, effects);
            self.pump(now, effects);
            return;
        };
        if mine
            && let Some(job) = self.jobs.get(&job_id)
            && let (Some(height), Some(from), Some(to)) = (job.log2_padded_height, job.timings.started, job.timings.proved)
        {
            let backend = self.workers.get(&id).map_or(Backend::Cpu, |worker| worker.backend);
            self.costs.learn(backend, height, to.saturating_sub(from).as_secs_f64());
        }
        for job in self.cache.insert(job_id, bytes) {
            effects.push(Effect::DropProof { job });
        }
        if !mine {
            self.leave_worker(now, job_id, effects);
        }
        self.finish(now, job_id, JobState::Done, &Outcome::Proved, effects);
        self.pump(now, effects);
    }

    /// The worker reports that the job cannot be proven as it is.
    pub fn failed(&mut self, now: Time, id: WorkerId, job_id: JobId, failure: Failure, effects: &mut Vec<Effect>) {
        if !self.is_working(id, job_id) {
            return;
        }
        self.release_lane(id, job_id);
        self.release_slot(job_id);
        if let Some(job) = self.jobs.get_mut(&job_id) {
            job.phase = Phase::Idle;
        }
        if failure.is_worth_a_retry() {
            self.retry(now, job_id, id, failure, effects);
        } else {
            self.fail_body(now, job_id, failure, effects);
        }
        self.pump(now, effects);
    }

    /// Whether `id` is what works on the job now; reports of work that was given up in the meantime are not.
    pub(super) fn is_working(&self, id: WorkerId, job: JobId) -> bool {
        let phase = self.jobs.get(&job).map(|job| job.phase);
        phase.is_some_and(|phase| phase.worker() == Some(id) && !matches!(phase, Phase::Verifying(..)))
    }

    /// The process behind `id` is gone or going: its slots are empty and its traces lost. With `blame`, what it was working on
    /// counts an attempt.
    pub(super) fn forget_process(&mut self, now: Time, id: WorkerId, blame: bool, effects: &mut Vec<Effect>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.up = false;
        worker.lanes.clear();
        self.workers_changed();
        for job in self.jobs.values_mut().filter(|job| job.home == Some(id)) {
            job.home = None;
        }
        let mut touched: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| {
                let works = job.phase.worker() == Some(id) && !matches!(job.phase, Phase::Verifying(..));
                works || job.slot == Some(id) || job.traced_on == Some(id)
            })
            .map(|(&job, _)| job)
            .collect();
        touched.sort_by_key(|job| self.jobs.get(job).map(|job| job.seq));
        for job_id in touched {
            let Some(job) = self.jobs.get_mut(&job_id) else { continue };
            let held = job.traced_on == Some(id) || job.phase == Phase::TracingAhead(id);
            if job.traced_on == Some(id) {
                job.traced_on = None;
            }
            let worked = job.phase.worker() == Some(id) && !matches!(job.phase, Phase::Verifying(..));
            if worked {
                job.phase = Phase::Idle;
            }
            if job.slot == Some(id) {
                self.release_slot(job_id);
            } else if held {
                self.reserved.remove(&job_id);
            }
            if worked && blame {
                self.retry(now, job_id, id, Failure::WorkerLost, effects);
            } else {
                self.wait_again(now, job_id, effects);
            }
        }
    }

    pub(super) fn count_wrong_proof(&mut self, now: Time, id: WorkerId, effects: &mut Vec<Effect>) {
        let limit = self.config.quarantine_after;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.wrong_proofs += 1;
        worker.quarantined |= limit > 0 && worker.wrong_proofs >= limit;
        effects.push(Effect::Restart { worker: id });
        self.forget_process(now, id, false, effects);
        self.refuse_all_too_big(now, effects);
        if self.workers.values().all(|worker| worker.quarantined) {
            let stranded: Vec<JobId> = self.waiting.iter().map(|&(_, _, job)| job).collect();
            for job in stranded {
                self.finish(now, job, JobState::Failed, &Outcome::Failed(Failure::NoDevice), effects);
            }
        }
    }
}

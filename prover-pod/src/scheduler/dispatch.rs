//! Who gets which slot. Called after every input.

use prover_api::JobId;

use super::admission::Admission;
use super::job::{Job, Phase};
use super::state::{Scheduler, place};
use super::{Backend, Effect, Failure, Time, WorkerId};
use crate::memory::MemoryPlan;

impl Scheduler {
    /// Fills free slots and lanes until nothing more can be done.
    pub(super) fn pump(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if !self.is_draining() {
            self.fill_slots(now, effects);
            self.fill_lanes(effects);
        }
    }

    /// Gives each free slot to the first job in order that may run there.
    fn fill_slots(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while let Some((job, worker)) = self.next_start() {
            self.start(now, job, worker, effects);
        }
    }

    /// The next job to get a slot, and where. A job that must wait for memory holds back all behind it: smaller jobs of less
    /// priority would otherwise pass it for ever.
    fn next_start(&self) -> Option<(JobId, WorkerId)> {
        let free: Vec<WorkerId> = self.workers.iter().filter(|(_, worker)| worker.has_free_slot()).map(|(&id, _)| id).collect();
        if free.is_empty() {
            return None;
        }
        for &(_, _, id) in &self.waiting {
            let Some(job) = self.jobs.get(&id) else { continue };
            let Some(worker) = self.best_worker(job, &free) else { continue };
            let backend = self.workers.get(&worker)?.backend;
            return match job.log2_padded_height {
                Some(height) if self.admit(backend, height, job.attempts > 0) == Admission::Wait => None,
                _ => Some((id, worker)),
            };
        }
        None
    }

    /// Where among `free` the job should run: not where it failed if there is another place, where its trace is, where its
    /// inspection runs, else the first.
    fn best_worker(&self, job: &Job, free: &[WorkerId]) -> Option<WorkerId> {
        let eligible: Vec<WorkerId> = free.iter().copied().filter(|&id| self.is_eligible(job, id)).collect();
        let elsewhere_exists = self
            .workers
            .iter()
            .any(|(&id, worker)| job.avoid.is_some() && job.avoid != Some(id) && worker.usable() && self.is_eligible(job, id));
        let usable = |id: &WorkerId| !(elsewhere_exists && job.avoid == Some(*id));
        let preferred = [job.traced_on, job.phase.worker()].into_iter().flatten().find(|id| eligible.contains(id));
        preferred.filter(usable).or_else(|| eligible.into_iter().find(usable))
    }

    fn is_eligible(&self, job: &Job, id: WorkerId) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        let has_cpu = self.workers.values().any(|worker| worker.backend == Backend::Cpu && worker.usable());
        !(job.body().force_cpu && worker.backend == Backend::Gpu && has_cpu)
    }

    fn start(&mut self, now: Time, id: JobId, worker_id: WorkerId, effects: &mut Vec<Effect>) {
        self.dequeue(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.slot = Some(worker_id);
        job.timings.started = Some(now);
        let elsewhere = [job.traced_on, job.phase.worker()].into_iter().flatten().find(|&other| other != worker_id);
        if let Some(other) = elsewhere {
            // The trace or inspection is on a worker whose slots are taken: do it again here rather than wait.
            job.traced_on = None;
            job.phase = Phase::Idle;
            effects.push(Effect::Discard { worker: other, job: id });
            self.release_lane(other, id);
        }
        if let Some(worker) = self.workers.get_mut(&worker_id) {
            worker.running.insert(id);
        }
        effects.push(Effect::Changed { job: id });
        self.advance(now, id, effects);
    }

    /// Moves a job that holds a slot to its next stage.
    pub(super) fn advance(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (Some(slot), Phase::Idle) = (job.slot, job.phase) else { return };
        let Some(backend) = self.workers.get(&slot).map(|worker| worker.backend) else { return };
        let (body, frugal) = (job.body().id, job.attempts > 0);
        let Some(height) = job.log2_padded_height else {
            self.set_phase(id, Phase::Inspecting(slot));
            effects.push(Effect::Inspect { worker: slot, job: id, body });
            return;
        };
        match self.admit(backend, height, frugal) {
            Admission::Now(MemoryPlan { lde, bytes }) => {
                self.reserved.insert(id, bytes);
                let Some(job) = self.jobs.get_mut(&id) else { return };
                if job.traced_on.take() == Some(slot) {
                    job.phase = Phase::Proving(slot);
                    job.timings.proving = Some(now);
                } else {
                    job.phase = Phase::Tracing(slot);
                }
                effects.push(Effect::Prove { worker: slot, job: id, body, lde });
                effects.push(Effect::Changed { job: id });
            }
            Admission::Wait => {
                // Another slot's job has the memory. Back to the queue's head until it ends.
                self.release_slot(id);
                self.wait_again(now, id, effects);
            }
            Admission::Never { limit } => {
                self.release_slot(id);
                self.leave_worker(now, id, effects);
                self.fail_body(now, id, Failure::TooBig { log2_padded_height: height, limit }, effects);
            }
        }
    }

    /// Work outside the slots: learn the height of each waiting job, so that one too big is refused at once and not when its
    /// turn comes; then trace the next jobs ahead.
    fn fill_lanes(&mut self, effects: &mut Vec<Effect>) {
        let lanes: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| worker.usable() && worker.lane.is_none()).map(|(&id, _)| id).collect();
        if lanes.is_empty() {
            return;
        }
        for lane in lanes {
            if let Some(id) = self.next_unknown(lane) {
                self.occupy_lane(lane, id, Phase::Inspecting(lane), effects);
            } else if let Some(id) = self.next_to_trace(lane) {
                self.occupy_lane(lane, id, Phase::TracingAhead(lane), effects);
            }
        }
    }

    /// The first waiting job that nobody has looked at.
    fn next_unknown(&self, lane: WorkerId) -> Option<JobId> {
        let mut unknown = self.unknown.iter().map(|&(_, _, id)| id);
        unknown.find(|id| self.jobs.get(id).is_some_and(|job| self.is_eligible(job, lane)))
    }

    /// The first waiting job that could be traced ahead, while fewer are than the configuration admits.
    fn next_to_trace(&self, lane: WorkerId) -> Option<JobId> {
        if self.config.trace_ahead == 0 {
            return None;
        }
        let is_ahead = |job: &&Job| job.traced_on.is_some() || matches!(job.phase, Phase::TracingAhead(_));
        if self.jobs.values().filter(is_ahead).count() >= self.config.trace_ahead {
            return None;
        }
        let ready = |id: &JobId| {
            self.jobs.get(id).is_some_and(|job| {
                let untouched = job.phase == Phase::Idle && job.traced_on.is_none();
                untouched && job.log2_padded_height.is_some() && self.is_eligible(job, lane)
            })
        };
        self.waiting.iter().map(|&(_, _, id)| id).find(ready)
    }

    fn occupy_lane(&mut self, lane: WorkerId, id: JobId, phase: Phase, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.unknown.remove(&place(id, job));
        job.phase = phase;
        let (worker, job, body) = (lane, id, job.body().id);
        effects.push(match phase {
            Phase::TracingAhead(_) => Effect::Trace { worker, job, body },
            _ => Effect::Inspect { worker, job, body },
        });
        effects.push(Effect::Changed { job });
        if let Some(worker) = self.workers.get_mut(&lane) {
            worker.lane = Some(id);
        }
    }

    fn set_phase(&mut self, id: JobId, phase: Phase) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.phase = phase;
        }
    }

    fn admit(&self, backend: Backend, height: u8, frugal: bool) -> Admission {
        let limit = self.largest(backend);
        if height > limit {
            return Admission::Never { limit };
        }
        self.memory.admit(backend, height, self.reserved.values().sum(), frugal)
    }
}

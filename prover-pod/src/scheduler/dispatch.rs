//! Who gets which slot. Called after every input.

use std::collections::BTreeMap;

use prover_api::JobId;

use super::admission::Admission;
use super::home::Homes;
use super::job::{Job, Phase};
use super::routing::Why;
use super::state::{Place, Scheduler, place};
use super::{Backend, Effect, Failure, Time, WorkerId};
use crate::memory::MemoryPlan;

impl Scheduler {
    /// Fills free slots and lanes until nothing more can be done.
    pub(super) fn pump(&mut self, now: Time, effects: &mut Vec<Effect>) {
        if !self.is_draining() {
            self.fill_slots(now, effects);
            self.fill_lanes(now, effects);
        }
    }

    /// Gives each free slot to the first job in order that may run there.
    fn fill_slots(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while let Some((job, worker)) = self.next_start(now) {
            self.start(now, job, worker, effects);
        }
    }

    /// The next job to get a slot, and where. A job that must wait for memory holds back all behind it: smaller jobs of less
    /// priority would otherwise pass it for ever.
    fn next_start(&self, now: Time) -> Option<(JobId, WorkerId)> {
        let mut free: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| worker.has_free_slot()).map(|(&id, _)| id).collect();
        if free.is_empty() {
            return None;
        }
        let is_gpu = |&id: &WorkerId| self.backend(id) == Some(Backend::Gpu);
        // Where one is at home does not matter to the CPU, which is free most of the time.
        let mut homes = if free.iter().any(is_gpu) { self.homes(now) } else { Homes::default() };
        for &(_, _, id) in &self.waiting {
            if free.is_empty() {
                return None;
            }
            let Some(job) = self.jobs.get(&id) else { continue };
            if self.is_left_to_gpus(id, job) {
                // Nor may the CPU begin with one behind it: it may turn out to be the CPU's.
                free.retain(|worker| self.workers.get(worker).is_some_and(|worker| worker.backend != Backend::Cpu));
            }
            let Some(worker) = self.best_worker(job, &free, &homes) else {
                homes.pass(self, job);
                continue;
            };
            return match job.log2_padded_height {
                Some(height) if self.admit(id, worker, height, job.attempts > 0) == Admission::Wait => None,
                _ => Some((id, worker)),
            };
        }
        None
    }

    /// Where among `free` the job should run: not where it failed if there is another place, where it is at home, where its
    /// inspection runs, else the first.
    fn best_worker(&self, job: &Job, free: &[WorkerId], homes: &Homes) -> Option<WorkerId> {
        let eligible: Vec<WorkerId> =
            free.iter().copied().filter(|&id| self.is_eligible(job, id) && homes.may_take(self, job, id)).collect();
        let elsewhere_exists = self
            .workers
            .iter()
            .any(|(&id, worker)| job.avoid.is_some() && job.avoid != Some(id) && worker.usable() && self.is_eligible(job, id));
        let usable = |id: &WorkerId| !(elsewhere_exists && job.avoid == Some(*id));
        let preferred = [self.home_of(job), job.phase.worker()].into_iter().flatten().find(|id| eligible.contains(id));
        preferred.filter(usable).or_else(|| eligible.into_iter().find(usable))
    }

    /// Whether the job may go to that worker. Whoever is free may look at one whose height nobody knows, unless its caller wants
    /// no GPU.
    pub(super) fn is_eligible(&self, job: &Job, id: WorkerId) -> bool {
        let Some(worker) = self.workers.get(&id) else { return false };
        match (self.route_of(job), job.log2_padded_height) {
            (Some(Ok(route)), Some(height)) => route.backend == worker.backend && height <= self.largest_on(worker),
            (Some(Err(_)), _) => false,
            _ => !(job.body().force_cpu && worker.backend == Backend::Gpu && self.room.cpu.is_some()),
        }
    }

    fn start(&mut self, now: Time, id: JobId, worker_id: WorkerId, effects: &mut Vec<Effect>) {
        self.dequeue(id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.slot = Some(worker_id);
        job.timings.started = Some(now);
        self.move_to(worker_id, id, effects);
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
        let (body, frugal) = (job.body().id, job.attempts > 0);
        let Some(height) = job.log2_padded_height else {
            self.set_phase(id, Phase::Inspecting(slot));
            effects.push(Effect::Inspect { worker: slot, job: id, body });
            return;
        };
        if !self.is_eligible(job, slot) {
            // Its height, now that it is known, sends it to another kind of prover.
            self.drop_trace(id, effects);
            self.release_slot(id);
            self.wait_again(now, id, effects);
            return;
        }
        let why = self.route_of(job).and_then(Result::ok).map_or(Why::OnlyKind, |route| route.why);
        match self.admit(id, slot, height, frugal) {
            Admission::Now(MemoryPlan { lde, bytes }) => {
                self.make_room(id, bytes, effects);
                self.reserved.insert(id, bytes);
                let Some(job) = self.jobs.get_mut(&id) else { return };
                if job.traced_on.take() == Some(slot) {
                    job.phase = Phase::Proving(slot);
                    job.timings.proving = Some(now);
                } else {
                    job.phase = Phase::Tracing(slot);
                }
                effects.push(Effect::Prove { worker: slot, job: id, body, lde, why });
                effects.push(Effect::Changed { job: id });
            }
            Admission::Wait => {
                // Another slot's job has the memory. Back to the queue's head until it ends.
                self.drop_trace(id, effects);
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

    /// Work outside the slots: trace the next jobs ahead, and learn the height of each waiting job, so that one too big is refused
    /// at once and not when its turn comes. A worker traces fewer jobs at once than it has lanes: one is always left for heights.
    fn fill_lanes(&mut self, now: Time, effects: &mut Vec<Effect>) {
        loop {
            let mut lanes: Vec<WorkerId> =
                self.workers.iter().filter(|(_, worker)| worker.has_free_lane()).map(|(&id, _)| id).collect();
            let mut found = false;
            // One for each worker in turn, so that the queue's head spreads over the devices; whoever has least to do is first.
            let loads = self.loads(now);
            let load = |lane: &WorkerId| loads.get(lane).copied().unwrap_or_default();
            lanes.sort_by(|a, b| load(a).total_cmp(&load(b)));
            for lane in lanes {
                let next = match self.next_to_trace(now, lane, effects) {
                    Some(id) => Some((id, Phase::TracingAhead(lane))),
                    None => self.next_unknown(lane).map(|id| (id, Phase::Inspecting(lane))),
                };
                if let Some((id, phase)) = next {
                    self.occupy_lane(lane, id, phase, effects);
                    found = true;
                }
            }
            if !found {
                return;
            }
        }
    }

    /// The first waiting job that nobody has looked at.
    fn next_unknown(&self, lane: WorkerId) -> Option<JobId> {
        let on_cpu = self.workers.get(&lane)?.backend == Backend::Cpu;
        let may_look = |id: JobId, job: &Job| self.is_eligible(job, lane) && !(on_cpu && self.is_left_to_gpus(id, job));
        let mut unknown = self.unknown.iter().map(|&(_, _, id)| id);
        unknown.find(|&id| self.jobs.get(&id).is_some_and(|job| may_look(id, job)))
    }

    /// Whether the CPU leaves this job of unknown height to a GPU's worker to look at: that keeps the trace for the proof, which
    /// otherwise runs the program again. So it is with the first of them, as many as the GPUs look at at once; behind them the CPU
    /// helps.
    fn is_left_to_gpus(&self, id: JobId, job: &Job) -> bool {
        // One that failed on a GPU must not wait for it.
        if job.log2_padded_height.is_some() || job.body().force_cpu || job.avoid.is_some() {
            return false;
        }
        let gpus = || self.workers.iter().filter(|(_, worker)| worker.backend == Backend::Gpu && worker.usable());
        let is_looked_at = job.phase.worker().is_some_and(|at| gpus().any(|(&gpu, _)| gpu == at));
        let lanes = gpus().map(|(_, worker)| worker.max_lanes).sum();
        is_looked_at || self.unknown.iter().take(lanes).any(|&(_, _, first)| first == id)
    }

    /// The first waiting job that should be traced ahead on `lane`, while the worker's share and the host's memory have room for it.
    /// Traces of jobs further behind make room: the device would have to wait for the urgent one's otherwise.
    fn next_to_trace(&mut self, now: Time, lane: WorkerId, effects: &mut Vec<Effect>) -> Option<JobId> {
        let worker = self.workers.get(&lane)?;
        let is_traced = |id: &&JobId| self.jobs.get(id).is_some_and(|job| job.phase == Phase::TracingAhead(lane));
        if worker.max_ahead_bytes == 0 || worker.lanes.iter().filter(is_traced).count() + 1 >= worker.max_lanes {
            return None;
        }
        let is_ready = |job: &Job| {
            let untouched = job.phase == Phase::Idle && job.traced_on.is_none() && job.log2_padded_height.is_some();
            untouched && job.avoid != Some(lane) && self.is_eligible(job, lane)
        };
        let mut homes = self.homes(now);
        let next = self.head().find(|(_, job)| {
            let may = is_ready(job) && homes.may_take(self, job, lane);
            homes.pass(self, job);
            may
        });
        let next = *next?.0;
        let bytes = self.memory.ahead_bytes(self.jobs.get(&next.2)?.log2_padded_height?);
        let mut ahead = self.ahead_on(lane);
        let mut held: u64 = ahead.iter().map(|&(_, bytes)| bytes).sum();
        let mut gives_way = Vec::new();
        // One that is larger than the worker's share is made ready when it is the next.
        while held > 0 && held.saturating_add(bytes) > worker.max_ahead_bytes {
            let (last, freed) = ahead.pop().filter(|&(last, _)| next < last)?;
            held -= freed;
            gives_way.push((last.2, freed));
        }
        let freed: u64 = gives_way.iter().map(|&(_, bytes)| bytes).sum();
        if self.reserved.values().sum::<u64>() - freed + bytes > self.memory.limit {
            return None;
        }
        for (last, _) in gives_way {
            self.drop_trace(last, effects);
        }
        Some(next.2)
    }

    /// Jobs that are traced ahead on a worker, done or under way, in order of the queue, with the bytes reserved for them.
    pub(super) fn ahead_on(&self, lane: WorkerId) -> Vec<(Place, u64)> {
        let is_ahead =
            |job: &Job| job.slot.is_none() && (job.traced_on == Some(lane) || job.phase == Phase::TracingAhead(lane));
        let ahead = self.reserved.iter().filter_map(|(&id, &bytes)| Some((id, self.jobs.get(&id)?, bytes)));
        let mut ahead: Vec<_> =
            ahead.filter(|(_, job, _)| is_ahead(job)).map(|(id, job, bytes)| (place(id, job), bytes)).collect();
        ahead.sort_unstable();
        ahead
    }

    /// Gives traces up, from the queue's end, until `bytes` fit beside what else is reserved.
    fn make_room(&mut self, id: JobId, bytes: u64, effects: &mut Vec<Effect>) {
        let fits = |reserved: &BTreeMap<JobId, u64>, limit: u64| {
            let others: u64 = reserved.iter().filter(|&(&other, _)| other != id).map(|(_, bytes)| bytes).sum();
            others.saturating_add(bytes) <= limit
        };
        while !fits(&self.reserved, self.memory.limit) {
            let last = self.waiting.iter().rev().map(|&(_, _, other)| other).find(|other| self.reserved.contains_key(other));
            let Some(last) = last else { return };
            self.drop_trace(last, effects);
        }
    }

    /// What another worker has of the job or does for it, waiting to be asked or with its slots taken, is done again on this one.
    fn move_to(&mut self, worker: WorkerId, id: JobId, effects: &mut Vec<Effect>) {
        let to_gpu = self.backend(worker) == Some(Backend::Gpu);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let elsewhere = [job.traced_on, job.phase.worker(), job.home].into_iter().flatten().find(|&other| other != worker);
        job.home = to_gpu.then_some(worker);
        if let Some(other) = elsewhere {
            job.traced_on = None;
            job.phase = Phase::Idle;
            effects.push(Effect::Discard { worker: other, job: id });
            self.release_lane(other, id);
        }
    }

    /// Forgets a trace that is held or made ahead of a slot.
    fn drop_trace(&mut self, id: JobId, effects: &mut Vec<Effect>) {
        self.reserved.remove(&id);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let lane = match job.phase {
            Phase::TracingAhead(lane) => {
                job.phase = Phase::Idle;
                Some(lane)
            }
            _ => None,
        };
        let Some(worker) = job.traced_on.take().or(lane) else { return };
        job.home = None;
        self.release_lane(worker, id);
        effects.push(Effect::Discard { worker, job: id });
        effects.push(Effect::Changed { job: id });
    }

    fn occupy_lane(&mut self, lane: WorkerId, id: JobId, phase: Phase, effects: &mut Vec<Effect>) {
        self.move_to(lane, id, effects);
        let Some(job) = self.jobs.get_mut(&id) else { return };
        self.unknown.remove(&place(id, job));
        job.phase = phase;
        if let (Phase::TracingAhead(_), Some(log2_height)) = (phase, job.log2_padded_height) {
            self.reserved.insert(id, self.memory.ahead_bytes(log2_height));
        }
        let (worker, job, body) = (lane, id, job.body().id);
        effects.push(match phase {
            Phase::TracingAhead(_) => Effect::Trace { worker, job, body },
            _ => Effect::Inspect { worker, job, body },
        });
        effects.push(Effect::Changed { job });
        if let Some(worker) = self.workers.get_mut(&lane) {
            worker.lanes.insert(id);
        }
    }

    fn set_phase(&mut self, id: JobId, phase: Phase) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.phase = phase;
        }
    }

    /// Whether the job may start on that worker now. Traces held ahead do not count: they make room.
    fn admit(&self, id: JobId, worker: WorkerId, height: u8, frugal: bool) -> Admission {
        let limit = self.largest(worker);
        let Some(backend) = self.backend(worker).filter(|_| height <= limit) else { return Admission::Never { limit } };
        let runs = |other: &JobId| *other != id && self.jobs.get(other).is_some_and(|job| job.slot.is_some());
        let reserved = self.reserved.iter().filter(|(other, _)| runs(other)).map(|(_, bytes)| bytes).sum();
        self.memory.admit(backend, height, reserved, frugal)
    }
}

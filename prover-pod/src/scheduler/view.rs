//! What the scheduler tells of itself. Nothing here changes it.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use prover_api::{JobId, Priority};

use super::job::{Job, Phase};
use super::routing::{Room, Route, Traveller, route};
use super::state::{Scheduler, place};
use super::worker::Worker;
use super::{Backend, JobView, ProofCache, WorkerId, WorkerView};

impl Scheduler {
    /// Whether [`Self::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether the job waits, runs or is verified.
    pub fn is_live(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id)
    }

    /// Kind of a worker that was up once.
    pub fn backend(&self, id: WorkerId) -> Option<Backend> {
        self.workers.get(&id).map(|worker| worker.backend)
    }

    /// Estimated seconds of a job that a worker has.
    pub fn expected_seconds(&self, view: &JobView) -> f64 {
        let backend = view.worker.and_then(|id| self.backend(id)).unwrap_or_else(|| self.main_backend());
        self.costs.seconds(backend, view.log2_padded_height)
    }

    /// Most bytes of job bodies held at once.
    pub fn max_body_bytes(&self) -> u64 {
        self.config.max_body_bytes
    }

    /// Whether no job is live.
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// A job's public status, live or remembered.
    pub fn view(&self, id: JobId) -> Option<JobView> {
        let Some(job) = self.jobs.get(&id) else { return self.history.get(&id).cloned() };
        let waits = job.slot.is_none() && !matches!(job.phase, Phase::Verifying(..));
        Some(JobView {
            state: job.state(),
            priority: job.priority,
            position: waits.then(|| self.waiting.range(..place(id, job)).count()),
            log2_padded_height: job.log2_padded_height,
            worker: job.slot.or(job.phase.worker()).or(job.traced_on),
            timings: job.timings,
            interests: job.interests.len(),
            attempts: job.attempts,
            failure: None,
            given_back: false,
        })
    }

    /// The cache, for metrics.
    pub fn cache(&self) -> &ProofCache {
        &self.cache
    }

    /// Bytes of job bodies held.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Jobs that wait for a slot.
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Jobs that wait and their estimated seconds, by priority.
    pub fn queue(&self) -> BTreeMap<Priority, (usize, f64)> {
        let backend = self.main_backend();
        let mut queue: BTreeMap<Priority, (usize, f64)> = BTreeMap::new();
        for (priority, _, id) in &self.waiting {
            let height = self.jobs.get(id).and_then(|job| job.log2_padded_height);
            let entry = queue.entry(priority.0).or_default();
            entry.0 += 1;
            entry.1 += self.costs.seconds(backend, height);
        }
        queue
    }

    /// The workers.
    pub fn workers(&self) -> Vec<WorkerView> {
        let view = |(&id, worker): (&WorkerId, &Worker)| WorkerView {
            id,
            backend: worker.backend,
            slots: worker.slots,
            running: worker.running.iter().copied().collect(),
            up: worker.up,
            quarantined: worker.quarantined,
            wrong_proofs: worker.wrong_proofs,
        };
        self.workers.iter().map(view).collect()
    }

    /// Whether a worker's device made too many wrong proofs.
    pub fn is_quarantined(&self, id: WorkerId) -> bool {
        self.workers.get(&id).is_some_and(|worker| worker.quarantined)
    }

    /// Largest log2 padded height that some usable worker takes with nothing else running; `None` without workers.
    pub fn capacity(&self) -> Option<u8> {
        let usable = self.workers.values().filter(|worker| worker.usable());
        usable.map(|worker| self.largest_on(worker)).max()
    }

    /// How long the queue will take: what `Retry-After` says.
    pub fn retry_after(&self) -> Duration {
        let slots: usize = self.workers.values().filter(|w| w.usable()).map(|w| w.slots).sum();
        let seconds: f64 = self.queue().values().map(|(_, seconds)| seconds).sum();
        // A queue so long that one would rather not wait still moves: come back when a part of it is done.
        Duration::from_secs_f64((seconds / slots.max(1) as f64 / 4.0).clamp(1.0, 120.0))
    }

    /// Largest log2 padded height that a worker takes with nothing else running. What its device takes is known when it is up.
    pub fn largest(&self, id: WorkerId) -> u8 {
        self.workers.get(&id).map_or(0, |worker| self.largest_on(worker))
    }

    pub(super) fn largest_on(&self, worker: &Worker) -> u8 {
        let own = self.config.max_log2_padded_height.unwrap_or(u8::MAX);
        let device = worker.max_log2_height.unwrap_or(u8::MAX);
        self.memory.largest(worker.backend).min(device).min(own)
    }

    /// The largest heights that there are provers for, in workers that are up or will be: [`Self::room`].
    pub(super) fn count_room(&self) -> Room {
        let largest = |backend| {
            let workers = self.workers.values().filter(|worker| worker.backend == backend && worker.counts());
            workers.map(|worker| self.largest_on(worker)).max()
        };
        Room { cpu: largest(Backend::Cpu), gpu: largest(Backend::Gpu) }
    }

    /// Where the job goes in a pod of real provers, once its height is known.
    pub(super) fn route_of(&self, job: &Job) -> Option<Result<Route, u8>> {
        let log2_height = job.log2_padded_height?;
        let room = self.room;
        if room == Room::default() {
            return None;
        }
        let is_other_gpu =
            |(id, worker): (&WorkerId, &Worker)| worker.backend == Backend::Gpu && worker.counts() && Some(*id) != job.avoid;
        let failed_on_gpu = job.avoid.is_some_and(|id| self.backend(id) == Some(Backend::Gpu));
        let gpu_failed = failed_on_gpu && !self.workers.iter().any(is_other_gpu);
        let traveller = Traveller { kind: job.kind, log2_height, force_cpu: job.body().force_cpu, gpu_failed };
        Some(route(&self.config.routing, room, traveller))
    }

    pub(super) fn main_backend(&self) -> Backend {
        let backends: HashSet<Backend> = self.workers.values().map(|worker| worker.backend).collect();
        [Backend::Gpu, Backend::Cpu, Backend::Mock].into_iter().find(|b| backends.contains(b)).unwrap_or(Backend::Cpu)
    }
}

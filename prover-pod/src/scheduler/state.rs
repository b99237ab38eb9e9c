//! The state and its inputs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use prover_api::{JobId, JobState, Priority};

use super::job::{Body, Job, Phase};
use super::worker::Worker;
use super::{
    Accepted, Backend, BodyId, Config, CostModel, Effect, Failure, Interest, InterestId, JobView, MemoryGate, Outcome,
    ProofCache, Refusal, Submission, Time, Timings, WorkerId, WorkerView,
};

/// Order of the queue: higher priority first, then order of arrival.
pub(super) type Place = (std::cmp::Reverse<Priority>, u64, JobId);

/// See the [module](super).
#[derive(Debug)]
pub struct Scheduler {
    pub(super) config: Config,
    pub(super) memory: MemoryGate,
    pub(super) costs: CostModel,
    pub(super) jobs: HashMap<JobId, Job>,
    /// Jobs without a slot that want one.
    pub(super) waiting: BTreeSet<Place>,
    /// Those of them whose height nobody knows or is finding out.
    pub(super) unknown: BTreeSet<Place>,
    /// Bytes reserved by the jobs in slots.
    pub(super) reserved: BTreeMap<JobId, u64>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    cache: ProofCache,
    history: HashMap<JobId, JobView>,
    history_order: VecDeque<JobId>,
    deadlines: BTreeSet<(Time, InterestId, JobId)>,
    next_seq: u64,
    next_run: u64,
    body_bytes: u64,
    draining: bool,
}

impl Scheduler {
    /// An empty scheduler without workers.
    pub fn new(config: Config, memory: MemoryGate, costs: CostModel) -> Self {
        Self {
            cache: ProofCache::new(config.proof_cache_bytes),
            config,
            memory,
            costs,
            jobs: HashMap::new(),
            waiting: BTreeSet::new(),
            unknown: BTreeSet::new(),
            reserved: BTreeMap::new(),
            workers: BTreeMap::new(),
            history: HashMap::new(),
            history_order: VecDeque::new(),
            deadlines: BTreeSet::new(),
            next_seq: 0,
            next_run: 0,
            body_bytes: 0,
            draining: false,
        }
    }

    /// Takes a caller in, or says why not.
    ///
    /// # Errors
    /// [`Refusal`]; nothing was registered then.
    pub fn submit(&mut self, now: Time, wish: &Submission, effects: &mut Vec<Effect>) -> Result<Accepted, Refusal> {
        if self.cache.touch(wish.job) {
            return Ok(Accepted::Cached);
        }
        if self.draining {
            return Err(Refusal::Draining);
        }
        if !self.workers.is_empty() && self.workers.values().all(|worker| worker.quarantined) {
            return Err(Refusal::NoDevice);
        }
        let live = self.jobs.get(&wish.job);
        let adds_body = live.is_none_or(|job| job.bodies.iter().all(|body| body.id != wish.body));
        if adds_body && self.body_bytes.saturating_add(wish.bytes) > self.config.max_body_bytes
            || live.is_none() && self.waiting.len() >= self.config.max_queued
        {
            return Err(Refusal::QueueFull { retry_after: self.retry_after() });
        }

        let body = Body { id: wish.body, bytes: wish.bytes, force_cpu: wish.force_cpu };
        let interest = Interest {
            body: wish.body,
            priority: wish.priority,
            deadline: wish.deadline,
            max_log2_padded_height: wish.max_log2_padded_height,
        };
        if let Some(deadline) = wish.deadline {
            self.deadlines.insert((deadline, wish.interest, wish.job));
        }
        if adds_body {
            self.body_bytes += wish.bytes;
        }
        if let Some(job) = self.jobs.get_mut(&wish.job) {
            if adds_body {
                job.bodies.push_back(body);
            }
            job.interests.insert(wish.interest, interest);
            self.reprioritize(wish.job);
            self.refuse_by_own_limit(now, wish.job, effects);
            self.pump(now, effects);
            return Ok(Accepted::Attached);
        }

        self.next_seq += 1;
        let job = Job {
            seq: self.next_seq,
            priority: wish.priority,
            bodies: VecDeque::from([body]),
            interests: BTreeMap::from([(wish.interest, interest)]),
            phase: Phase::Idle,
            slot: None,
            traced_on: None,
            log2_padded_height: wish.log2_padded_height,
            attempts: 0,
            avoid: None,
            timings: Timings { submitted: now, ..Timings::default() },
        };
        self.jobs.insert(wish.job, job);
        self.enqueue(wish.job);
        effects.push(Effect::Changed { job: wish.job });
        if wish.log2_padded_height.is_some() {
            self.refuse_too_big(now, wish.job, effects);
        }
        self.pump(now, effects);
        Ok(Accepted::Queued)
    }

    /// A caller hangs up or cancels. No answer follows for it. Unknown interests are fine: they have just been answered.
    pub fn withdraw(&mut self, now: Time, job: JobId, interest: InterestId, effects: &mut Vec<Effect>) {
        if self.remove_interest(job, interest).is_some() {
            self.after_interests_left(now, job, effects);
            self.pump(now, effects);
        }
    }

    /// Cancels for one caller, who gets [`Outcome::Cancelled`].
    pub fn cancel(&mut self, now: Time, job: JobId, interest: InterestId, effects: &mut Vec<Effect>) {
        if self.remove_interest(job, interest).is_some() {
            effects.push(Effect::Answer { interest, job, outcome: Outcome::Cancelled });
            self.after_interests_left(now, job, effects);
            self.pump(now, effects);
        }
    }

    /// A worker process is up and has passed its self-test.
    pub fn worker_up(&mut self, now: Time, id: WorkerId, backend: Backend, slots: usize, effects: &mut Vec<Effect>) {
        let worker = self.workers.entry(id).or_insert(Worker {
            backend,
            slots,
            up: false,
            quarantined: false,
            wrong_proofs: 0,
            running: BTreeSet::new(),
            lane: None,
        });
        worker.backend = backend;
        worker.slots = slots.max(1);
        worker.up = true;
        self.pump(now, effects);
    }

    /// A worker process died. Jobs that it was working on count an attempt; a trace that it merely held does not, and nothing
    /// counts when the scheduler itself asked for the death ([`Effect::Abort`], [`Effect::Restart`]).
    pub fn worker_down(&mut self, now: Time, id: WorkerId, effects: &mut Vec<Effect>) {
        self.forget_process(now, id, true, effects);
        self.pump(now, effects);
    }

    /// The exact height of a job's program is known.
    pub fn inspected(&mut self, now: Time, id: WorkerId, job_id: JobId, log2_height: u8, effects: &mut Vec<Effect>) {
        if !self.is_working(id, job_id) {
            return;
        }
        self.release_lane(id, job_id);
        let Some(job) = self.jobs.get_mut(&job_id) else { return };
        job.log2_padded_height = Some(log2_height);
        job.phase = Phase::Idle;
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
            self.costs.learn(height, to.saturating_sub(from).as_secs_f64());
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
        if matches!(failure, Failure::Prover(_)) {
            self.retry(now, job_id, id, failure, effects);
        } else {
            self.fail_body(now, job_id, failure, effects);
        }
        self.pump(now, effects);
    }

    /// Time passes: deadlines.
    pub fn tick(&mut self, now: Time, effects: &mut Vec<Effect>) {
        while let Some(&(deadline, interest, job)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            if self.remove_interest(job, interest).is_some() {
                effects.push(Effect::Answer { interest, job, outcome: Outcome::DeadlineExceeded });
                self.after_interests_left(now, job, effects);
            }
        }
        self.pump(now, effects);
    }

    /// No new jobs from now on; those without a slot are given back to their callers.
    pub fn drain(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.draining = true;
        let waiting: Vec<JobId> = self.waiting.iter().map(|&(_, _, job)| job).collect();
        for job in waiting {
            self.leave_worker(now, job, effects);
            self.finish(now, job, JobState::Cancelled, &Outcome::Draining, effects);
        }
        self.pump(now, effects);
    }

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
        })
    }

    /// Whether the proof of `id` is cached; counts as a use.
    pub fn touch_proof(&mut self, id: JobId) -> bool {
        self.cache.touch(id)
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

    /// Largest log2 padded height that some usable worker takes with nothing else running; `None` without workers.
    pub fn capacity(&self) -> Option<u8> {
        let usable = self.workers.values().filter(|worker| worker.usable());
        usable.map(|worker| self.largest(worker.backend)).max()
    }

    /// How long the queue will take: what `Retry-After` says.
    pub fn retry_after(&self) -> Duration {
        let slots: usize = self.workers.values().filter(|w| w.usable()).map(|w| w.slots).sum();
        let seconds: f64 = self.queue().values().map(|(_, seconds)| seconds).sum();
        // A queue so long that one would rather not wait still moves: come back when a part of it is done.
        Duration::from_secs_f64((seconds / slots.max(1) as f64 / 4.0).clamp(1.0, 120.0))
    }

    /// Largest log2 padded height that a worker of this kind takes with nothing else running.
    pub fn largest(&self, backend: Backend) -> u8 {
        let own = self.config.max_log2_padded_height.unwrap_or(u8::MAX);
        self.memory.largest(backend).min(own)
    }

    pub(super) fn main_backend(&self) -> Backend {
        let backends: HashSet<Backend> = self.workers.values().map(|worker| worker.backend).collect();
        [Backend::Gpu, Backend::Cpu, Backend::Mock].into_iter().find(|b| backends.contains(b)).unwrap_or(Backend::Cpu)
    }

    /// Whether `id` is what works on the job now; reports of work that was given up in the meantime are not.
    fn is_working(&self, id: WorkerId, job: JobId) -> bool {
        let phase = self.jobs.get(&job).map(|job| job.phase);
        phase.is_some_and(|phase| phase.worker() == Some(id) && !matches!(phase, Phase::Verifying(..)))
    }

    pub(super) fn release_lane(&mut self, id: WorkerId, job: JobId) {
        if let Some(worker) = self.workers.get_mut(&id)
            && worker.lane == Some(job)
        {
            worker.lane = None;
        }
    }

    pub(super) fn release_slot(&mut self, id: JobId) {
        self.reserved.remove(&id);
        if let Some(slot) = self.jobs.get_mut(&id).and_then(|job| job.slot.take())
            && let Some(worker) = self.workers.get_mut(&slot)
        {
            worker.running.remove(&id);
        }
    }

    fn reprioritize(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Some(highest) = job.interests.values().map(|interest| interest.priority).max() else { return };
        if job.priority == highest {
            return;
        }
        let old = place(id, job);
        job.priority = highest;
        self.unknown.remove(&old);
        if self.waiting.remove(&old) {
            self.enqueue(id);
        }
    }

    fn remove_interest(&mut self, id: JobId, interest: InterestId) -> Option<Interest> {
        let gone = self.jobs.get_mut(&id)?.interests.remove(&interest)?;
        if let Some(deadline) = gone.deadline {
            self.deadlines.remove(&(deadline, interest, id));
        }
        Some(gone)
    }

    /// Ends the job when nobody wants it any more. Bodies that only the leavers brought go, except the one that runs.
    fn after_interests_left(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.interests.is_empty() {
            self.leave_worker(now, id, effects);
            self.finish(now, id, JobState::Cancelled, &Outcome::Cancelled, effects);
            return;
        }
        let wanted: HashSet<BodyId> = job.interests.values().map(|interest| interest.body).collect();
        let front = job.body().id;
        let (keep, drop): (VecDeque<Body>, VecDeque<Body>) =
            job.bodies.iter().partition(|body| body.id == front || wanted.contains(&body.id));
        job.bodies = keep;
        for body in drop {
            self.body_bytes -= body.bytes;
            effects.push(Effect::DropBody { job: id, body: body.id });
        }
        self.reprioritize(id);
        effects.push(Effect::Changed { job: id });
    }

    /// Takes the job off whatever worker has it.
    pub(super) fn leave_worker(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (phase, held) = (job.phase, job.traced_on.take());
        job.phase = Phase::Idle;
        if let Some(worker) = held {
            effects.push(Effect::Discard { worker, job: id });
        }
        match phase {
            Phase::Idle | Phase::Verifying(..) => {}
            Phase::Inspecting(worker) | Phase::TracingAhead(worker) => {
                self.release_lane(worker, id);
                effects.push(Effect::Discard { worker, job: id });
            }
            Phase::Tracing(worker) | Phase::Proving(worker) => {
                effects.push(Effect::Abort { worker, job: id });
                self.release_slot(id);
                if self.workers.get(&worker).is_some_and(|worker| worker.backend.abort_kills()) {
                    self.forget_process(now, worker, false, effects);
                }
            }
        }
        self.release_slot(id);
    }

    /// The process behind `id` is gone or going: its slots are empty and its traces lost. With `blame`, what it was working on
    /// counts an attempt.
    pub(super) fn forget_process(&mut self, now: Time, id: WorkerId, blame: bool, effects: &mut Vec<Effect>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.up = false;
        worker.lane = None;
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
            if job.traced_on == Some(id) {
                job.traced_on = None;
            }
            let worked = job.phase.worker() == Some(id) && !matches!(job.phase, Phase::Verifying(..));
            if worked {
                job.phase = Phase::Idle;
            }
            if job.slot == Some(id) {
                self.release_slot(job_id);
            }
            if worked && blame {
                self.retry(now, job_id, id, Failure::WorkerLost, effects);
            } else {
                self.wait_again(now, job_id, effects);
            }
        }
    }

    /// Back to its old place in the queue, unless it has a slot. A draining pod gives it back to its callers instead.
    pub(super) fn wait_again(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.slot.is_some() {
            return;
        }
        job.timings = Timings { submitted: job.timings.submitted, ..Timings::default() };
        if self.draining {
            self.leave_worker(now, id, effects);
            self.finish(now, id, JobState::Cancelled, &Outcome::Draining, effects);
        } else {
            self.enqueue(id);
            effects.push(Effect::Changed { job: id });
        }
    }

    /// Puts a job in its place in the queue.
    fn enqueue(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let place = place(id, job);
        self.waiting.insert(place);
        if job.log2_padded_height.is_none() && job.phase == Phase::Idle {
            self.unknown.insert(place);
        }
    }

    /// Takes a job out of the queue.
    pub(super) fn dequeue(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let place = place(id, job);
        self.waiting.remove(&place);
        self.unknown.remove(&place);
    }

    fn retry(&mut self, now: Time, id: JobId, worker: WorkerId, failure: Failure, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.attempts += 1;
        job.avoid = Some(worker);
        if job.attempts >= self.config.max_attempts {
            self.fail_body(now, id, failure, effects);
        } else {
            self.wait_again(now, id, effects);
        }
    }

    /// The front body failed for good: its callers hear so, the next body gets its own run.
    pub(super) fn fail_body(&mut self, now: Time, id: JobId, failure: Failure, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let body = job.body();
        let others = job.interests.values().any(|interest| interest.body != body.id);
        if !others || self.draining {
            self.finish(now, id, JobState::Failed, &Outcome::Failed(failure), effects);
            return;
        }
        let callers: Vec<InterestId> =
            job.interests.iter().filter(|(_, i)| i.body == body.id).map(|(&interest, _)| interest).collect();
        job.bodies.pop_front();
        job.attempts = 0;
        job.avoid = None;
        job.log2_padded_height = None;
        job.phase = Phase::Idle;
        self.body_bytes -= body.bytes;
        for interest in callers {
            self.remove_interest(id, interest);
            effects.push(Effect::Answer { interest, job: id, outcome: Outcome::Failed(failure.clone()) });
        }
        effects.push(Effect::DropBody { job: id, body: body.id });
        self.wait_again(now, id, effects);
        self.after_interests_left(now, id, effects);
    }

    fn count_wrong_proof(&mut self, now: Time, id: WorkerId, effects: &mut Vec<Effect>) {
        let limit = self.config.quarantine_after;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.wrong_proofs += 1;
        worker.quarantined |= limit > 0 && worker.wrong_proofs >= limit;
        effects.push(Effect::Restart { worker: id });
        self.forget_process(now, id, false, effects);
        if self.workers.values().all(|worker| worker.quarantined) {
            let stranded: Vec<JobId> = self.waiting.iter().map(|&(_, _, job)| job).collect();
            for job in stranded {
                self.finish(now, job, JobState::Failed, &Outcome::Failed(Failure::NoDevice), effects);
            }
        }
    }

    /// Callers whose own limit is below the height, now that it is known, hear so; others are not concerned.
    fn refuse_by_own_limit(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get(&id) else { return };
        let Some(height) = job.log2_padded_height else { return };
        let refused: Vec<(InterestId, u8)> = job
            .interests
            .iter()
            .filter_map(|(&id, interest)| Some((id, interest.max_log2_padded_height.filter(|&limit| limit < height)?)))
            .collect();
        if refused.is_empty() {
            return;
        }
        for &(interest, limit) in &refused {
            self.remove_interest(id, interest);
            let outcome = Outcome::Failed(Failure::TooBig { log2_padded_height: height, limit });
            effects.push(Effect::Answer { interest, job: id, outcome });
        }
        self.after_interests_left(now, id, effects);
    }

    /// Ends a job that no worker of this pod could ever take.
    fn refuse_too_big(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(height) = self.jobs.get(&id).and_then(|job| job.log2_padded_height) else { return };
        // Workers may still be starting; then the limit of the kind that the pod will have decides when one is up.
        let Some(limit) = self.workers.values().filter(|w| !w.quarantined).map(|w| self.largest(w.backend)).max() else {
            return;
        };
        if height > limit {
            self.leave_worker(now, id, effects);
            self.fail_body(now, id, Failure::TooBig { log2_padded_height: height, limit }, effects);
        }
    }

    /// Ends the job: every interest gets `outcome`, bodies go, the status is remembered.
    pub(super) fn finish(&mut self, now: Time, id: JobId, state: JobState, outcome: &Outcome, effects: &mut Vec<Effect>) {
        let Some(mut view) = self.view(id) else { return };
        self.release_slot(id);
        self.dequeue(id);
        let Some(mut job) = self.jobs.remove(&id) else { return };
        job.timings.ended = Some(now);
        for (interest, wish) in std::mem::take(&mut job.interests) {
            if let Some(deadline) = wish.deadline {
                self.deadlines.remove(&(deadline, interest, id));
            }
            effects.push(Effect::Answer { interest, job: id, outcome: outcome.clone() });
        }
        for body in &job.bodies {
            self.body_bytes -= body.bytes;
            effects.push(Effect::DropBody { job: id, body: body.id });
        }
        view.state = state;
        view.position = None;
        view.timings = job.timings;
        view.interests = 0;
        if let Outcome::Failed(failure) = outcome {
            view.failure = Some(failure.clone());
        }
        self.remember(id, view);
        effects.push(Effect::Changed { job: id });
    }

    fn remember(&mut self, id: JobId, view: JobView) {
        if self.history.insert(id, view).is_none() {
            self.history_order.push_back(id);
        }
        while self.history_order.len() > self.config.history {
            if let Some(oldest) = self.history_order.pop_front() {
                self.history.remove(&oldest);
            }
        }
    }
}

pub(super) fn place(id: JobId, job: &Job) -> Place {
    (std::cmp::Reverse(job.priority), job.seq, id)
}

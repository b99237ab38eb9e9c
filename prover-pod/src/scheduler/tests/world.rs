//! The shell and the workers around a scheduler under test: they answer like real ones, and worse ones, and check the invariants
//! after each step.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::super::home::moving_seconds;
use super::super::job::Job;
use super::super::state::place;
use super::*;

/// What a worker was told and has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Inspect,
    Trace,
    Prove,
}

pub(super) type Input<'a> = dyn FnOnce(&mut Scheduler, Time, &mut Vec<Effect>) + 'a;

/// What is compared with after a step.
pub(super) struct Before {
    running: BTreeMap<JobId, WorkerId>,
    /// Who may be passed on which worker, being sooner at home.
    at_home: BTreeSet<(JobId, WorkerId)>,
}

/// The shell and the workers, reduced to their bookkeeping.
pub(super) struct World {
    pub(super) scheduler: Scheduler,
    pub(super) now: Time,
    pub(super) effects: Vec<Effect>,
    /// Orders under way, by worker and job.
    pub(super) orders: BTreeMap<(WorkerId, JobId), Order>,
    pub(super) traces: HashSet<(WorkerId, JobId)>,
    pub(super) verifying: BTreeMap<u64, (JobId, WorkerId)>,
    pub(super) up: BTreeMap<WorkerId, Backend>,
    pub(super) open: HashMap<InterestId, JobId>,
    pub(super) answered: HashMap<InterestId, Outcome>,
    pub(super) next_interest: u64,
    pub(super) cached: HashSet<JobId>,
    pub(super) bodies: HashSet<(JobId, BodyId)>,
    pub(super) starts: Vec<JobId>,
    /// Jobs at once of a worker with more than one.
    pub(super) jobs: usize,
}

impl World {
    pub(super) fn new(config: Config, backends: &[Backend]) -> Self {
        Self::with_jobs(config, backends, 2)
    }

    pub(super) fn with_jobs(config: Config, backends: &[Backend], jobs: usize) -> Self {
        let mut world = Self {
            scheduler: Scheduler::new(config, MemoryGate { limit: 20 * GIB }, CostModel::new(2)),
            now: Time::ZERO,
            effects: Vec::new(),
            orders: BTreeMap::new(),
            traces: HashSet::new(),
            verifying: BTreeMap::new(),
            up: BTreeMap::new(),
            open: HashMap::new(),
            answered: HashMap::new(),
            next_interest: 0,
            cached: HashSet::new(),
            bodies: HashSet::new(),
            starts: Vec::new(),
            jobs,
        };
        for (index, &backend) in backends.iter().enumerate() {
            world.scheduler.expect_worker(WorkerId(index as u32), backend);
        }
        for (index, &backend) in backends.iter().enumerate() {
            world.start_worker(WorkerId(index as u32), backend);
        }
        world
    }

    pub(super) fn start_worker(&mut self, id: WorkerId, backend: Backend) {
        self.up.insert(id, backend);
        let jobs = if backend == Backend::Cpu { 1 } else { self.jobs };
        // The device is smaller than the host's memory: some heights fit on the CPU alone.
        let max_log2_padded_height = (backend == Backend::Gpu).then_some(GPU_LOG2_HEIGHT);
        let offer = Offer { backend, jobs, max_log2_padded_height };
        self.step(|s, now, effects| s.worker_up(now, id, offer, effects));
    }

    pub(super) fn running(&self) -> BTreeMap<JobId, WorkerId> {
        let workers = self.scheduler.workers();
        workers.iter().flat_map(|w| w.running.iter().map(|&job| (job, w.id))).collect()
    }

    fn before(&self) -> Before {
        let waiting = self.scheduler.waiting.iter().map(|&(_, _, job)| job);
        let pairs = waiting.flat_map(|job| self.up.keys().map(move |&worker| (job, worker)));
        Before {
            running: self.running(),
            at_home: pairs.filter(|&(job, worker)| self.is_sooner_at_home(job, worker)).collect(),
        }
    }

    /// One input, then its effects, then the invariants.
    pub(super) fn step(&mut self, act: impl FnOnce(&mut Scheduler, Time, &mut Vec<Effect>)) {
        self.step_boxed(Box::new(act));
    }

    pub(super) fn step_boxed(&mut self, act: Box<Input<'_>>) {
        let before = self.before();
        let mut effects = Vec::new();
        act(&mut self.scheduler, self.now, &mut effects);
        let mut restarts = Vec::new();
        for effect in &effects {
            self.apply(effect, &mut restarts);
        }
        self.effects.extend(effects);
        self.check(&before);
        for worker in restarts {
            // The shell kills the process; later it comes up again.
            if let Some(backend) = self.up.remove(&worker) {
                self.step(|s, now, effects| s.worker_down(now, worker, effects));
                self.start_worker(worker, backend);
            }
        }
    }

    pub(super) fn apply(&mut self, effect: &Effect, restarts: &mut Vec<WorkerId>) {
        match *effect {
            Effect::Inspect { worker, job, body } => self.order(worker, job, body, Order::Inspect),
            Effect::Trace { worker, job, body } => self.order(worker, job, body, Order::Trace),
            Effect::Prove { worker, job, body, .. } => {
                let elsewhere = self.orders.iter().find(|&(&(_, other), &order)| other == job && order == Order::Prove);
                assert_eq!(elsewhere, None, "two runs of one claim");
                self.order(worker, job, body, Order::Prove);
                self.traces.remove(&(worker, job));
                self.starts.push(job);
            }
            Effect::Discard { worker, job } => {
                let order = self.orders.remove(&(worker, job));
                assert_ne!(order, Some(Order::Prove), "a proof is aborted, not discarded");
                self.traces.remove(&(worker, job));
            }
            Effect::Abort { worker, job } => {
                assert!(self.orders.remove(&(worker, job)).is_some(), "aborts what runs");
                if self.up.get(&worker).is_some_and(|backend| backend.abort_kills()) {
                    self.lose_process(worker);
                    restarts.push(worker);
                }
            }
            Effect::Restart { worker } => {
                self.lose_process(worker);
                restarts.push(worker);
            }
            Effect::Verify { worker, job, run } => assert!(self.verifying.insert(run, (job, worker)).is_none()),
            Effect::Answer { interest, job, ref outcome } => {
                assert_eq!(self.open.remove(&interest), Some(job), "answers only who waits");
                assert!(self.answered.insert(interest, outcome.clone()).is_none(), "answers once");
            }
            Effect::Changed { .. } => {}
            Effect::DropBody { job, body } => assert!(self.bodies.remove(&(job, body)), "drops what is held"),
            Effect::DropProof { job } => assert!(self.cached.remove(&job), "drops what is cached"),
        }
    }

    pub(super) fn order(&mut self, worker: WorkerId, job: JobId, body: BodyId, order: Order) {
        assert!(self.up.contains_key(&worker), "orders go to workers that are up");
        assert!(self.bodies.contains(&(job, body)), "the body is still there");
        let old = self.orders.insert((worker, job), order);
        assert_eq!(old, None, "one order at a time for a job on a worker");
    }

    pub(super) fn lose_process(&mut self, worker: WorkerId) {
        self.orders.retain(|&(other, _), _| other != worker);
        self.traces.retain(|&(other, _)| other != worker);
    }

    pub(super) fn check(&self, before: &Before) {
        let running = self.running();
        assert_eq!(self.scheduler.room, self.scheduler.count_room());
        for view in self.scheduler.workers() {
            assert!(view.running.len() <= view.slots, "more jobs than slots");
            assert!(view.up || view.running.is_empty(), "a dead worker runs nothing");
        }
        // Nobody gets a slot while somebody more urgent waits for one.
        // Who must not use the free worker (another kind, or it failed there) may be passed. A worker that will start again
        // counts: who belongs there waits for it.
        let picky = |job: &JobId| {
            let job = &self.scheduler.jobs[job];
            let workers = self.scheduler.workers.values().filter(|worker| worker.counts());
            let kinds: BTreeSet<Backend> = workers.map(|worker| worker.backend).collect();
            let bound = kinds.len() > 1 && (job.body().force_cpu || job.log2_padded_height.is_some());
            job.avoid.is_some() || bound
        };
        for (job, &worker) in running.iter().filter(|(job, _)| !before.running.contains_key(job)) {
            let mut waiting = self.scheduler.waiting.iter().map(|&(_, _, other)| other);
            // A trace may have given way in the same step, and its job gone elsewhere.
            let is_passed = |other: JobId| before.at_home.contains(&(other, worker)) || self.is_sooner_at_home(other, worker);
            let Some(other) = waiting.find(|&other| !picky(&other) && !is_passed(other)) else { continue };
            let [priority, more] = [*job, other].map(|job| self.scheduler.view(job).expect("is live").priority);
            assert!(priority >= more, "{priority} started before {more}");
        }
        let live: BTreeSet<JobId> = self.open.values().copied().collect();
        for &job in &live {
            let view = self.scheduler.view(job).expect("who waits, waits for something");
            assert!(!view.state.is_final(), "{job} ended without an answer");
        }
        assert_eq!(self.bodies.len() as u64 * 10, self.scheduler.body_bytes());
        self.check_memory();
        for (&job, &worker) in &running {
            self.check_route(job, worker);
        }
    }

    /// Whether the job is at home on another GPU than `worker`, and that will come to it sooner than the host could do its part
    /// again; or is just finding out how much that is.
    fn is_sooner_at_home(&self, id: JobId, worker: WorkerId) -> bool {
        let job = &self.scheduler.jobs[&id];
        let Some(home) = self.scheduler.home_of(job).filter(|&home| home != worker) else { return false };
        let Some(log2_height) = job.log2_padded_height else { return job.phase == Phase::Inspecting(home) };
        let seconds = |job: &Job| self.scheduler.costs.seconds(Backend::Gpu, job.log2_padded_height);
        let running = self.scheduler.workers[&home].running.iter().map(|id| &self.scheduler.jobs[id]);
        let left = running.map(|job| {
            let started = job.timings.started.expect("runs");
            (seconds(job) - self.now.saturating_sub(started).as_secs_f64()).abs()
        });
        let ahead = self.scheduler.waiting.range(..place(id, job)).map(|(_, _, other)| &self.scheduler.jobs[other]);
        let ahead = ahead.filter(|job| self.scheduler.home_of(job) == Some(home)).map(seconds);
        left.chain(ahead).sum::<f64>() <= moving_seconds(log2_height)
    }

    /// What is reserved is what runs and what is traced ahead, and fits.
    pub(super) fn check_memory(&self) {
        let scheduler = &self.scheduler;
        assert!(scheduler.reserved.values().sum::<u64>() <= scheduler.memory.limit, "more memory than there is");
        for (id, job) in &scheduler.jobs {
            let ahead = job.slot.is_none() && (job.traced_on.is_some() || matches!(job.phase, Phase::TracingAhead(_)));
            let proves = matches!(job.phase, Phase::Tracing(_) | Phase::Proving(_));
            let reserves = scheduler.reserved.contains_key(id);
            assert!(reserves || !(ahead || proves), "{id} takes memory that nobody counts");
            assert!(!reserves || ahead || job.slot.is_some(), "{id} holds memory for nothing");
        }
        for (id, worker) in &scheduler.workers {
            let ahead = scheduler.ahead_on(*id);
            let bytes: u64 = ahead.iter().map(|&(_, bytes)| bytes).sum();
            assert!(ahead.len() <= 1 || bytes <= worker.max_ahead_bytes, "more traces than there is room for");
            assert!(ahead.is_empty() || worker.max_ahead_bytes > 0, "nothing is traced ahead");
            assert!(worker.lanes.len() <= worker.max_lanes, "more lanes than there are");
        }
    }

    /// A job of known height that is traced or proven in a slot is where it may be.
    pub(super) fn check_route(&self, id: JobId, worker: WorkerId) {
        let job = &self.scheduler.jobs[&id];
        let (Some(height), Phase::Tracing(_) | Phase::Proving(_)) = (job.log2_padded_height, job.phase) else { return };
        assert!(height <= self.scheduler.largest(worker), "2^{height} does not fit there");
        let has_cpu = self.scheduler.room.cpu.is_some();
        assert!(!(job.body().force_cpu && has_cpu && self.up[&worker] == Backend::Gpu), "the caller wants no GPU");
    }

    pub(super) fn submit(&mut self, wish: &Submission) -> Result<Accepted, Refusal> {
        self.open.insert(wish.interest, wish.job);
        let new_body = self.bodies.insert((wish.job, wish.body));
        let (interest, key) = (wish.interest, (wish.job, wish.body));
        let mut effects = Vec::new();
        // As the shell does it: effects of an accepted wish may already need the body and the caller.
        let before = self.before();
        let result = self.scheduler.submit(self.now, wish, &mut effects);
        if !matches!(result, Ok(Accepted::Attached | Accepted::Queued)) {
            assert!(effects.is_empty());
            self.open.remove(&interest);
            if new_body {
                self.bodies.remove(&key);
            }
        }
        for effect in &effects {
            self.apply(effect, &mut Vec::new());
        }
        self.effects.extend(effects);
        self.check(&before);
        result
    }

    pub(super) fn wish(&mut self, n: u64, b: u8, priority: Priority) -> Submission {
        self.next_interest += 1;
        Submission {
            job: job(n),
            body: body(b),
            bytes: 10,
            priority,
            force_cpu: false,
            max_log2_padded_height: None,
            log2_padded_height: None,
            kind: JobKind::Other,
            deadline: None,
            interest: InterestId(self.next_interest),
        }
    }

    /// A worker answers an order; `luck` decides how.
    pub(super) fn answer_order(&mut self, at: usize, luck: u8, height: u8) {
        let Some((&(worker, job), &order)) = self.orders.iter().nth(at % self.orders.len().max(1)) else { return };
        let failure = match luck {
            0 => Some(Failure::Endless { cycle_limit: 1 }),
            1 => Some(Failure::Prover("broke".to_owned())),
            _ => None,
        };
        if let Some(failure) = failure {
            self.orders.remove(&(worker, job));
            return self.step(|s, now, effects| s.failed(now, worker, job, failure, effects));
        }
        match order {
            Order::Inspect => {
                self.orders.remove(&(worker, job));
                self.step(|s, now, effects| s.inspected(now, worker, job, height, luck % 2 == 1, effects));
            }
            Order::Trace => {
                self.orders.remove(&(worker, job));
                self.traces.insert((worker, job));
                self.step(|s, now, effects| s.traced(now, worker, job, effects));
            }
            Order::Prove => {
                self.step(|s, now, effects| s.traced(now, worker, job, effects));
                if self.orders.remove(&(worker, job)).is_some() {
                    self.step(|s, now, effects| s.proved(now, worker, job, effects));
                }
            }
        }
    }

    pub(super) fn verify(&mut self, at: usize, good: bool) {
        let Some((&run, &(job, worker))) = self.verifying.iter().nth(at % self.verifying.len().max(1)) else { return };
        self.verifying.remove(&run);
        if good {
            self.cached.insert(job);
        }
        let quarantined_before = self.scheduler.workers().iter().filter(|w| w.quarantined).count();
        self.step(|s, now, effects| s.verified(now, worker, job, run, good.then_some(30), effects));
        assert_eq!(self.scheduler.cache().contains(job), self.cached.contains(&job), "only true proofs are cached");
        assert!(!good || quarantined_before == self.scheduler.workers().iter().filter(|w| w.quarantined).count());
    }

    pub(super) fn crash(&mut self, at: usize) {
        let Some((&worker, &backend)) = self.up.iter().nth(at % self.up.len().max(1)) else { return };
        self.up.remove(&worker);
        self.lose_process(worker);
        self.step(|s, now, effects| s.worker_down(now, worker, effects));
        self.start_worker(worker, backend);
    }

    /// Lets every open thing come to its end.
    pub(super) fn run_out(&mut self) {
        for _ in 0..10_000 {
            if self.orders.is_empty() && self.verifying.is_empty() {
                break;
            }
            self.answer_order(0, 9, 10);
            self.verify(0, true);
        }
        assert!(self.orders.is_empty() && self.verifying.is_empty(), "comes to rest");
    }
}

//! The asynchronous shell around the scheduler: carries its effects out and tells it what happened.
//!
//! One lock guards the scheduler and what belongs to it; nothing waits under it. Verification runs on blocking threads.

mod answer;
mod effects;
mod hybrid;
mod status;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use answer::{Answer, ClientId, Ticket};
use bytes::Bytes;
use prover_api::{GpuInfo, JobId, JobKind, JobState, JobStatus, Priority};
pub use status::{draining, problem_of};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{info, warn};
use triton_vm::prelude::Claim;

use crate::metrics::Metrics;
use crate::pool::{PoolConfig, PoolEvent, WorkerHandle, supervise};
use crate::protocol::FromWorker;
use crate::scheduler::{
    Accepted, Backend, BodyId, Config, CostModel, Effect, InterestId, MemoryGate, Offer, Refusal, Scheduler, Submission, Time,
    WorkerId,
};

/// Values of the label `cause` of the metric for ends of workers.
const STOPPED: &str = "stopped";
const DIED: &str = "died";

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

/// Time that a client has to fetch a proof from a pod that shuts down. It knows of the proof at once, by the events.
const COLLECT_WITHIN: Duration = Duration::from_secs(10);

/// How a pod's service is made.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// Limits.
    pub scheduler: Config,
    /// Memory of the host that proofs may use.
    pub memory: MemoryGate,
    /// How to run workers, one entry a process.
    pub workers: Vec<PoolConfig>,
    /// Measured seconds of proofs, by kind of prover and log2 padded height; others are estimated.
    pub measured: crate::layout::Measured,
    /// Whether this pod serves the mock networks: typed mock jobs and nothing else.
    pub mock: bool,
}

/// A decoded and checked request for a proof.
#[derive(Debug, Clone)]
pub struct Request {
    /// Identity.
    pub job: JobId,
    /// What is to be proven.
    pub claim: Claim,
    /// The job as the worker gets it.
    pub body: Bytes,
    /// Identity of those bytes.
    pub body_id: BodyId,
    /// Urgency.
    pub priority: Priority,
    /// Whether the CPU was asked for.
    pub force_cpu: bool,
    /// When the caller stops waiting.
    pub deadline: Option<Duration>,
    /// The caller's limit on the height.
    pub max_log2_padded_height: Option<u8>,
    /// Height that the body itself tells (mock jobs).
    pub log2_padded_height: Option<u8>,
    /// What the caller says the job is, for metrics.
    pub kind: JobKind,
}

/// A pod's service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    started: Instant,
    mock: bool,
    metrics: Metrics,
    /// Verifications at once: as many as cores, so that a burst of proofs does not starve the listener.
    verifications: Semaphore,
}

#[derive(Debug)]
struct State {
    scheduler: Scheduler,
    next_interest: u64,
    bodies: HashMap<(JobId, BodyId), Bytes>,
    /// Of live jobs.
    facts: HashMap<JobId, Facts>,
    /// Cached, verified.
    proofs: HashMap<JobId, Bytes>,
    /// Returned in this very moment; its verification takes it.
    unverified: HashMap<JobId, Bytes>,
    callers: HashMap<InterestId, oneshot::Sender<Answer>>,
    /// Interests without a connection, by the client that may cancel them.
    detached: HashMap<(JobId, ClientId), InterestId>,
    detached_by: HashMap<InterestId, (JobId, ClientId)>,
    watchers: HashMap<JobId, watch::Sender<JobStatus>>,
    workers: HashMap<WorkerId, WorkerState>,
    /// Of jobs on a GPU: the stage of the proof and the share of its time that is over.
    stages: HashMap<JobId, (String, f64)>,
    /// Proofs that callers without a connection wait for: how many have not fetched it, and since when they can.
    uncollected: HashMap<JobId, (usize, Time)>,
}

/// What the shell knows of a live job beside the scheduler.
#[derive(Debug, Clone)]
struct Facts {
    claim: Arc<Claim>,
    kind: JobKind,
}

#[derive(Debug, Default)]
struct WorkerState {
    generation: u64,
    /// Absent once the process is dead or has been killed.
    handle: Option<WorkerHandle>,
    device: String,
    gpu: Option<GpuInfo>,
    rss_bytes: u64,
    restarts: u64,
}

impl WorkerState {
    fn is_running(&self, generation: u64) -> bool {
        self.generation == generation && self.handle.is_some()
    }
}

impl Service {
    /// Starts the workers and the clock. Ends with the runtime.
    pub fn start(config: ServiceConfig, metrics: Metrics) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut costs = CostModel::new(cores);
        for (backend, log2_height, seconds) in config.measured {
            costs.learn(backend, log2_height, seconds);
        }
        let mut scheduler = Scheduler::new(config.scheduler, config.memory, costs);
        for (index, worker) in config.workers.iter().enumerate() {
            scheduler.expect_worker(WorkerId(index as u32), worker.backend);
        }
        let service = Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    scheduler,
                    next_interest: 0,
                    bodies: HashMap::new(),
                    facts: HashMap::new(),
                    proofs: HashMap::new(),
                    unverified: HashMap::new(),
                    callers: HashMap::new(),
                    detached: HashMap::new(),
                    detached_by: HashMap::new(),
                    watchers: HashMap::new(),
                    workers: HashMap::new(),
                    stages: HashMap::new(),
                    uncollected: HashMap::new(),
                }),
                started: Instant::now(),
                mock: config.mock,
                metrics,
                verifications: Semaphore::new(cores),
            }),
        };
        let (events, mut inbox) = mpsc::unbounded_channel();
        for (index, worker) in config.workers.into_iter().enumerate() {
            tokio::spawn(supervise(WorkerId(index as u32), worker, events.clone()));
        }
        let listener = service.clone();
        tokio::spawn(async move {
            let mut clock = tokio::time::interval(TICK);
            clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = clock.tick() => listener.with(|state, now, effects| state.scheduler.tick(now, effects)),
                    event = inbox.recv() => match event {
                        Some(event) => listener.on_pool(event),
                        None => return,
                    },
                }
            }
        });
        service
    }

    /// The pod's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Whether this pod serves the mock networks.
    pub fn is_mock(&self) -> bool {
        self.shared.mock
    }

    /// Asks for a proof on behalf of a connection. Dropping the ticket withdraws.
    ///
    /// # Errors
    /// [`Refusal`] when the pod takes nothing now.
    pub fn submit(&self, request: Request) -> Result<Ticket, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let job = request.job;
        let (interest, accepted) = self.register(request, Some(sender), None)?;
        match accepted {
            Accepted::Cached => Ok(Ticket::ready(job, self.proof(job))),
            Accepted::Attached | Accepted::Queued => Ok(Ticket::waiting(self.clone(), job, interest, receiver)),
        }
    }

    /// Asks for a proof that the caller will come back for. A second wish of the same client for the same claim changes
    /// nothing, so that a request may be repeated.
    ///
    /// # Errors
    /// [`Refusal`] when the pod takes nothing now.
    pub fn submit_detached(&self, request: Request, client: &ClientId) -> Result<Accepted, Refusal> {
        let job = request.job;
        if self.lock().detached.contains_key(&(job, client.clone())) {
            return Ok(Accepted::Attached);
        }
        self.register(request, None, Some(client)).map(|(_, accepted)| accepted)
    }

    /// Withdraws a detached wish. `false` when there was none: it ended, or never was.
    pub fn cancel(&self, job: JobId, client: &ClientId) -> bool {
        self.with(|state, now, effects| {
            let Some(&interest) = state.detached.get(&(job, client.clone())) else { return false };
            state.scheduler.cancel(now, job, interest, effects);
            true
        })
    }

    /// A cached proof, verified.
    pub fn proof(&self, job: JobId) -> Option<Bytes> {
        let mut state = self.lock();
        state.scheduler.touch_proof(job);
        if let Some((callers, _)) = state.uncollected.get_mut(&job) {
            *callers -= 1;
            if *callers == 0 {
                state.uncollected.remove(&job);
            }
        }
        state.proofs.get(&job).cloned()
    }

    /// Whether the job is made here or its proof is there: a pod that drains takes callers for such a job and for no other.
    pub fn holds(&self, job: JobId) -> bool {
        let state = self.lock();
        state.scheduler.is_live(job) || state.proofs.contains_key(&job)
    }

    /// No new jobs from now on. Ends when no job is left, running ones go on until then, and when their proofs have been fetched,
    /// or have waited for it for [`COLLECT_WITHIN`].
    pub async fn drain(&self) {
        self.with(|state, now, effects| state.scheduler.drain(now, effects));
        while !self.is_drained() {
            tokio::time::sleep(TICK).await;
        }
    }

    fn is_drained(&self) -> bool {
        let (state, now) = (self.lock(), self.now());
        let expected = |&(_, since): &(usize, Time)| now.saturating_sub(since) < COLLECT_WITHIN;
        state.scheduler.is_idle() && !state.uncollected.values().any(expected)
    }

    /// Whether [`Self::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.lock().scheduler.is_draining()
    }

    fn register(
        &self,
        request: Request,
        caller: Option<oneshot::Sender<Answer>>,
        client: Option<&ClientId>,
    ) -> Result<(InterestId, Accepted), Refusal> {
        let deadline = request.deadline.map(|left| self.now() + left);
        self.with(|state, now, effects| {
            state.next_interest += 1;
            let interest = InterestId(state.next_interest);
            let wish = Submission {
                job: request.job,
                body: request.body_id,
                bytes: request.body.len() as u64,
                priority: request.priority,
                force_cpu: request.force_cpu,
                max_log2_padded_height: request.max_log2_padded_height,
                log2_padded_height: request.log2_padded_height,
                kind: request.kind,
                deadline,
                interest,
            };
            // Before the scheduler hears of it: its effects may need all three at once.
            let facts = Facts { claim: Arc::new(request.claim), kind: request.kind };
            let new_body = state.bodies.insert((request.job, request.body_id), request.body).is_none();
            let new_job = !state.facts.contains_key(&request.job);
            state.facts.entry(request.job).or_insert(facts);
            if let Some(caller) = caller {
                state.callers.insert(interest, caller);
            }
            if let Some(client) = client {
                state.detached.insert((request.job, client.clone()), interest);
                state.detached_by.insert(interest, (request.job, client.clone()));
            }
            let result = state.scheduler.submit(now, &wish, effects);
            if !matches!(result, Ok(Accepted::Attached | Accepted::Queued)) {
                if new_body {
                    state.bodies.remove(&(request.job, request.body_id));
                }
                if new_job {
                    state.facts.remove(&request.job);
                }
                state.callers.remove(&interest);
                state.forget_detached(interest);
            }
            result.map(|accepted| (interest, accepted))
        })
    }

    fn withdraw(&self, job: JobId, interest: InterestId) {
        self.with(|state, now, effects| {
            state.callers.remove(&interest);
            state.scheduler.withdraw(now, job, interest, effects);
        });
    }

    fn on_pool(&self, event: PoolEvent) {
        match event {
            PoolEvent::Started { worker, generation, handle } => {
                for cause in [STOPPED, DIED] {
                    // Alerts need the zero.
                    self.metrics().worker_restarts.with_label_values(&[&worker.to_string(), cause]).inc_by(0);
                }
                let mut state = self.lock();
                let entry = state.workers.entry(worker).or_default();
                entry.generation = generation;
                entry.handle = Some(handle);
                entry.restarts = generation - 1;
            }
            PoolEvent::Died { worker, generation, stopped } => {
                let cause = if stopped { STOPPED } else { DIED };
                self.metrics().worker_restarts.with_label_values(&[&worker.to_string(), cause]).inc();
                self.with(|state, now, effects| {
                    if state.workers.get(&worker).is_some_and(|known| known.generation == generation) {
                        if let Some(known) = state.workers.get_mut(&worker) {
                            known.handle = None;
                        }
                        state.scheduler.worker_down(now, worker, effects);
                    }
                });
            }
            PoolEvent::Said { worker, generation, message, payload } => {
                if self.lock().workers.get(&worker).is_some_and(|known| known.generation == generation) {
                    self.on_worker(worker, generation, message, payload);
                }
            }
        }
    }

    fn on_worker(&self, worker: WorkerId, generation: u64, message: FromWorker, payload: Vec<u8>) {
        match message {
            FromWorker::Heartbeat { rss_bytes } => {
                if let Some(known) = self.lock().workers.get_mut(&worker) {
                    known.rss_bytes = rss_bytes;
                }
            }
            FromWorker::Hello { backend, slots, device, max_log2_padded_height, gpu } => {
                if let Some(known) = self.lock().workers.get_mut(&worker) {
                    known.device.clone_from(&device);
                    known.gpu = gpu;
                }
                let offer = Offer { backend, jobs: slots, max_log2_padded_height };
                let service = self.clone();
                tokio::spawn(async move {
                    let ok = backend == Backend::Mock
                        || service.is_valid(Arc::new(crate::worker::self_test_claim()), payload.into()).await;
                    if ok {
                        service.with(|state, now, effects| {
                            // It may have died while its self-test was verified; orders to a dead process are lost.
                            if state.workers.get(&worker).is_some_and(|known| known.is_running(generation)) {
                                state.scheduler.worker_up(now, worker, offer, effects);
                            }
                        });
                    } else {
                        service.metrics().verification_failures.with_label_values(&[backend.name()]).inc();
                        warn!(%worker, device, "the self-test proof does not verify; restarting the worker");
                        service.reject(worker, generation);
                    }
                });
            }
            FromWorker::Inspected { job, log2_padded_height, kept } => {
                info!(%job, %worker, log2_padded_height, "job: height known");
                self.metrics().padded_heights.observe(f64::from(log2_padded_height));
                self.with(|state, now, effects| {
                    state.scheduler.inspected(now, worker, job, log2_padded_height, kept, effects);
                });
            }
            FromWorker::Stage { job, stage, progress } => {
                let mut state = self.lock();
                let view = state.scheduler.view(job);
                if view.is_some_and(|view| view.worker == Some(worker) && view.state == JobState::Proving) {
                    state.stages.insert(job, (stage, progress.clamp(0.0, 1.0)));
                    self.publish(&mut state, job);
                }
            }
            FromWorker::Traced { job } => {
                self.with(|state, now, effects| state.scheduler.traced(now, worker, job, effects));
            }
            FromWorker::Proved { job } => {
                info!(%job, %worker, bytes = payload.len(), "job: proof returned");
                self.with(|state, now, effects| {
                    state.unverified.insert(job, payload.into());
                    state.scheduler.proved(now, worker, job, effects);
                });
                // Still there if nobody waits for it any more.
                self.lock().unverified.remove(&job);
            }
            FromWorker::Failed { job, failure } => {
                info!(%job, %worker, ?failure, "job: failed on the worker");
                self.with(|state, now, effects| state.scheduler.failed(now, worker, job, failure, effects));
            }
        }
    }

    fn reject(&self, worker: WorkerId, generation: u64) {
        let mut state = self.lock();
        let known = state.workers.get_mut(&worker).filter(|known| known.is_running(generation));
        if let Some(handle) = known.and_then(|known| known.handle.take()) {
            handle.reject();
        }
    }

    /// Runs `act` on the state, then carries out what the scheduler wants done.
    fn with<R>(&self, act: impl FnOnce(&mut State, Time, &mut Vec<Effect>) -> R) -> R {
        let mut effects = Vec::new();
        let mut state = self.lock();
        let result = act(&mut state, self.now(), &mut effects);
        for effect in effects {
            self.carry_out(&mut state, effect);
        }
        result
    }

    fn now(&self) -> Time {
        self.shared.started.elapsed()
    }

    /// A panic under the lock would be a bug; the state is changed by one call at a time and stays usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

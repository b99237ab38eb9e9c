//! The state, what callers and the clock put in, and the queue's bookkeeping.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use prover_api::{JobId, JobState, Priority};

use super::job::{Body, Job, Phase};
use super::worker::Worker;
use super::{
    Accepted, Config, CostModel, Effect, Interest, InterestId, JobView, MemoryGate, Outcome, ProofCache, Refusal, Room,
    Submission, Time, Timings, WorkerId,
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
    /// Bytes of the host reserved by jobs in slots, and by traces held or made ahead of one.
    pub(super) reserved: BTreeMap<JobId, u64>,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    /// What they take, looked at for each job of the queue: counted anew when one of them changes.
    pub(super) room: Room,
    pub(super) cache: ProofCache,
    pub(super) history: HashMap<JobId, JobView>,
    pub(super) history_order: VecDeque<JobId>,
    pub(super) deadlines: BTreeSet<(Time, InterestId, JobId)>,
    pub(super) next_seq: u64,
    pub(super) next_run: u64,
    pub(super) body_bytes: u64,
    pub(super) draining: bool,
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
            room: Room::default(),
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
        // A run that is wanted anyway may be joined: the alternative is that another pod makes the same proof.
        if self.draining && !self.is_live(wish.job) {
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
            home: None,
            log2_padded_height: wish.log2_padded_height,
            kind: wish.kind,
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

    /// No new jobs from now on, only callers who join one; those without a slot are given back to their callers.
    pub fn drain(&mut self, now: Time, effects: &mut Vec<Effect>) {
        self.draining = true;
        let waiting: Vec<JobId> = self.waiting.iter().map(|&(_, _, job)| job).collect();
        for job in waiting {
            self.leave_worker(now, job, effects);
            self.finish(now, job, JobState::Cancelled, &Outcome::Draining, effects);
        }
        self.pump(now, effects);
    }

    /// Whether the proof of `id` is cached; counts as a use.
    pub fn touch_proof(&mut self, id: JobId) -> bool {
        self.cache.touch(id)
    }

    /// A worker is new, came, went, or is quarantined.
    pub(super) fn workers_changed(&mut self) {
        self.room = self.count_room();
    }

    pub(super) fn release_lane(&mut self, id: WorkerId, job: JobId) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.lanes.remove(&job);
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

    pub(super) fn reprioritize(&mut self, id: JobId) {
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

    /// Takes the job off whatever worker has it.
    pub(super) fn leave_worker(&mut self, now: Time, id: JobId, effects: &mut Vec<Effect>) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (phase, held) = (job.phase, job.traced_on.take());
        let left_behind = job.home.take().filter(|_| phase == Phase::Idle);
        job.phase = Phase::Idle;
        if let Some(worker) = held.or(left_behind) {
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
    pub(super) fn enqueue(&mut self, id: JobId) {
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
}

pub(super) fn place(id: JobId, job: &Job) -> Place {
    (std::cmp::Reverse(job.priority), job.seq, id)
}

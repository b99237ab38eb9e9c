//! Which of several GPUs a job belongs to.
//!
//! A GPU's worker that has run a job's program keeps the trace, and a table that it has filled lies in its memory. On another
//! device all of that is done again, which takes as long as the proof itself, so a job is at home where its program ran: its turn
//! comes when that device is free. It moves when it would wait there for longer than the work takes that is done again, and to a
//! device that has nothing of its own that is as urgent. Nothing of this matters with one GPU.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use prover_api::Priority;

use super::job::Job;
use super::state::{Place, Scheduler};
use super::worker::Worker;
use super::{Backend, Time, WorkerId, default_rows};

/// Seconds that the host takes to run a program and fill its table, for each padded row: 1.6 and 0.75 s for 2^22 rows on 16 cores
/// (docs/benchmarks.md).
const HOST_SECONDS_PER_ROW: f64 = 5.6e-7;

/// The same of any job, however small: its bytes are decoded.
const HOST_SECONDS: f64 = 0.005;

/// Jobs at the head of the queue that are looked at to prepare what comes next: a queue can have thousands.
const LOOK_AHEAD: usize = 512;

/// Seconds until a job is as far elsewhere as it is at home.
pub(super) fn moving_seconds(log2_height: u8) -> f64 {
    HOST_SECONDS + HOST_SECONDS_PER_ROW * default_rows(log2_height)
}

/// How long jobs wait for the devices that they are at home on, seen from a place in the queue: [`Self::pass`] goes to the next.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// Seconds until each GPU gets to the place. Empty with fewer than two GPUs.
    wait: BTreeMap<WorkerId, f64>,
    /// The most urgent job that waits and may go to a device without moving.
    own: BTreeMap<WorkerId, Priority>,
}

impl Homes {
    /// Whether `worker` may have the job.
    pub fn may_take(&self, scheduler: &Scheduler, job: &Job, worker: WorkerId) -> bool {
        let (Some(&wait), Some(home)) = (self.wait.get(&worker), scheduler.home_of(job)) else { return true };
        if home == worker {
            return true;
        }
        let has_own = self.own.get(&worker).is_some_and(|&own| own >= job.priority);
        let Some(log2_height) = job.log2_padded_height else { return false };
        let here = wait.max(moving_seconds(log2_height));
        !has_own && self.wait.get(&home).is_some_and(|&there| there > here)
    }

    /// The job stays in its place; those behind it wait for it, too. One that is at home nowhere will go where it is soonest.
    pub fn pass(&mut self, scheduler: &Scheduler, job: &Job) {
        if self.wait.is_empty() {
            return;
        }
        let home = scheduler.home_of(job).or_else(|| {
            let open = self.wait.iter().filter(|(gpu, _)| scheduler.may_have(job, **gpu));
            open.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(&gpu, _)| gpu)
        });
        if let Some(wait) = home.and_then(|home| self.wait.get_mut(&home)) {
            *wait += scheduler.costs.seconds(Backend::Gpu, job.log2_padded_height);
        }
    }
}

impl Scheduler {
    /// The GPU's worker where the job is at home, if it may still go there.
    pub(super) fn home_of(&self, job: &Job) -> Option<WorkerId> {
        job.home.filter(|&home| self.workers.get(&home).is_some_and(Worker::usable) && self.may_have(job, home))
    }

    fn may_have(&self, job: &Job, gpu: WorkerId) -> bool {
        job.avoid != Some(gpu) && self.is_eligible(job, gpu)
    }

    /// The head of the queue, without those whom the CPU will have.
    pub(super) fn head(&self) -> impl Iterator<Item = (&Place, &Job)> {
        let waiting = self.waiting.iter().filter_map(|place| Some((place, self.jobs.get(&place.2)?)));
        let of_cpu = |job: &Job| match self.route_of(job) {
            Some(Ok(route)) => route.backend == Backend::Cpu,
            _ => job.body().force_cpu && self.room.cpu.is_some(),
        };
        waiting.filter(move |(_, job)| !of_cpu(job)).take(LOOK_AHEAD)
    }

    /// Seen from the head of the queue.
    pub(super) fn homes(&self, now: Time) -> Homes {
        let gpus = || self.workers.iter().filter(|(_, worker)| worker.backend == Backend::Gpu && worker.usable());
        if gpus().nth(1).is_none() {
            return Homes::default();
        }
        let left = |id| {
            let Some(job) = self.jobs.get(id) else { return 0.0 };
            let runs = job.timings.started.map_or(0.0, |started| now.saturating_sub(started).as_secs_f64());
            // One that is overdue takes as long again as it is over: a device that hangs must not keep those who wait for it.
            (self.costs.seconds(Backend::Gpu, job.log2_padded_height) - runs).abs()
        };
        let wait: BTreeMap<_, _> = gpus().map(|(&id, worker)| (id, worker.running.iter().map(left).sum())).collect();
        let mut own = BTreeMap::new();
        for (&(Reverse(priority), ..), job) in self.head() {
            if own.len() == wait.len() {
                break;
            }
            match self.home_of(job) {
                Some(home) => drop(own.entry(home).or_insert(priority)),
                None => {
                    for &gpu in wait.keys().filter(|&&gpu| self.may_have(job, gpu)) {
                        own.entry(gpu).or_insert(priority);
                    }
                }
            }
        }
        Homes { wait, own }
    }

    /// Seconds until each GPU has done what is at home on it, of the head of the queue.
    pub(super) fn loads(&self, now: Time) -> BTreeMap<WorkerId, f64> {
        let mut homes = self.homes(now);
        if !homes.wait.is_empty() {
            let at_home = self.head().map(|(_, job)| job).filter(|job| self.home_of(job).is_some());
            at_home.for_each(|job| homes.pass(self, job));
        }
        homes.wait
    }
}

//! A pod with GPUs and more to do than it can: how long the devices wait for the host. Events and times are simulated, the
//! scheduler is the real one.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use super::*;

/// Seconds that a job of a height takes, seen on a host with 16 cores and an H200 (docs/benchmarks.md): reading and running the
/// program, filling the main table, the device's part; and the bytes of its trace.
fn costs(log2_height: u8) -> (f64, f64, f64, u64) {
    match log2_height {
        22 => (1.6, 0.75, 2.15, 900 << 20),
        21 => (0.9, 0.45, 0.94, 500 << 20),
        20 => (0.6, 0.3, 0.5, 300 << 20),
        _ => (0.003, 0.002, 0.02, 4 << 20),
    }
}

/// The heights of a paid raise's jobs, in the order in which they are asked for.
const RAISE: [u8; 8] = [13, 13, 14, 12, 15, 21, 22, 20];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Inspected,
    Traced,
    Proved,
    Verified(u64),
}

struct Simulation {
    scheduler: Scheduler,
    now: Time,
    agenda: BTreeMap<(Time, u64), (WorkerId, JobId, Done)>,
    entries: u64,
    heights: HashMap<JobId, u8>,
    /// Workers before this number have a GPU each; the one of this number has none.
    gpus: usize,
    /// Traces that the GPUs' workers kept from their looks, within the room that each has for them.
    kept: HashMap<(WorkerId, JobId), u64>,
    filled: HashSet<JobId>,
    /// When a device worked.
    busy: Vec<(Time, Time)>,
    /// Programs run, for whatever end.
    runs: usize,
    ended: usize,
}

impl Simulation {
    fn new(config: Config, gpus: usize, jobs: usize) -> Self {
        let mut simulation = Self {
            scheduler: Scheduler::new(config, MemoryGate { limit: 120 * GIB * gpus as u64 }, CostModel::new(16)),
            now: Time::ZERO,
            agenda: BTreeMap::new(),
            entries: 0,
            heights: HashMap::new(),
            gpus,
            kept: HashMap::new(),
            filled: HashSet::new(),
            busy: Vec::new(),
            runs: 0,
            ended: 0,
        };
        for n in 0..=gpus {
            let (backend, jobs, max_log2_padded_height) =
                if n < gpus { (Backend::Gpu, jobs, Some(23)) } else { (Backend::Cpu, 1, None) };
            let id = WorkerId(u32::try_from(n).expect("few"));
            simulation.scheduler.expect_worker(id, backend);
            let offer = Offer { backend, jobs, max_log2_padded_height };
            simulation.step(|s, now, effects| s.worker_up(now, id, offer, effects));
        }
        simulation
    }

    fn step(&mut self, act: impl FnOnce(&mut Scheduler, Time, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        act(&mut self.scheduler, self.now, &mut effects);
        for effect in effects {
            self.carry_out(&effect);
        }
    }

    fn carry_out(&mut self, effect: &Effect) {
        match *effect {
            Effect::Inspect { worker, job, .. } => {
                self.runs += 1;
                self.after(costs(self.heights[&job]).0, worker, job, Done::Inspected);
            }
            Effect::Trace { worker, job, .. } => {
                let seconds = self.host_seconds(worker, job);
                self.after(seconds, worker, job, Done::Traced);
            }
            Effect::Prove { worker, job, .. } => {
                let host = if self.filled.remove(&job) { 0.0 } else { self.host_seconds(worker, job) };
                let device = costs(self.heights[&job]).2;
                let begins = self.now + Duration::from_secs_f64(host);
                self.busy.push((begins, begins + Duration::from_secs_f64(device)));
                self.after(host, worker, job, Done::Traced);
                self.after(host + device, worker, job, Done::Proved);
            }
            Effect::Verify { worker, job, run } => self.after(0.02, worker, job, Done::Verified(run)),
            Effect::Answer { ref outcome, .. } => {
                assert_eq!(*outcome, Outcome::Proved);
                self.ended += 1;
            }
            Effect::Discard { worker, job } => {
                self.agenda.retain(|_, &mut (at, other, _)| (at, other) != (worker, job));
                self.filled.remove(&job);
            }
            Effect::Abort { .. } | Effect::Restart { .. } => panic!("nobody leaves and nobody fails"),
            Effect::Changed { .. } | Effect::DropBody { .. } | Effect::DropProof { .. } => {}
        }
    }

    /// Until the table is filled: the trace may be there.
    fn host_seconds(&mut self, worker: WorkerId, job: JobId) -> f64 {
        assert!(self.has_gpu(worker), "a device takes all of these heights");
        let (trace, fill, ..) = costs(self.heights[&job]);
        if self.kept.remove(&(worker, job)).is_some() {
            return fill;
        }
        self.runs += 1;
        trace + fill
    }

    fn has_gpu(&self, worker: WorkerId) -> bool {
        (worker.0 as usize) < self.gpus
    }

    fn after(&mut self, seconds: f64, worker: WorkerId, job: JobId, done: Done) {
        self.entries += 1;
        self.agenda.insert((self.now + Duration::from_secs_f64(seconds), self.entries), (worker, job, done));
    }

    fn next(&mut self) {
        let ((at, _), (worker, job, done)) = self.agenda.pop_first().expect("something is under way");
        self.now = at;
        let height = self.heights[&job];
        match done {
            Done::Inspected => {
                let bytes = costs(height).3;
                let held: u64 = self.kept.iter().filter(|((at, _), _)| *at == worker).map(|(_, bytes)| bytes).sum();
                let keeps = self.has_gpu(worker) && held + bytes <= 2 * GIB;
                if keeps {
                    self.kept.insert((worker, job), bytes);
                }
                self.step(|s, now, effects| s.inspected(now, worker, job, height, keeps, effects));
            }
            Done::Traced => {
                if self.scheduler.view(job).is_some_and(|view| view.state == JobState::Tracing)
                    && !self.scheduler.workers().iter().any(|worker| worker.running.contains(&job))
                {
                    self.filled.insert(job);
                }
                self.step(|s, now, effects| s.traced(now, worker, job, effects));
            }
            Done::Proved => self.step(|s, now, effects| s.proved(now, worker, job, effects)),
            Done::Verified(run) => self.step(|s, now, effects| s.verified(now, worker, job, run, Some(30), effects)),
        }
    }

    /// So many raises, `under_way` of their jobs at any time. Gives the share of the time in which the devices worked, from the end
    /// of as many raises as there are devices to the moment when no more jobs come.
    fn raises(&mut self, raises: usize, under_way: usize) -> f64 {
        let mut waiting: VecDeque<u64> = (0..(raises * RAISE.len()) as u64).collect();
        let total = waiting.len();
        let (mut from, mut to) = (None, Time::ZERO);
        while self.ended < total {
            while total - waiting.len() - self.ended < under_way
                && let Some(n) = waiting.pop_front()
            {
                self.heights.insert(job(n), RAISE[n as usize % RAISE.len()]);
                let wish = Submission {
                    job: job(n),
                    body: body(0),
                    bytes: 10,
                    priority: Priority::Normal,
                    force_cpu: false,
                    max_log2_padded_height: None,
                    log2_padded_height: None,
                    kind: JobKind::Other,
                    deadline: None,
                    interest: InterestId(n),
                };
                self.step(|s, now, effects| {
                    s.submit(now, &wish, effects).expect("accepted");
                });
            }
            self.next();
            if self.ended >= RAISE.len() * self.gpus {
                from.get_or_insert(self.now);
            }
            if !waiting.is_empty() {
                to = self.now;
            }
        }
        let from = from.expect("a raise ended");
        let within = |&(begin, end): &(Time, Time)| end.min(to).saturating_sub(begin.max(from)).as_secs_f64();
        self.busy.iter().map(within).sum::<f64>() / (to.saturating_sub(from).as_secs_f64() * self.gpus as f64)
    }
}

#[test]
fn the_device_does_not_wait_while_jobs_do() {
    let share = |gpu_lanes, jobs| Simulation::new(Config { gpu_lanes, ..Config::default() }, 1, jobs).raises(12, 12);
    for lanes in 2..=4 {
        let share = share(lanes, 2);
        assert!(share > 0.97, "with {lanes} lanes the device works for {share:.3} of the time");
    }
    let unprepared = share(4, 1);
    assert!(unprepared < 0.7, "the host counts for nothing here: {unprepared:.3}");
}

#[test]
fn nor_do_several_devices() {
    for (gpus, under_way) in [(2, 24), (3, 36), (4, 48), (8, 96), (2, 200), (8, 300)] {
        let mut simulation = Simulation::new(Config { gpu_lanes: 4, ..Config::default() }, gpus, 2);
        let share = simulation.raises((12 * gpus).max(under_way / 3), under_way);
        println!(
            "{gpus} devices, {under_way} jobs under way: at work for {share:.3} of the time, {} programs run",
            simulation.runs
        );
        assert!(share > 0.95, "{gpus} devices work for {share:.3} of the time, with {under_way} jobs under way");
    }
}

//! The worker's threads: one reads orders, one beats, one for each job.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use prover_api::JobId;

use super::backend::{Cancelled, Facts, ProverBackend, Traced};
use crate::memory::LdeMode;
use crate::protocol::{FromWorker, ToWorker, read_frame, write_frame};
use crate::scheduler::Failure;

/// How the process ends when its device is lost to it.
pub const DEVICE_LOST: i32 = 71;

/// How often the worker says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Stack of a job's thread: the prover recurses little, but programs are foreign.
const STACK: usize = 64 << 20;

/// Serves orders until stdin ends.
///
/// # Errors
/// Those of the pipes, and a failed self-test.
pub fn run(backend: Arc<dyn ProverBackend>, input: OwnedFd, output: OwnedFd) -> io::Result<()> {
    let worker = Arc::new(Worker { backend, output: Mutex::new(BufWriter::new(File::from(output))), jobs: Mutex::default() });
    let beating = Arc::clone(&worker);
    thread::Builder::new().name("heartbeat".into()).spawn(move || beating.beat())?;
    worker.hello()?;
    let mut input = BufReader::new(File::from(input));
    while let Some((order, body)) = read_frame::<ToWorker>(&mut input)? {
        worker.obey(&order, body)?;
    }
    Ok(())
}

struct Worker {
    backend: Arc<dyn ProverBackend>,
    output: Mutex<BufWriter<File>>,
    jobs: Mutex<HashMap<JobId, Held>>,
}

/// What the worker has of a job.
#[derive(Default)]
struct Held {
    cancelled: Cancelled,
    trace: Option<Box<dyn Traced>>,
}

impl Worker {
    fn beat(&self) {
        loop {
            self.backend.tick();
            self.end_if_lost();
            let report = FromWorker::Heartbeat { rss_bytes: resident_bytes().unwrap_or(0) };
            if self.say(&report, &[]).is_err() {
                // The service is gone.
                std::process::exit(0);
            }
            thread::sleep(HEARTBEAT);
        }
    }

    fn hello(&self) -> io::Result<()> {
        let proof = self.backend.self_test().map_err(|failure| io::Error::other(format!("self-test: {failure:?}")))?;
        let (backend, slots, device) = (self.backend.kind(), self.backend.slots(), self.backend.device());
        let Facts { max_log2_padded_height, gpu } = self.backend.facts();
        self.say(&FromWorker::Hello { backend, slots, device, max_log2_padded_height, gpu }, &proof)
    }

    /// Ends the process when its device is lost. At once: the exit handlers of a driver whose context is broken may wait for
    /// ever.
    fn end_if_lost(&self) {
        if self.backend.is_lost() {
            // SAFETY: ends the process without running any more of its code; stdout has no unflushed frame that matters.
            unsafe { libc::_exit(DEVICE_LOST) }
        }
    }

    fn say(&self, message: &FromWorker, payload: &[u8]) -> io::Result<()> {
        let mut output = lock(&self.output);
        write_frame(&mut *output, message, payload)?;
        output.flush()
    }

    fn obey(self: &Arc<Self>, order: &ToWorker, body: Vec<u8>) -> io::Result<()> {
        let job = order.job();
        match *order {
            ToWorker::Discard { .. } | ToWorker::Abort { .. } => {
                let mut jobs = lock(&self.jobs);
                if let Some(held) = jobs.remove(&job) {
                    // Under the lock, so that whoever asks under it sees either both or neither.
                    held.cancelled.set();
                }
                drop(jobs);
                self.backend.forget(job);
                Ok(())
            }
            ToWorker::Inspect { .. } => self.spawn("inspect", job, move |worker, cancelled| {
                let log2_padded_height = worker.backend.inspect(&body, cancelled)?;
                let kept = worker.backend.keeps(job);
                worker.forget(job, cancelled);
                Ok((FromWorker::Inspected { job, log2_padded_height, kept }, Vec::new()))
            }),
            ToWorker::Trace { .. } => self.spawn("trace", job, move |worker, cancelled| {
                let trace = worker.backend.trace(&body, cancelled)?;
                let mut jobs = lock(&worker.jobs);
                if !cancelled.is_set() {
                    jobs.entry(job).or_default().trace = Some(trace);
                }
                Ok((FromWorker::Traced { job }, Vec::new()))
            }),
            ToWorker::Prove { lde, .. } => {
                self.spawn("prove", job, move |worker, cancelled| worker.prove(job, body, lde, cancelled))
            }
        }
    }

    fn prove(&self, job: JobId, body: Vec<u8>, lde: LdeMode, cancelled: &Cancelled) -> Result<(FromWorker, Vec<u8>), Failure> {
        let held = lock(&self.jobs).get_mut(&job).and_then(|held| held.trace.take());
        let trace = match held {
            Some(trace) => trace,
            None => self.backend.trace(&body, cancelled)?,
        };
        // The body can be tens of megabytes, the proof minutes.
        drop(body);
        let said = self.say(&FromWorker::Traced { job }, &[]);
        said.map_err(|error| Failure::Prover(error.to_string()))?;
        let named = Cell::new("");
        let report = |stage: &'static str, progress: f64| {
            // FRI's rounds are many, and one stage to whoever waits.
            if named.replace(stage) != stage && !cancelled.is_set() {
                // Nobody waits for this: that the service is gone shows at the next heartbeat.
                drop(self.say(&FromWorker::Stage { job, stage: stage.to_owned(), progress }, &[]));
            }
        };
        let proof = trace.prove(lde, cancelled, &report)?;
        self.forget(job, cancelled);
        Ok((FromWorker::Proved { job }, proof))
    }

    /// Forgets a job that is over. One that was cancelled is forgotten already: what is held under its name now is another run.
    fn forget(&self, job: JobId, cancelled: &Cancelled) {
        let mut jobs = lock(&self.jobs);
        if !cancelled.is_set() {
            jobs.remove(&job);
        }
    }

    /// Runs `work` in a thread of its own and says what came out. A panic is a failure of the job, not of the worker.
    fn spawn<W>(self: &Arc<Self>, stage: &'static str, job: JobId, work: W) -> io::Result<()>
    where
        W: FnOnce(&Self, &Cancelled) -> Result<(FromWorker, Vec<u8>), Failure> + Send + 'static,
    {
        let cancelled = lock(&self.jobs).entry(job).or_default().cancelled.clone();
        let worker = Arc::clone(self);
        let run = move || {
            let result = catch_unwind(AssertUnwindSafe(|| work(&worker, &cancelled)));
            // The panic's message may hold values of the witness; its place, which the hook has logged, does not.
            let result = result.unwrap_or_else(|_| Err(Failure::Prover(format!("panic in stage {stage}"))));
            // Before anything is said: the job is to be tried elsewhere, as after any crash.
            worker.end_if_lost();
            if cancelled.is_set() {
                return;
            }
            let (message, payload) = result.unwrap_or_else(|failure| {
                lock(&worker.jobs).remove(&job);
                (FromWorker::Failed { job, failure }, Vec::new())
            });
            if worker.say(&message, &payload).is_err() {
                std::process::exit(0);
            }
        };
        thread::Builder::new().name(stage.into()).stack_size(STACK).spawn(run).map(drop)
    }
}

/// Data behind the locks stays consistent when a thread panics: each change is one insertion or removal.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

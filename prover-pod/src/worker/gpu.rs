//! Our CUDA prover.
//!
//! Everything up to the filled main table happens on the host, for several jobs at once; the device has one proof at a time. A
//! proof that nobody wants any more stops between two stages, and the context serves the next one. What the device cannot
//! recover from ends the process: the pool starts another.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gpu_prover::cuda::{Ahead, Uploader};
use gpu_prover::domain::Domains;
use gpu_prover::error::{GpuError, ProtocolError};
use gpu_prover::gpu::{Config, GpuProver};
use gpu_prover::main_table::MainTable;
use gpu_prover::plan::{Plan, PlanError};
use gpu_prover::prover::Stage;
use gpu_prover::randomness::Randomness;
use gpu_prover::trace::{Heights, Trace, TraceError};
use prover_api::{GpuInfo, HeightPlan, JobId, ProverJob};
use tracing::{debug, error, warn};
use triton_vm::prelude::*;

use super::backend::{Cancelled, Facts, ProverBackend, Report, Traced};
use super::boarding::{Boarding, Passenger};
use super::hands::Hands;
use super::heights::Limits;
use super::kept::Kept;
use crate::intake::body_id;
use crate::memory::{LdeMode, MAX_LOG2_HEIGHT};
use crate::scheduler::{Backend, Failure};

/// Time without a new stage after which the device counts as hung. A stage of 2^22 rows takes a second and a half.
const STALL: Duration = Duration::from_mins(3);

/// log2 of the padded height from which on a table goes to the device ahead of its proof. A smaller one is there in milliseconds,
/// and would take the room of a larger one for seconds.
const LEAST_AHEAD: u32 = 18;

/// Proves on the first CUDA device that the process sees.
#[derive(Debug, Clone)]
pub struct GpuBackend {
    device: Arc<Gpu>,
    jobs: usize,
    limits: Limits,
    inspected: Arc<Kept>,
    hands: Arc<Hands>,
}

#[derive(Debug)]
struct Gpu {
    prover: Mutex<GpuProver>,
    boarding: Arc<Boarding<MainTable, Ahead>>,
    name: String,
    max_log2_height: u8,
    info: GpuInfo,
    lost: AtomicBool,
    /// When the proof on the device reached its newest stage.
    moved: Arc<Mutex<Option<Instant>>>,
}

/// A job whose main table is filled.
struct Filled {
    device: Arc<Gpu>,
    claim: Claim,
    main: Arc<Passenger<MainTable, Ahead>>,
}

impl GpuBackend {
    /// Opens the device and loads the kernels. `jobs` run at once: one has the device, the others are traced ahead.
    ///
    /// # Errors
    /// What [`GpuProver::new`] says; it tells what to do.
    pub fn open(jobs: usize, limits: Limits) -> Result<Self, GpuError> {
        // The service verifies each proof, in another process than this one.
        let prover = GpuProver::new(Config { verify: false, ..Config::default() })?;
        let device = prover.stages().device();
        let (free, total) = device.memory()?;
        let plans = plans(&prover);
        let info = GpuInfo {
            visible_device: std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_else(|_| "0".to_owned()),
            uuid: device.uuid()?,
            compute_capability: format!("{}.{}", device.capability().0, device.capability().1),
            memory_bytes: total,
            free_memory_bytes: free,
            jobs_ahead: jobs.saturating_sub(1),
            plans: plans.iter().map(|&(log2, plan)| HeightPlan { log2_padded_height: log2, plan: plan_name(plan) }).collect(),
        };
        let moved = Arc::<Mutex<_>>::default();
        let gpu = Gpu {
            name: device.name().to_owned(),
            max_log2_height: plans.last().map_or(0, |&(log2, _)| log2),
            info,
            boarding: Boarding::start(upload_ahead(prover.uploader()?, Arc::clone(&moved)))
                .map_err(|error| GpuError::NoThreads { detail: error.to_string() })?,
            prover: Mutex::new(prover),
            lost: AtomicBool::new(false),
            moved,
        };
        let hands = Arc::new(Hands::new()?);
        Ok(Self { device: Arc::new(gpu), jobs: jobs.max(1), limits, inspected: Arc::default(), hands })
    }
}

/// The plan of each height that fits on the device as it is now, in ascending order.
fn plans(prover: &GpuProver) -> Vec<(u8, Plan)> {
    let plan = |log2: u8| {
        let domains = Domains::new(1 << log2).ok()?;
        let (plan, _) = prover.stages().plan(&domains).ok()?;
        Some((log2, plan))
    };
    (8..=MAX_LOG2_HEIGHT).map_while(plan).collect()
}

/// A plan's name, for people.
pub fn plan_name(plan: Plan) -> String {
    match plan {
        Plan::Full => "full".to_owned(),
        Plan::CachedCosets(kept) => format!("{kept} of 8 cosets kept"),
        Plan::CosetByCoset => "coset by coset".to_owned(),
    }
}

/// Runs a job's program by our own tracer, within limits, and checks its output.
///
/// # Errors
/// What is wrong with the program, without values: they may be secret. `Failure::Prover` when the job was cancelled meanwhile.
pub(super) fn record(job: ProverJob, limits: Limits, cancelled: &Cancelled) -> Result<Trace, Failure> {
    let ProverJob { program, claim, non_determinism, .. } = job;
    let state = VMState::new(program, PublicInput::new(claim.input), non_determinism);
    let mut stopped = None;
    let trace = Trace::record(state, |heights| {
        stopped = stop(heights, limits, cancelled);
        if stopped.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let trace = trace.map_err(|error| match error {
        TraceError::Program { cycle, reason, .. } => Failure::ProgramFailed { error: reason, cycle: u64::from(cycle) },
        TraceError::Stopped { .. } => stopped.unwrap_or_else(|| Failure::Prover("stopped".to_owned())),
        other => Failure::Prover(other.to_string()),
    })?;
    // The tracer asks between many cycles only.
    if let Some(failure) = stop(trace.heights(), limits, cancelled) {
        return Err(failure);
    }
    if trace.public_output() != claim.output {
        return Err(Failure::OutputMismatch);
    }
    Ok(trace)
}

/// Why a run that is so far must not go on.
fn stop(heights: &Heights, limits: Limits, cancelled: &Cancelled) -> Option<Failure> {
    if cancelled.is_set() {
        return Some(Failure::Prover("cancelled".to_owned()));
    }
    if heights.processor as u64 > limits.cycles {
        return Some(Failure::Endless { cycle_limit: limits.cycles });
    }
    let rows = limits.ram_words.max(usize::try_from(limits.cycles).unwrap_or(usize::MAX));
    (heights.max() > rows)
        .then(|| Failure::TooBig { log2_padded_height: heights.padded_height().ilog2() as u8, limit: rows.ilog2() as u8 })
}

impl ProverBackend for GpuBackend {
    fn kind(&self) -> Backend {
        Backend::Gpu
    }

    fn slots(&self) -> usize {
        self.jobs
    }

    fn device(&self) -> String {
        self.device.name.clone()
    }

    fn facts(&self) -> Facts {
        Facts { max_log2_padded_height: Some(self.device.max_log2_height), gpu: Some(self.device.info.clone()) }
    }

    fn self_test(&self) -> Result<Vec<u8>, Failure> {
        let job = ProverJob::new(super::self_test_program(), super::self_test_claim(), NonDeterminism::default());
        let body = job.to_json().map_err(|error| Failure::Malformed(error.to_string()))?;
        let nobody = Cancelled::default();
        self.trace(&body, &nobody)?.prove(LdeMode::Cached, &nobody, &|_, _| {})
    }

    fn inspect(&self, body: &[u8], cancelled: &Cancelled) -> Result<u8, Failure> {
        let job = super::parse(body)?;
        let claim = job.claim.clone();
        let trace = record(job, self.limits, cancelled)?;
        let log2_height = trace.heights().padded_height().ilog2() as u8;
        let job = JobId::of(&claim);
        self.inspected.keep(body_id(body), claim, trace);
        if cancelled.is_set() {
            self.inspected.forget(job);
        }
        Ok(log2_height)
    }

    fn trace(&self, body: &[u8], cancelled: &Cancelled) -> Result<Box<dyn Traced>, Failure> {
        let mut laps = Laps::begin();
        let (claim, trace) = if let Some(kept) = self.inspected.take(body_id(body)) {
            kept
        } else {
            let job = super::parse(body)?;
            (job.claim.clone(), record(job, self.limits, cancelled)?)
        };
        laps.end("trace");
        let main = self.hands.fill(&trace, cancelled)?;
        laps.end("fill");
        debug!(log2_padded_height = main.domains().log2_padded_height(), seconds = %laps, "a table is filled");
        Ok(Box::new(Filled { device: Arc::clone(&self.device), claim, main: self.device.boarding.add(main) }))
    }

    fn keeps(&self, job: JobId) -> bool {
        self.inspected.has(job)
    }

    fn forget(&self, job: JobId) {
        self.inspected.forget(job);
    }

    fn tick(&self) {
        self.inspected.forget_old();
    }

    fn is_lost(&self) -> bool {
        let stalled = lock(&self.device.moved).is_some_and(|moved| moved.elapsed() > STALL);
        if stalled && !self.device.lost.swap(true, Ordering::Relaxed) {
            error!(device = self.device.name, seconds = STALL.as_secs(), "the device is at the same stage for too long");
        }
        self.device.lost.load(Ordering::Relaxed)
    }
}

/// Uploads a table while another job has the device. Without one its own proof uploads it at once, and just as fast.
fn upload_ahead(mut uploader: Uploader, moved: Arc<Mutex<Option<Instant>>>) -> impl FnMut(&MainTable) -> Option<Ahead> + Send {
    move |main| {
        if main.domains().log2_padded_height() < LEAST_AHEAD || lock(&moved).is_none() {
            return None;
        }
        // What is wrong with the device shows in the proof under way, and in the next one.
        uploader.upload(main).inspect_err(|error| warn!(%error, "a table was not uploaded ahead")).ok()?
    }
}

impl Traced for Filled {
    fn prove(self: Box<Self>, _lde: LdeMode, cancelled: &Cancelled, report: &Report<'_>) -> Result<Vec<u8>, Failure> {
        let gpu = &self.device;
        let mut laps = Laps::begin();
        // Whoever panicked with the prover in hand left it in a state that nobody knows.
        let Ok(mut prover) = gpu.prover.lock() else {
            gpu.lost.store(true, Ordering::Relaxed);
            return Err(Failure::Prover("the device's prover is not usable any more".to_owned()));
        };
        if cancelled.is_set() {
            return Err(Failure::Prover("cancelled".to_owned()));
        }
        laps.end("device");
        let moving = Moving::begin(gpu);
        let ahead = self.main.leave();
        laps.end("table");
        let on_device = ahead.is_some();
        let mut before = "begin";
        let mut observer = |stage: Stage| {
            moving.on();
            // From here on the room is free in which this proof's table waited.
            if stage == Stage::CommitAux {
                gpu.boarding.look();
            }
            if before != stage.name() {
                laps.end(std::mem::replace(&mut before, stage.name()));
            }
            report(stage.name(), progress(stage));
            if cancelled.is_set() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let main = self.main.table();
        prover.expect(ahead);
        let result = prover.prove_main_table(&self.claim, main, Randomness::Os, &mut observer);
        let proof = result.map_err(|error| failure_of(&error, gpu, &prover))?;
        drop(moving);
        let encoded = prover_api::proof::encode(&proof).map_err(|error| Failure::Prover(error.to_string()));
        laps.end("encode");
        debug!(log2_padded_height = main.domains().log2_padded_height(), on_device, seconds = %laps, "proof made");
        encoded
    }
}

/// Where the time of a job goes, for the log: seconds of one part after the other.
struct Laps {
    last: Instant,
    parts: Vec<(&'static str, Duration)>,
}

impl Laps {
    fn begin() -> Self {
        Self { last: Instant::now(), parts: vec![] }
    }

    /// The part of this name ends.
    fn end(&mut self, part: &'static str) {
        let now = Instant::now();
        self.parts.push((part, now - std::mem::replace(&mut self.last, now)));
    }
}

impl std::fmt::Display for Laps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (part, took)) in self.parts.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{part} {:.3}", took.as_secs_f64())?;
        }
        Ok(())
    }
}

/// While it lives, the device is expected to move.
struct Moving<'a>(&'a Gpu);

impl<'a> Moving<'a> {
    fn begin(gpu: &'a Gpu) -> Self {
        let moving = Self(gpu);
        moving.on();
        moving
    }

    fn on(&self) {
        *lock(&self.0.moved) = Some(Instant::now());
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        *lock(&self.0.moved) = None;
    }
}

/// Share of a proof's time that is over when a stage begins, measured at 2^20 rows (docs/benchmarks.md).
fn progress(stage: Stage) -> f64 {
    match stage {
        Stage::CommitAux => 0.35,
        Stage::CommitQuotient => 0.78,
        Stage::OutOfDomain => 0.95,
        Stage::Deep => 0.97,
        Stage::Fri { .. } => 0.98,
        Stage::Open | Stage::Done => 0.99,
        _ => 0.0,
    }
}

/// The prover's error as the job's; notes when the device cannot go on. The texts hold no data of the witness.
fn failure_of(error: &GpuError, gpu: &Gpu, prover: &GpuProver) -> Failure {
    match error {
        GpuError::Protocol(ProtocolError::Cancelled) => Failure::Prover("cancelled".to_owned()),
        GpuError::OutOfMemory { requested, free } => Failure::DeviceMemory { needed: *requested, free: *free },
        GpuError::Plan(PlanError::TooBig { needed, free, .. }) => Failure::DeviceMemory { needed: *needed, free: *free },
        error => {
            // Errors that the driver did not mark as final may be so all the same: then it refuses everything from now on.
            let refuses = || prover.stages().device().synchronize().is_err() || prover.stages().device().memory().is_err();
            if error.is_sticky() || (matches!(error, GpuError::Driver { .. }) && refuses()) {
                error!(device = gpu.name, %error, "the device is lost to this process");
                gpu.lost.store(true, Ordering::Relaxed);
            }
            Failure::Prover(error.to_string())
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{CpuBackend, ProverBackend};

    fn job(program: Program, output: Vec<BFieldElement>, secret: Vec<BFieldElement>) -> ProverJob {
        let claim = Claim::about_program(&program).with_output(output);
        ProverJob::new(program, claim, NonDeterminism::new(secret))
    }

    fn failure(job: ProverJob, limits: Limits) -> Failure {
        record(job, limits, &Cancelled::default()).expect_err("fails")
    }

    #[test]
    fn both_backends_see_the_same_height() {
        let program = triton_program!(
            push 7 push 3 push 5 pow pop 1 push 100 call spin pop 1 write_io 1 halt
            spin: dup 0 push 0 eq skiz return addi -1 recurse
        );
        let program_with_output = job(program, vec![bfe!(7)], vec![]);
        let body = program_with_output.to_json().expect("serializes");
        let nobody = Cancelled::default();
        let by_cpu = CpuBackend::default().inspect(&body, &nobody);
        let by_gpu =
            record(program_with_output, Limits::default(), &nobody).map(|trace| trace.heights().padded_height().ilog2() as u8);
        assert_eq!(by_cpu, by_gpu);
        assert_eq!(by_cpu, Ok(10));
    }

    #[test]
    fn limits_end_a_run_typed() {
        let endless = || job(triton_program!(call spin halt spin: recurse), vec![], vec![]);
        let cycles = 10_000;
        assert_eq!(failure(endless(), Limits { cycles, ..Limits::default() }), Failure::Endless { cycle_limit: cycles });
        // One that halts before the tracer asks for the first time.
        let nops = triton_asm![nop; 300];
        let short = job(triton_program!({ &nops } halt), vec![], vec![]);
        assert_eq!(failure(short, Limits { cycles: 200, ..Limits::default() }), Failure::Endless { cycle_limit: 200 });
        // Five rows of the op stack table a cycle.
        let hog = job(triton_program!(sponge_init call fill halt fill: sponge_squeeze pop 5 pop 5 recurse), vec![], vec![]);
        let too_big = failure(hog, Limits { cycles: 100_000, ram_words: 20_000 });
        assert!(matches!(too_big, Failure::TooBig { log2_padded_height: 18.., .. }), "{too_big:?}");
    }

    #[test]
    fn failures_tell_their_kind_and_no_secret() {
        let secret = bfe!(987_654_321);
        let asserts = job(triton_program!(divine 1 push 1 eq assert halt), vec![], vec![secret]);
        let failed = failure(asserts, Limits::default());
        assert!(matches!(&failed, Failure::ProgramFailed { cycle: 3, .. }), "{failed:?}");
        assert!(!format!("{failed:?}").contains("987"), "{failed:?}");
        let writes = job(triton_program!(divine 1 write_io 1 halt), vec![bfe!(1)], vec![secret]);
        assert_eq!(failure(writes, Limits::default()), Failure::OutputMismatch);
    }

    #[test]
    fn a_cancelled_run_ends_soon() {
        let endless = job(triton_program!(call spin halt spin: recurse), vec![], vec![]);
        let cancelled = Cancelled::default();
        cancelled.set();
        assert!(matches!(record(endless, Limits::default(), &cancelled), Err(Failure::Prover(_))));
    }

    #[test]
    fn progress_never_goes_back() {
        let domains = Domains::new(1 << 20).expect("a legal height");
        let shares: Vec<f64> = Stage::sequence(&domains).map(progress).collect();
        assert!(shares.is_sorted() && shares.iter().all(|share| (0.0..1.0).contains(share)), "{shares:?}");
    }
}

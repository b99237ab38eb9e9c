//! What the pod says of itself.

use prover_api::{Capacity, DeviceInfo, JobId, JobState, JobStatus, PROOF_VERSION, Problem, ProblemType, QueueLength};
use tokio::sync::watch;

use super::{Service, State};
use crate::scheduler::{Failure, JobView, WorkerView};

impl Service {
    /// A job's status: live, remembered, or `None`.
    pub fn status(&self, job: JobId) -> Option<JobStatus> {
        self.status_of(&self.lock(), job)
    }

    /// A job's status now and at each change. Ends with a final status.
    pub fn watch(&self, job: JobId) -> Option<watch::Receiver<JobStatus>> {
        let mut state = self.lock();
        let now = self.status_of(&state, job)?;
        if now.state.is_final() {
            return Some(watch::channel(now).1);
        }
        state.watchers.retain(|_, sender| sender.receiver_count() > 0);
        let sender = state.watchers.entry(job).or_insert_with(|| watch::channel(now).0);
        Some(sender.subscribe())
    }

    pub(super) fn status_of(&self, state: &State, job: JobId) -> Option<JobStatus> {
        let view = state.scheduler.view(job)?;
        let worker = view.worker.and_then(|id| state.workers.get(&id));
        let given_back = || draining(state.scheduler.retry_after().as_secs());
        let mut problem = view.failure.as_ref().map(problem_of).or_else(|| view.given_back.then(given_back));
        if let Some(problem) = &mut problem {
            problem.instance = Some(format!("/v1/proofs/{job}").into());
        }
        Some(JobStatus {
            id: job,
            state: view.state,
            priority: view.priority,
            position: view.position,
            progress: self.progress(state, job, &view),
            stage: state.stages.get(&job).filter(|_| view.state == JobState::Proving).map(|(stage, _)| stage.clone()),
            log2_padded_height: view.log2_padded_height,
            backend: view.worker.and_then(|id| state.scheduler.backend(id)).map(|backend| backend.name().to_owned()),
            device: worker.map(|worker| worker.device.clone()),
            seconds: view.timings.seconds(),
            lost_runs: view.attempts,
            problem,
        })
    }

    /// Elapsed over expected time, and no less than the stages that are over; never complete before the end.
    fn progress(&self, state: &State, job: JobId, view: &JobView) -> f64 {
        match (view.state, view.timings.started) {
            (JobState::Done, _) => 1.0,
            (JobState::Failed | JobState::Cancelled, _) | (_, None) => 0.0,
            (JobState::Verifying, _) => 0.99,
            (_, Some(started)) => {
                let elapsed = self.now().saturating_sub(started).as_secs_f64();
                let stages = state.stages.get(&job).filter(|_| view.state == JobState::Proving).map_or(0.0, |&(_, over)| over);
                (elapsed / state.scheduler.expected_seconds(view).max(1e-3)).max(stages).clamp(0.0, 0.98)
            }
        }
    }

    /// What a client needs to choose a pod.
    pub fn capacity(&self) -> Capacity {
        let state = self.lock();
        let workers = state.scheduler.workers();
        let ready: Vec<&WorkerView> = workers.iter().filter(|worker| worker.up && !worker.quarantined).collect();
        let slots = ready.iter().map(|worker| worker.slots).sum();
        let running = workers.iter().map(|worker| worker.running.len()).sum();
        let queue = state.scheduler.queue();
        let draining = state.scheduler.is_draining();
        let mut backends: Vec<String> = workers.iter().map(|worker| worker.backend.name().to_owned()).collect();
        backends.sort();
        backends.dedup();
        Capacity {
            idle: !draining && running < slots && queue.is_empty(),
            ready: !draining && !ready.is_empty(),
            draining,
            max_log2_padded_height: state.scheduler.capacity(),
            slots,
            running,
            queue: queue.into_iter().map(|(p, (jobs, seconds))| (p, QueueLength { jobs, seconds })).collect(),
            body_bytes: state.scheduler.body_bytes(),
            max_body_bytes: state.scheduler.max_body_bytes(),
            proof_versions: vec![PROOF_VERSION],
            backends,
            mock: self.is_mock(),
        }
    }

    /// Every device, ready or not.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        let state = self.lock();
        let workers = state.scheduler.workers();
        let info = |view: WorkerView| {
            let known = state.workers.get(&view.id);
            DeviceInfo {
                worker: view.id.0,
                backend: view.backend.name().to_owned(),
                device: known.map(|known| known.device.clone()).unwrap_or_default(),
                ready: view.up && !view.quarantined,
                quarantined: view.quarantined,
                wrong_proofs: view.wrong_proofs,
                slots: view.slots,
                running: view.running,
                pid: known.and_then(|known| known.handle.as_ref()).map(|handle| handle.pid),
                rss_bytes: known.map_or(0, |known| known.rss_bytes),
                restarts: known.map_or(0, |known| known.restarts),
                max_log2_padded_height: state.scheduler.largest(view.id),
                gpu: known.and_then(|known| known.gpu.clone()),
            }
        };
        workers.into_iter().map(info).collect()
    }

    /// Sets the gauges; called when somebody looks.
    pub fn refresh_gauges(&self) {
        let capacity = self.capacity();
        let devices = self.devices();
        let (cached, cached_bytes) = {
            let state = self.lock();
            (state.scheduler.cache().len(), state.scheduler.cache().bytes())
        };
        self.metrics().refresh(&capacity, &devices, cached, cached_bytes);
    }
}

/// A failure as callers see it.
pub fn problem_of(failure: &Failure) -> Problem {
    use ProblemType as T;
    match failure {
        Failure::Malformed(detail) => Problem::new(T::MalformedJob).detail(detail),
        Failure::DigestMismatch => {
            Problem::new(T::ProgramDigestMismatch).detail("send the program whose digest stands in the claim")
        }
        Failure::OutputMismatch => Problem::new(T::OutputMismatch)
            .detail("with this input and non-determinism the program writes something else than the claim says"),
        Failure::ProgramFailed { error, cycle } => Problem {
            vm_error: Some(error.as_str().into()),
            cycle: Some(*cycle),
            ..Problem::new(T::ProgramFailed).detail(format!("{error} in clock cycle {cycle}"))
        },
        Failure::Endless { cycle_limit } => Problem {
            cycle: Some(*cycle_limit),
            ..Problem::new(T::ProgramEndless).detail(format!("still running after {cycle_limit} clock cycles"))
        },
        Failure::TooBig { log2_padded_height, limit } => Problem {
            log2_padded_height: Some(*log2_padded_height),
            max_log2_padded_height: Some(*limit),
            ..Problem::new(T::PaddedHeightTooBig)
                .detail(format!("the job has 2^{log2_padded_height} padded rows, 2^{limit} are admitted"))
        },
        Failure::WorkerLost => Problem::new(T::WorkerLost)
            .detail("the process that proved died or fell silent each time; a pod with more memory may help"),
        Failure::InvalidProof => Problem::new(T::InvalidProof).detail("nothing left the pod; ask another one"),
        Failure::DeviceMemory { needed, free } => Problem::new(T::ProverFailed).detail(format!(
            "the proof needs {needed} bytes of device memory, {free} are free; another process may be using the device"
        )),
        Failure::NoDevice => Problem::new(T::NoDevice).detail("every device of this pod is quarantined"),
        Failure::Prover(what) => Problem::new(T::ProverFailed).detail(what),
    }
}

/// A pod that shuts down has given the job back; its successor may be up after so many seconds.
pub fn draining(seconds: u64) -> Problem {
    Problem { retry_after_seconds: Some(seconds.max(1)), ..Problem::new(ProblemType::Draining).detail("ask another pod") }
}

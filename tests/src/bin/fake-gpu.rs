//! A GPU worker without a GPU, for tests of what a pod does with one: the real worker around a backend that calls itself a GPU,
//! walks through a GPU's stages and lets the CPU make the proof. Asked to be a CPU worker, it is one.
//!
//! `FAKE_GPU_LOG2_HEIGHT`: largest log2 height of the device, 12 when not set. `FAKE_GPU_STAGE_MS`: how long each stage takes.
//! `FAKE_GPU_FAULT`: a file; while it is there, its content says what goes wrong in the next proof, which takes the file away.
//! `lost`: the device is lost to the process. `memory`: the device has too little of it.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use prover_api::GpuInfo;
use prover_pod::memory::LdeMode;
use prover_pod::scheduler::{Backend, Failure};
use prover_pod::worker::{Cancelled, CpuBackend, Facts, ProverBackend, Report, Traced, run};

/// A proof's stages, and the share of its time that is over when each begins.
const STAGES: [(&str, f64); 4] = [("commit-main", 0.0), ("commit-aux", 0.35), ("commit-quotient", 0.78), ("open", 0.99)];

#[derive(Debug, Default)]
struct Device {
    busy: Mutex<()>,
    lost: AtomicBool,
}

#[derive(Debug, Default)]
struct FakeGpu {
    jobs: usize,
    device: Arc<Device>,
}

struct OnDevice {
    device: Arc<Device>,
    proof: Box<dyn Traced>,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

impl ProverBackend for FakeGpu {
    fn kind(&self) -> Backend {
        Backend::Gpu
    }

    fn slots(&self) -> usize {
        self.jobs
    }

    fn device(&self) -> String {
        "fake GPU".to_owned()
    }

    fn facts(&self) -> Facts {
        let gpu = GpuInfo {
            visible_device: std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default(),
            uuid: "GPU-fake".to_owned(),
            compute_capability: "9.0".to_owned(),
            memory_bytes: 2 << 30,
            free_memory_bytes: 1 << 30,
            jobs_ahead: self.jobs - 1,
            plans: Vec::new(),
        };
        Facts { max_log2_padded_height: Some(number("FAKE_GPU_LOG2_HEIGHT", 12) as u8), gpu: Some(gpu) }
    }

    fn is_lost(&self) -> bool {
        self.device.lost.load(Ordering::Relaxed)
    }

    fn self_test(&self) -> Result<Vec<u8>, Failure> {
        CpuBackend::default().self_test()
    }

    fn inspect(&self, body: &[u8], cancelled: &Cancelled) -> Result<u8, Failure> {
        CpuBackend::default().inspect(body, cancelled)
    }

    fn trace(&self, body: &[u8], cancelled: &Cancelled) -> Result<Box<dyn Traced>, Failure> {
        let proof = CpuBackend::default().trace(body, cancelled)?;
        Ok(Box::new(OnDevice { device: Arc::clone(&self.device), proof }))
    }
}

impl Traced for OnDevice {
    fn prove(self: Box<Self>, lde: LdeMode, cancelled: &Cancelled, report: &Report<'_>) -> Result<Vec<u8>, Failure> {
        // A cancelled proof may still be on its way to the end of its stage; two that run are a fault of the service.
        let _busy = self.device.busy.lock().map_err(|_| Failure::Prover("the device is broken".to_owned()))?;
        for (stage, over) in STAGES {
            report(stage, over);
            if cancelled.is_set() {
                return Err(Failure::Prover("cancelled".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(number("FAKE_GPU_STAGE_MS", 0)));
        }
        match take_fault().as_deref() {
            Some("lost") => {
                self.device.lost.store(true, Ordering::Relaxed);
                Err(Failure::Prover("the device is lost".to_owned()))
            }
            Some("memory") => Err(Failure::DeviceMemory { needed: 2 << 30, free: 1 << 30 }),
            _ => self.proof.prove(lde, cancelled, &|_, _| {}),
        }
    }
}

fn take_fault() -> Option<String> {
    let path = std::env::var_os("FAKE_GPU_FAULT")?;
    let fault = std::fs::read_to_string(&path).ok()?;
    std::fs::remove_file(&path).ok()?;
    Some(fault)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    let jobs = value("--slots").context("--slots is given")?.parse()?;
    let backend: Arc<dyn ProverBackend> = match value("--backend").map(String::as_str) {
        Some("gpu") => Arc::new(FakeGpu { jobs, device: Arc::default() }),
        _ => Arc::new(CpuBackend::default()),
    };
    Ok(run(backend, io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?)?)
}

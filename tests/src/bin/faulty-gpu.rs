//! A GPU worker on a real device that flips one bit of the device's memory in each proof: the prover's own kernels, and proofs
//! that are wrong for the reason why proofs go wrong. For tests of what a pod does with such a device.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use gpu_prover::cuda::{CudaStages, faults};
use gpu_prover::main_table::MainTable;
use gpu_prover::prover::{self, Unobserved};
use gpu_prover::randomness::Randomness;
use gpu_prover::trace::Trace;
use prover_api::{GpuInfo, ProverJob, proof};
use prover_pod::memory::LdeMode;
use prover_pod::scheduler::{Backend, Failure};
use prover_pod::worker::{Cancelled, CpuBackend, Facts, ProverBackend, Report, Traced, run};
use triton_vm::prelude::*;

struct FaultyGpu {
    stages: Arc<Mutex<CudaStages>>,
    name: String,
}

struct OnDevice {
    stages: Arc<Mutex<CudaStages>>,
    claim: Claim,
    main: MainTable,
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::Prover(error.to_string())
}

impl ProverBackend for FaultyGpu {
    fn kind(&self) -> Backend {
        Backend::Gpu
    }

    fn slots(&self) -> usize {
        1
    }

    fn device(&self) -> String {
        self.name.clone()
    }

    fn facts(&self) -> Facts {
        let gpu = GpuInfo {
            visible_device: std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default(),
            uuid: String::new(),
            compute_capability: String::new(),
            memory_bytes: 0,
            free_memory_bytes: 0,
            jobs_ahead: 0,
            plans: Vec::new(),
        };
        Facts { max_log2_padded_height: Some(20), gpu: Some(gpu) }
    }

    // The device fails later than at its start: a pod never takes one whose first proof is wrong.
    fn self_test(&self) -> Result<Vec<u8>, Failure> {
        CpuBackend::default().self_test()
    }

    fn inspect(&self, body: &[u8], cancelled: &Cancelled) -> Result<u8, Failure> {
        CpuBackend::default().inspect(body, cancelled)
    }

    fn trace(&self, body: &[u8], _cancelled: &Cancelled) -> Result<Box<dyn Traced>, Failure> {
        let job = ProverJob::from_json(body).map_err(|error| Failure::Malformed(error.to_string()))?;
        let ProverJob { program, claim, non_determinism, .. } = job;
        let state = VMState::new(program, PublicInput::new(claim.input.clone()), non_determinism);
        let trace = Trace::record(state, |_| std::ops::ControlFlow::Continue(())).map_err(|error| failed(&error))?;
        let main = MainTable::from_trace(&trace).map_err(|error| failed(&error))?;
        Ok(Box::new(OnDevice { stages: Arc::clone(&self.stages), claim, main }))
    }
}

impl Traced for OnDevice {
    fn prove(self: Box<Self>, _lde: LdeMode, _cancelled: &Cancelled, _report: &Report<'_>) -> Result<Vec<u8>, Failure> {
        let mut stages = self.stages.lock().map_err(|_| Failure::Prover("the device is broken".to_owned()))?;
        let mut faulty = faults::FlippedBit::new(&mut stages, faults::Place::AuxCodeword);
        let proof = prover::prove_main_table(&mut faulty, &self.claim, &self.main, Randomness::Os, &mut Unobserved);
        proof::encode(&proof.map_err(|error| failed(&error))?).map_err(|error| failed(&error))
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let wants_gpu = arguments.windows(2).any(|pair| pair[0] == "--backend" && pair[1] == "gpu");
    let backend: Arc<dyn ProverBackend> = if wants_gpu {
        let stages = CudaStages::new(0, None).context("no device to make faulty")?;
        let name = format!("{}, with a faulty bit", stages.device().name());
        Arc::new(FaultyGpu { stages: Arc::new(Mutex::new(stages)), name })
    } else {
        Arc::new(CpuBackend::default())
    };
    Ok(run(backend, io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?)?)
}

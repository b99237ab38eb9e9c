//! The prover of one CUDA device: what a service holds.

use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::prelude::{Claim, Proof, Stark};

use crate::cuda::{Ahead, CudaStages, Uploader};
use crate::error::{GpuError, ProtocolError};
use crate::main_table::MainTable;
use crate::plan::{self, Plan};
use crate::prover::{self, Observer, Unobserved};
use crate::randomness::Randomness;
use crate::trace::Trace;
use crate::workloads;

/// How a [`GpuProver`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Number of the device among those that the driver shows (`CUDA_VISIBLE_DEVICES` respected).
    pub device: usize,
    /// A plan for all proofs, or `None` for the fastest one that fits each.
    pub plan: Option<Plan>,
    /// Whether each proof is verified on the host before it is returned: some 25 ms, and no faulty device goes
    /// unnoticed. Leave it on unless the caller verifies.
    pub verify: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { device: 0, plan: None, verify: true }
    }
}

/// A prover on one CUDA device, for any number of proofs, one at a time.
#[derive(Debug)]
pub struct GpuProver {
    stages: CudaStages,
    config: Config,
}

impl GpuProver {
    /// Open the device and load the kernels.
    ///
    /// # Errors
    /// If there is no driver, no such device, or this build has no kernels for it; the error says what to do.
    pub fn new(config: Config) -> Result<Self, GpuError> {
        let stages = CudaStages::new(config.device, config.plan)?;
        Ok(Self { stages, config })
    }

    /// Prove `claim` about the triton-vm crate's trace.
    ///
    /// # Errors
    /// If the proof does not fit on the device, the device fails, or the proof does not verify.
    pub fn prove(&mut self, claim: &Claim, aet: &AlgebraicExecutionTrace, randomness: Randomness) -> Result<Proof, GpuError> {
        let proof = prover::prove(&mut self.stages, claim, aet, randomness, &mut Unobserved)?;
        self.checked(claim, proof)
    }

    /// Prove the claim of our own, faster trace.
    ///
    /// # Errors
    /// As for [`Self::prove`].
    pub fn prove_trace(&mut self, trace: &Trace, randomness: Randomness) -> Result<Proof, GpuError> {
        let main = MainTable::from_trace(trace)?;
        self.prove_main_table(&trace.claim(), &main, randomness, &mut Unobserved)
    }

    /// Prove from a main table that was filled ahead, reporting each stage to `observer`, which may cancel.
    ///
    /// # Errors
    /// As for [`Self::prove`], and if the observer cancels.
    pub fn prove_main_table(
        &mut self,
        claim: &Claim,
        main: &MainTable,
        randomness: Randomness,
        observer: &mut impl Observer,
    ) -> Result<Proof, GpuError> {
        let proof = prover::prove_main_table(&mut self.stages, claim, main, randomness, observer)?;
        self.checked(claim, proof)
    }

    /// What brings the next proof's table to the device while this prover makes a proof; for another thread.
    ///
    /// # Errors
    /// If there is no page-locked memory for its buffers.
    pub fn uploader(&self) -> Result<Uploader, GpuError> {
        self.stages.uploader()
    }

    /// The next proof is the one whose table was uploaded ahead, or one whose table was not.
    pub fn expect(&mut self, table: Option<Ahead>) {
        self.stages.expect(table);
    }

    /// Make a small proof on the device and verify it, whatever the configuration says: what a service does before it
    /// calls itself ready.
    ///
    /// # Errors
    /// As for [`Self::prove`].
    pub fn self_test(&mut self) -> Result<(), GpuError> {
        let run = workloads::mixed(1).trace();
        let (claim, aet) = run.map_err(|_| ProtocolError::Internal("the self-test's program failed"))?;
        let observer = &mut Unobserved;
        let proof = prover::prove(&mut self.stages, &claim, &aet, Randomness::Os, observer)?;
        verified(&claim, proof).map(|_| ())
    }

    /// The greatest log2 padded height that fits into `free_bytes` of device memory; `None` if not even the smallest
    /// does.
    pub fn max_log2_height(free_bytes: u64) -> Option<u32> {
        plan::max_log2_height(free_bytes)
    }

    /// The device's stages, to ask them about device and memory.
    pub fn stages(&self) -> &CudaStages {
        &self.stages
    }

    fn checked(&self, claim: &Claim, proof: Proof) -> Result<Proof, GpuError> {
        if self.config.verify { verified(claim, proof) } else { Ok(proof) }
    }
}

/// The proof, if the unmodified verifier accepts it.
fn verified(claim: &Claim, proof: Proof) -> Result<Proof, GpuError> {
    if triton_vm::verify(Stark::default(), claim, &proof) { Ok(proof) } else { Err(GpuError::VerificationFailed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CpuStages;
    use triton_vm::prelude::BFieldElement;

    #[test]
    fn without_a_usable_device_there_is_an_error_that_says_what_to_do() {
        let config = Config { device: 999, ..Config::default() };
        let error = GpuProver::new(config).expect_err("no host has a thousand devices");
        let text = error.to_string();
        match error {
            GpuError::NoDriver { .. } => assert!(text.contains("install the NVIDIA driver"), "{text}"),
            GpuError::NoDevice { .. } => assert!(text.contains("CUDA_VISIBLE_DEVICES"), "{text}"),
            GpuError::DriverTooOld { .. } => assert!(text.contains("upgrade"), "{text}"),
            GpuError::NoKernels => assert!(text.contains("make cuda-toolchain"), "{text}"),
            other => panic!("an unexpected kind of error: {other}"),
        }
        assert!(!GpuError::NoKernels.is_sticky());
    }

    #[test]
    fn a_proof_with_a_wrong_word_does_not_leave() {
        let (claim, aet) = workloads::spin(8).trace().expect("the workload runs");
        let proof = prover::prove(&mut CpuStages::new(), &claim, &aet, Randomness::Os, &mut Unobserved);
        let proof = proof.expect("it proves");
        assert!(verified(&claim, proof.clone()).is_ok());
        for word in [proof.0.len() / 3, proof.0.len() / 2, proof.0.len() - 1] {
            let mut wrong = proof.clone();
            wrong.0[word] += BFieldElement::new(1);
            assert!(matches!(verified(&claim, wrong), Err(GpuError::VerificationFailed)), "word {word}");
        }
    }
}

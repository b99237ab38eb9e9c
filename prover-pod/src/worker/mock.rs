//! The mock networks' prover: waits as long as the job says, then returns the chain's mock proof.
//!
//! On regtest and testnet-mock upstream has no proofs: a node there takes a fixed word instead (`NeptuneProof::valid_mock`).
//! Everything around it is real: queue, priorities, heights, cancellation.

use std::time::{Duration, Instant};

use prover_api::MockJob;
use triton_vm::prelude::*;

use super::backend::{Cancelled, ProverBackend, Report, Traced};
use crate::memory::LdeMode;
use crate::scheduler::{Backend, Failure};

/// Serves [`MockJob`]s.
#[derive(Debug, Clone, Copy)]
pub struct MockBackend {
    /// Jobs at once.
    pub slots: usize,
}

/// How often a waiting job looks whether it is still wanted.
const POLL: Duration = Duration::from_millis(20);

/// The mock networks' proof, as `bincode(Proof)`: the codec's word for the first variant of neptune-consensus' `MockProofBehavior`.
pub fn valid_mock_proof() -> Proof {
    Proof(vec![BFieldElement::new(0)])
}

fn parse(body: &[u8]) -> Result<MockJob, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Malformed(error.to_string()))
}

impl ProverBackend for MockBackend {
    fn kind(&self) -> Backend {
        Backend::Mock
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn device(&self) -> String {
        "mock".to_owned()
    }

    fn self_test(&self) -> Result<Vec<u8>, Failure> {
        Ok(Vec::new())
    }

    fn inspect(&self, body: &[u8], _cancelled: &Cancelled) -> Result<u8, Failure> {
        parse(body).map(|job| job.log2_padded_height)
    }

    fn trace(&self, body: &[u8], _cancelled: &Cancelled) -> Result<Box<dyn Traced>, Failure> {
        parse(body).map(|job| Box::new(MockTrace(job)) as Box<dyn Traced>)
    }
}

struct MockTrace(MockJob);

impl Traced for MockTrace {
    fn prove(self: Box<Self>, _lde: LdeMode, cancelled: &Cancelled, _report: &Report<'_>) -> Result<Vec<u8>, Failure> {
        let end = Instant::now() + Duration::from_millis(self.0.duration_ms);
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if cancelled.is_set() {
                return Err(Failure::Prover("cancelled".to_owned()));
            }
            std::thread::sleep(left.min(POLL));
        }
        prover_api::proof::encode(&valid_mock_proof()).map_err(|error| Failure::Prover(error.to_string()))
    }
}

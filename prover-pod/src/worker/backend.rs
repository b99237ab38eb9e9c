//! What a kind of prover must offer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::LdeMode;
use crate::scheduler::{Backend, Failure};

/// Tells a job that nobody wants it any more. Backends look at it where they can.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// From now on it is.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A prover: the CPU, a GPU, or none at all on the mock networks.
pub trait ProverBackend: Send + Sync + 'static {
    /// Kind.
    fn kind(&self) -> Backend;

    /// Jobs at once.
    fn slots(&self) -> usize;

    /// Name of the device, for people.
    fn device(&self) -> String;

    /// Proves [`super::self_test_claim`] as any job is proven; `bincode(Proof)`. Empty for a backend that proves nothing.
    ///
    /// # Errors
    /// The device is not usable.
    fn self_test(&self) -> Result<Vec<u8>, Failure>;

    /// Learns log2 of the padded height of the job in `body`.
    ///
    /// # Errors
    /// Why the job cannot be proven by anyone.
    fn inspect(&self, body: &[u8]) -> Result<u8, Failure>;

    /// Traces the job in `body`.
    ///
    /// # Errors
    /// Why the job cannot be proven.
    fn trace(&self, body: &[u8]) -> Result<Box<dyn Traced>, Failure>;
}

/// A job with its trace.
pub trait Traced: Send {
    /// Proves; `bincode(Proof)`.
    ///
    /// # Errors
    /// [`Failure::Prover`].
    fn prove(self: Box<Self>, lde: LdeMode, cancelled: &Cancelled) -> Result<Vec<u8>, Failure>;
}

//! What a kind of prover must offer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prover_api::{GpuInfo, JobId};

use crate::memory::LdeMode;
use crate::scheduler::{Backend, Failure};

/// Hears of each stage of a proof when it begins: its name, and the share of the proof's time that is over.
pub type Report<'a> = dyn Fn(&'static str, f64) + 'a;

/// What a backend says of its device beside its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Largest log2 padded height that the device takes, where it has memory of its own.
    pub max_log2_padded_height: Option<u8>,
    /// About a GPU.
    pub gpu: Option<GpuInfo>,
}

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

    /// Jobs at once; on a GPU one of them has the device, the others are traced ahead.
    fn slots(&self) -> usize;

    /// Name of the device, for people.
    fn device(&self) -> String;

    /// What there is to know of the device.
    fn facts(&self) -> Facts {
        Facts::default()
    }

    /// Called about once a second, whatever else the worker does.
    fn tick(&self) {}

    /// Whether nothing will come from the device in this process any more. The process ends then, and another is started.
    fn is_lost(&self) -> bool {
        false
    }

    /// Proves [`super::self_test_claim`] as any job is proven; `bincode(Proof)`. Empty for a backend that proves nothing.
    ///
    /// # Errors
    /// The device is not usable.
    fn self_test(&self) -> Result<Vec<u8>, Failure>;

    /// Learns log2 of the padded height of the job in `body`.
    ///
    /// # Errors
    /// Why the job cannot be proven by anyone.
    fn inspect(&self, body: &[u8], cancelled: &Cancelled) -> Result<u8, Failure>;

    /// Whether the trace is kept that [`Self::inspect`] made of a job.
    fn keeps(&self, job: JobId) -> bool {
        let _ = job;
        false
    }

    /// The job is over, or another worker has it: whatever is still kept of it may go.
    fn forget(&self, job: JobId) {
        let _ = job;
    }

    /// Traces the job in `body`.
    ///
    /// # Errors
    /// Why the job cannot be proven.
    fn trace(&self, body: &[u8], cancelled: &Cancelled) -> Result<Box<dyn Traced>, Failure>;
}

/// A job with its trace.
pub trait Traced: Send {
    /// Proves; `bincode(Proof)`. Reports stages where there are any to tell apart.
    ///
    /// # Errors
    /// [`Failure::Prover`], [`Failure::DeviceMemory`].
    fn prove(self: Box<Self>, lde: LdeMode, cancelled: &Cancelled, report: &Report<'_>) -> Result<Vec<u8>, Failure>;
}

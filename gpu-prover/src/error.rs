//! Typed errors. Each says what happened and what to do next; none carries witness data.

use thiserror::Error;

/// What can end a proof whatever machine makes it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The trace is empty, not padded to a power of two, or higher than a verifier accepts.
    #[error("padded height {padded_height} cannot be proven: it must be a power of two below 2^30")]
    PaddedHeight {
        /// The offending height, in rows.
        padded_height: usize,
    },

    /// Claim and trace are about different programs; no verifier would accept the proof.
    #[error("the claim is about another program than the one that was executed: build the claim from the traced program")]
    ProgramMismatch,

    /// The sampled out-of-domain point collides with an opened row. Happens with negligible probability.
    #[error("the proof would not have been zero-knowledge: prove again, with fresh randomness")]
    ZeroKnowledgeViolated,

    /// The observer asked to stop.
    #[error("the proof was cancelled")]
    Cancelled,

    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness ({0}): check that the process may call getrandom(2)")]
    NoRandomness(String),

    /// A backend answered with data of the wrong shape: a bug in this crate.
    #[error("internal error, please report it: {0}")]
    Internal(&'static str),
}

/// What can go wrong with the CUDA prover.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GpuError {
    /// No CUDA driver library on this host.
    #[error(
        "no CUDA driver was found ({detail}): install the NVIDIA driver, or in a container let the NVIDIA container \
         toolkit mount it"
    )]
    NoDriver {
        /// What the loader said.
        detail: String,
    },

    /// There is a driver, but it sees no such device.
    #[error(
        "CUDA device {requested} does not exist, the driver sees {available}: check CUDA_VISIBLE_DEVICES and the \
         container's GPU request"
    )]
    NoDevice {
        /// The ordinal asked for.
        requested: usize,
        /// How many devices the driver sees.
        available: usize,
    },

    /// The driver is older than the CUDA version the kernels need.
    #[error("the NVIDIA driver supports CUDA {found}, this build needs {needed}: upgrade the driver")]
    DriverTooOld {
        /// CUDA version the driver supports, for example `12.4`.
        found: String,
        /// The least CUDA version that works.
        needed: String,
    },

    /// The crate was compiled without nvcc.
    #[error(
        "this binary was built without GPU kernels: build it where nvcc is on the PATH (or CUDA_HOME or NVCC is set), \
         or run `make cuda-toolchain` first"
    )]
    NoKernels,

    /// The kernels do not run on this device.
    #[error(
        "device {name} has compute capability {major}.{minor}, for which this build has no kernels: rebuild with \
         GPU_PROVER_ARCHS={major}{minor}, or use a device of compute capability 8.0 or newer"
    )]
    UnsupportedDevice {
        /// The device's name.
        name: String,
        /// Major compute capability.
        major: i32,
        /// Minor compute capability.
        minor: i32,
    },

    /// The proof does not fit on the device.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),

    /// The device refused an allocation that the plan had counted on.
    #[error("the device is out of memory: {requested} bytes asked for, {free} free; another process may be using it")]
    OutOfMemory {
        /// Bytes asked for.
        requested: u64,
        /// Bytes free at that time.
        free: u64,
    },

    /// A driver call failed.
    #[error("{operation} failed: {detail}")]
    Driver {
        /// What was attempted.
        operation: &'static str,
        /// The driver's error, name and text.
        detail: String,
    },

    /// A kernel could not be launched, or failed while it ran. The context is lost.
    #[error("kernel {kernel} failed: {detail}; restart the process, its CUDA context cannot be used any more")]
    Kernel {
        /// The kernel's name.
        kernel: &'static str,
        /// The driver's error, name and text.
        detail: String,
    },

    /// The operating system gave no threads for the host's part.
    #[error("no threads for the host's part of the proofs ({detail}): raise the limit of processes (ulimit -u, pids.max)")]
    NoThreads {
        /// What the system said.
        detail: String,
    },

    /// A proof was made, but the verifier rejects it.
    #[error("the device made a proof that does not verify: take the device out of service and run its memory tests")]
    VerificationFailed,

    /// An error of the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl GpuError {
    /// Whether the process must be restarted before the device can be used again.
    pub fn is_sticky(&self) -> bool {
        matches!(self, Self::Kernel { .. })
    }
}

//! The wire types of a prover pod, and what a client needs to use pods: routing, retries and verification.
//!
//! This crate verifies proofs and never makes one.

pub mod client;
mod destination;
pub mod framing;
pub mod headers;
mod id;
mod job;
mod priority;
mod problem;
pub mod proof;
mod status;

pub use destination::Destination;
pub use id::{InvalidJobId, JobId};
pub use job::{JobKind, MalformedJob, MockJob, ProverJob};
pub use priority::{BLOCK_PROGRAM_DIGEST, InvalidPriority, Priority, is_block_program};
pub use problem::{PROBLEM_JSON, Problem, ProblemType, Retry};
pub use status::{Capacity, DeviceInfo, GpuInfo, HeightPlan, JobState, JobStatus, QueueLength, StageSeconds};

/// The proof version that the linked proof system makes and verifies (`triton_vm::proof::CURRENT_VERSION`).
pub const PROOF_VERSION: u32 = triton_vm::proof::CURRENT_VERSION;

/// Largest job body in bytes, after decompression: the HTTP API's limit. The largest transaction job has 33 MB.
pub const MAX_JOB_BYTES: usize = 256 << 20;

//! The prover on CUDA devices: [`CudaStages`] implements [`crate::stages::Stages`].
//!
//! Everything lies coset by coset. With `n` rows of the trace, the FRI domain of `8 n` points is eight cosets
//! `7 w_8n^j <w_n>`; no transform is longer than `n`, the "next row" of the AIR is the next row of the same coset, both
//! halves of a FRI fold lie in one coset, and a plan that keeps fewer than eight cosets only computes some again.
//!
//! One arena is allocated for a proof and cut up before its first launch ([`arena`]); all work runs on one stream, in
//! order, but for the next proof's table, which is uploaded meanwhile ([`Uploader`]). Launches are typed ([`launch`]) and
//! assert shapes. Without a driver, a device, or kernels in this build, all that happens is a
//! [`crate::error::GpuError`].

mod ahead;
mod air;
pub mod arena;
mod blob;
mod columns;
mod deep;
mod device;
mod extend;
pub mod facts;
pub mod faults;
mod job;
mod launch;
mod ntt;
mod open;
pub mod parity;
mod quotient;
mod stages;
mod staging;

pub use ahead::{Ahead, Uploader};
pub use blob::{Resources, resources};
pub use device::{Device, device_count};
pub use stages::CudaStages;

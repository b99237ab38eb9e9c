//! Generates the CUDA kernels of the AIR and of degree lowering from triton-constraint-builder's circuits.
//!
//! Nothing about Triton VM's tables is typed in here: columns, constraints and their order come from the pinned crates.
//! The output compiles as device code and, for tests without a GPU, as host C++.

pub mod air;
pub mod cluster;
pub mod dag;
pub mod emit;
mod kernels;
mod names;
mod schedule;
mod tip5;

pub use kernels::{GeneratedFile, generate};
pub use names::air_names;
pub use tip5::tip5_constants;

/// Changes whenever the generator's own text does: what its cached output is filed under. The crates that the circuits
/// come from are pinned to one version, which is named here.
pub const FINGERPRINT: &[&str] = &[
    "triton-constraint-builder 9.0.1",
    include_str!("air.rs"),
    include_str!("cluster.rs"),
    include_str!("dag.rs"),
    include_str!("emit.rs"),
    include_str!("kernels.rs"),
    include_str!("names.rs"),
    include_str!("schedule.rs"),
    include_str!("tip5.rs"),
];

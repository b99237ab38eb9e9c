//! STARK prover for Triton VM 9.0 outside of the triton-vm crate, for the CPU and for NVIDIA GPUs. Its proofs are those of
//! the crate, byte by byte for the same random seed, and the crate's unmodified verifier accepts them.
//!
//! - [`prover`]: the protocol, once, over any machine that implements [`stages::Stages`].
//! - [`cpu`]: the stages on the CPU, the reference for all others.
//! - [`cuda`]: the stages on a CUDA device; [`gpu::GpuProver`] is the prover that a service holds.
//! - [`trace`]: the execution trace, recorded faster than by the crate.
//! - [`workloads`] and [`compare`]: programs to prove, and where two proofs differ.
//! - [`plan`]: whether and how a proof fits into a device's memory.
//!
//! One module a stage: [`main_table`], [`lde`], [`row_hash`], [`merkle`], [`aux_table`], [`quotient`],
//! [`out_of_domain`], [`deep`], [`fri`], [`open`].
//!
//! ```no_run
//! use gpu_prover::{cpu::CpuStages, prover, randomness::Randomness};
//! use triton_vm::prelude::*;
//!
//! let program = triton_program!(push 2 push 3 add write_io 1 halt);
//! let claim = Claim::about_program(&program).with_output(vec![bfe!(5)]);
//! let (aet, _) = VM::trace_execution(program, PublicInput::default(), NonDeterminism::default())?;
//! let proof = prover::prove(&mut CpuStages::new(), &claim, &aet, Randomness::Os, &mut prover::Unobserved)?;
//! assert!(triton_vm::verify(Stark::default(), &claim, &proof));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod aux_table;
pub mod compare;
pub mod cpu;
pub mod cuda;
pub mod deep;
pub mod domain;
pub mod error;
mod field;
pub mod fri;
pub mod gpu;
pub mod lde;
pub mod main_table;
pub mod matrix;
pub mod merkle;
pub mod open;
pub mod out_of_domain;
pub mod plan;
pub mod prover;
pub mod quotient;
pub mod randomness;
pub mod row_hash;
pub mod stages;
pub mod trace;
pub mod workloads;

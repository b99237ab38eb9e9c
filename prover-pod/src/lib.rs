//! A prover pod: takes proof jobs over HTTP, proves them in worker processes, and lets only verified proofs out.

pub mod memory;
pub mod metrics;
pub mod pool;
pub mod protocol;
pub mod scheduler;
pub mod service;
pub mod worker;

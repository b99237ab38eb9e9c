//! A prover pod: takes proof jobs over HTTP, proves them in worker processes, and lets only verified proofs out.
//!
//! - [`scheduler`]: who runs when, a pure state machine; [`service`]: the shell around it.
//! - [`worker`]: the process that traces and proves; [`pool`]: keeps it alive; [`protocol`]: what the two say to each other.
//! - [`intake`], [`http`], [`tvmp`]: how jobs come in and proofs go out.
//! - [`gpu`]: which GPUs a pod uses, which jobs go there, what `doctor` and `bench` say of them.
//! - [`memory`]: how much memory a proof takes, and how much there is.

pub mod agreements;
pub mod cli;
pub mod gpu;
pub mod http;
pub mod intake;
pub mod layout;
pub mod memory;
pub mod metrics;
pub mod pool;
pub mod protocol;
pub mod scheduler;
pub mod serve;
pub mod service;
pub mod stock;
pub mod tvmp;
pub mod worker;

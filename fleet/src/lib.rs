//! The command that a person types, as a library: transactions to proof jobs and back, jobs from programs, the state of pods and of fleets.

pub mod cli;
pub mod explain;
pub mod input;
pub mod local;
pub mod pods;
pub mod program;
pub mod progress;
pub mod prove;
pub mod remote;
pub mod status;
pub mod store;
pub mod trace;
pub mod transaction;

//! Decisions, as pure functions of what is wanted and what was seen. No clock, no IO, no memory: an operator that is killed
//! between two steps and started again computes the next step from what it finds.

pub mod provers;
pub mod shards;

//! What a pod does about GPUs beside proving on them: which to use, where jobs go, what to measure, what to say.

pub mod bench;
pub mod choice;
pub mod devices;
pub mod doctor;
pub mod found;
pub mod nvml;
pub mod table;

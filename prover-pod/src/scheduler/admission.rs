//! Admission by memory, not by count.

use crate::memory::{LdeMode, MemoryPlan, TooBig, memory_plan};

use super::Backend;

/// The memory that proofs on the host may use together.
#[derive(Debug, Clone, Copy)]
pub struct MemoryGate {
    /// Bytes that provers may use when nothing else runs.
    pub limit: u64,
}

/// Whether a job may start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes, with this plan.
    Now(MemoryPlan),
    /// Not before a running job ends.
    Wait,
    /// Never on this host; the largest log2 height that could is given.
    Never {
        /// Largest log2 padded height that fits with nothing else running.
        limit: u8,
    },
}

impl MemoryGate {
    /// Decides for a job of `log2_height` beside jobs that have reserved `reserved` bytes. `frugal` asks for the smallest
    /// footprint: the job was lost once, perhaps for lack of memory.
    pub fn admit(self, backend: Backend, log2_height: u8, reserved: u64, frugal: bool) -> Admission {
        if backend != Backend::Cpu {
            // A mock proof needs nothing; the GPU worker holds its own plan against the device's memory.
            return Admission::Now(MemoryPlan { lde: LdeMode::Cached, bytes: 0 });
        }
        let plan = |free| memory_plan(log2_height, free, frugal);
        match plan(self.limit.saturating_sub(reserved)) {
            Ok(plan) => Admission::Now(plan),
            Err(TooBig { .. }) if reserved > 0 && plan(self.limit).is_ok() => Admission::Wait,
            Err(TooBig { largest }) if reserved == 0 => Admission::Never { limit: largest },
            Err(_) => match plan(self.limit) {
                Ok(_) => Admission::Wait,
                Err(TooBig { largest }) => Admission::Never { limit: largest },
            },
        }
    }

    /// Largest log2 padded height that fits with nothing else running.
    pub fn largest(self, backend: Backend) -> u8 {
        if backend == Backend::Cpu { crate::memory::largest_log2_height(self.limit) } else { crate::memory::MAX_LOG2_HEIGHT }
    }
}

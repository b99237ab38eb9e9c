//! Admission by memory, not by count.

use crate::memory::{LdeMode, MemoryPlan, TooBig, gpu_host_plan, memory_plan};

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
        let plan = |free| match backend {
            Backend::Cpu => memory_plan(log2_height, free, frugal),
            // The worker holds its own plan against the device's memory; this is the host's part.
            Backend::Gpu => gpu_host_plan(log2_height, free),
            // A mock proof needs nothing.
            Backend::Mock => Ok(MemoryPlan { lde: LdeMode::Cached, bytes: 0 }),
        };
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
        match backend {
            Backend::Cpu => crate::memory::largest_log2_height(self.limit),
            Backend::Gpu => crate::memory::largest_gpu_log2_height(self.limit),
            Backend::Mock => crate::memory::MAX_LOG2_HEIGHT,
        }
    }

    /// Bytes that a job of `log2_height` takes while it is traced and its table filled ahead of the GPU.
    pub fn ahead_bytes(self, log2_height: u8) -> u64 {
        crate::memory::gpu_ahead_bytes(log2_height)
    }
}

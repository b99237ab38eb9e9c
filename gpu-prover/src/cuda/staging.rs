//! Page-locked buffers through which large tables reach the device at the bus' speed.
//!
//! The driver copies pageable memory at a fifth of that speed on one core. Page-locking the caller's tables would cost
//! more than the copy. So: a few buffers, filled by all cores while the one before is on the bus.

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result};
use rayon::prelude::*;

use super::arena::Region;
use super::device::driver;
use crate::error::GpuError;

/// Words of a buffer: 32 MiB.
const BUFFER: usize = 4 << 20;

/// Words that one core copies at a time.
const PIECE: usize = 1 << 17;

/// Number of buffers.
const COUNT: usize = 4;

#[derive(Debug)]
struct Buffer {
    memory: *mut u64,
    free: CudaEvent,
}

// SAFETY: the memory is owned, and reachable through `&mut Staging` alone.
unsafe impl Send for Buffer {}

/// The buffers of one device.
#[derive(Debug)]
pub(crate) struct Staging {
    context: Arc<CudaContext>,
    buffers: Vec<Buffer>,
    next: usize,
}

impl Staging {
    pub(crate) fn new(context: &Arc<CudaContext>, stream: &CudaStream) -> Result<Self, GpuError> {
        context.bind_to_thread().map_err(driver("binding the context"))?;
        let mut staging = Self { context: context.clone(), buffers: vec![], next: 0 };
        for _ in 0..COUNT {
            // SAFETY: freed once, when the staging is dropped.
            let memory = unsafe { result::malloc_host(8 * BUFFER, 0) }.map_err(driver("allocating pinned memory"))?;
            let free =
                stream.record_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING)).map_err(driver("recording an event"))?;
            staging.buffers.push(Buffer { memory: memory.cast(), free });
        }
        Ok(staging)
    }

    /// Copies `source` to the device in stream order. When this returns, `source` may change.
    pub(crate) fn upload(&mut self, stream: &CudaStream, target: Region<u64>, source: &[u64]) -> Result<(), GpuError> {
        assert_eq!(target.len(), source.len(), "upload of another length than the region");
        for (i, part) in source.chunks(BUFFER).enumerate() {
            let count = self.buffers.len();
            let buffer = &mut self.buffers[self.next];
            self.next = (self.next + 1) % count;
            buffer.free.synchronize().map_err(driver("waiting for a pinned buffer"))?;
            // SAFETY: the buffer has BUFFER words, nobody else has it, and the copy out of it has ended.
            let pinned = unsafe { std::slice::from_raw_parts_mut(buffer.memory, part.len()) };
            pinned.par_chunks_mut(PIECE).zip(part.par_chunks(PIECE)).for_each(|(to, from)| to.copy_from_slice(from));
            let region = target.slice(i * BUFFER, part.len());
            // SAFETY: the region has room; the buffer is not written before `free`, recorded next, has happened.
            unsafe { result::memcpy_htod_async(region.address(), pinned, stream.cu_stream()) }
                .map_err(driver("copying to the device"))?;
            buffer.free.record(stream).map_err(driver("recording an event"))?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            for buffer in &self.buffers {
                let _ = buffer.free.synchronize();
                // SAFETY: allocated in `new`, freed once, no copy is under way.
                let _ = unsafe { result::free_host(buffer.memory.cast()) };
            }
        }
    }
}

//! One allocation a device, cut up before the first launch.

use std::marker::PhantomData;
use std::mem::size_of;
use std::sync::Arc;

use cudarc::driver::{CudaContext, result};

use super::device::{Device, driver};
use crate::error::GpuError;

/// Regions begin at multiples of this many bytes: whole cache lines, and what vector loads need.
const ALIGNMENT: u64 = 256;

/// A typed region of an [`Arena`]. Copies are as free as pointers, and as dangerous: only launches in this module
/// dereference them, on the device, in stream order.
#[derive(Debug)]
pub struct Region<T> {
    address: u64,
    length: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for Region<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Region<T> {}

impl<T> Region<T> {
    /// Device address.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Elements `first .. first + length`.
    ///
    /// # Panics
    /// If they are not inside.
    #[must_use]
    pub fn slice(&self, first: usize, length: usize) -> Self {
        assert!(first + length <= self.length, "{first}+{length} elements of a region of {}", self.length);
        Self { address: self.address + (first * size_of::<T>()) as u64, length, of: PhantomData }
    }
}

/// A device's working memory. Handing out is bumping a pointer; [`Arena::clear`] takes all regions back.
#[derive(Debug)]
pub struct Arena {
    context: Arc<CudaContext>,
    base: u64,
    size: u64,
    used: u64,
}

impl Arena {
    /// Allocates `bytes`.
    ///
    /// # Errors
    /// If the device does not have them.
    pub fn new(device: &Device, bytes: u64) -> Result<Self, GpuError> {
        device.context().bind_to_thread().map_err(driver("binding the context"))?;
        // SAFETY: the memory belongs to this arena alone, which frees it once, when dropped.
        let base = unsafe { result::malloc_sync(bytes as usize) }.map_err(|error| match driver("allocating")(error) {
            GpuError::OutOfMemory { free, .. } => GpuError::OutOfMemory { requested: bytes, free },
            other => other,
        })?;
        Ok(Self { context: device.context().clone(), base, size: bytes, used: 0 })
    }

    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes handed out.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Takes all regions back.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// What is not handed out, as words.
    pub(crate) fn spare(&self) -> Region<u64> {
        let words = (self.size - self.used) / size_of::<u64>() as u64;
        Region { address: self.base + self.used, length: words as usize, of: PhantomData }
    }

    /// A region of `length` elements, uninitialized.
    ///
    /// # Errors
    /// If the plan that sized the arena forgot something.
    pub fn take<T>(&mut self, length: usize) -> Result<Region<T>, GpuError> {
        let bytes = padded::<T>(length);
        if self.used + bytes > self.size {
            return Err(GpuError::OutOfMemory { requested: bytes, free: self.size - self.used });
        }
        let region = Region { address: self.base + self.used, length, of: PhantomData };
        self.used += bytes;
        Ok(region)
    }
}

/// Bytes that a region of `length` elements takes.
pub fn padded<T>(length: usize) -> u64 {
    ((length * size_of::<T>()) as u64).next_multiple_of(ALIGNMENT)
}

impl Drop for Arena {
    fn drop(&mut self) {
        // A context that is lost has freed its memory already, and there is nobody left to tell.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: allocated in `new`, freed once; work that uses it has ended or ends with the context.
            let _ = unsafe { result::free_sync(self.base) };
        }
    }
}

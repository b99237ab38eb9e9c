//! One CUDA device: context, stream, loaded kernels, and the driver's errors as ours.

use std::collections::HashMap;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, CudaStream, DriverError, result};
use cudarc::nvrtc::Ptx;

use super::blob;
use crate::domain::NUM_COSETS;
use crate::error::GpuError;

/// The least CUDA version whose driver loads the kernels.
const NEEDED_CUDA: i32 = 12_000;

/// An open device with its kernels loaded. Work runs on one stream, in order, but for small cosets, which have one each.
#[derive(Debug)]
pub struct Device {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    lanes: Vec<Arc<CudaStream>>,
    modules: HashMap<&'static str, Arc<CudaModule>>,
    name: String,
    capability: (i32, i32),
    multiprocessors: u32,
}

/// The driver's error as ours.
pub(crate) fn driver(operation: &'static str) -> impl Fn(DriverError) -> GpuError {
    move |error| match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            let free = result::mem_get_info().map_or(0, |(free, _)| free as u64);
            GpuError::OutOfMemory { requested: 0, free }
        }
        // These leave the context unusable: the process must go.
        sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | sys::CUresult::CUDA_ERROR_LAUNCH_FAILED
        | sys::CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | sys::CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | sys::CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | sys::CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | sys::CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | sys::CUresult::CUDA_ERROR_INVALID_PC
        | sys::CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
        | sys::CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
        | sys::CUresult::CUDA_ERROR_ASSERT => GpuError::Kernel { kernel: operation, detail: describe(error) },
        _ => GpuError::Driver { operation, detail: describe(error) },
    }
}

fn describe(error: DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{}: {}", name.to_string_lossy(), text.to_string_lossy()),
        _ => format!("{:?}", error.0),
    }
}

impl Device {
    /// Opens device `ordinal` and loads all kernels.
    ///
    /// # Errors
    /// If there is no driver, no such device, the driver is too old, or the crate was built without kernels or without
    /// kernels for this device. Never panics for want of CUDA.
    pub fn open(ordinal: usize) -> Result<Self, GpuError> {
        let modules = blob::modules()?;
        let available = device_count()?;
        if ordinal >= available {
            return Err(GpuError::NoDevice { requested: ordinal, available });
        }
        let context = CudaContext::new(ordinal).map_err(driver("opening the device"))?;
        // SAFETY: all memory is owned by one arena and used on one stream; no buffer is shared across streams.
        unsafe { context.disable_event_tracking() };
        let name = context.name().map_err(driver("reading the device's name"))?;
        let capability = context.compute_capability().map_err(driver("reading the compute capability"))?;
        let multiprocessors = context
            .attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(driver("reading the number of multiprocessors"))? as u32;
        let stream = || context.new_stream().map_err(driver("making a stream"));
        let lanes = (0..NUM_COSETS).map(|_| stream()).collect::<Result<_, _>>()?;
        let stream = stream()?;
        let load = |module: blob::Module| match context.load_module(Ptx::from_binary(module.fatbin.to_vec())) {
            Ok(loaded) => Ok((module.name, loaded)),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU)) => {
                Err(GpuError::UnsupportedDevice { name: name.clone(), major: capability.0, minor: capability.1 })
            }
            Err(error) => Err(driver("loading kernels")(error)),
        };
        let modules = modules.into_iter().map(load).collect::<Result<_, _>>()?;
        Ok(Self { context, stream, lanes, modules, name, capability, multiprocessors })
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Compute capability, (major, minor).
    pub fn capability(&self) -> (i32, i32) {
        self.capability
    }

    /// Whether FP64 tensor cores run at full rate, as on data-centre devices.
    pub fn has_fast_fp64(&self) -> bool {
        matches!(self.capability, (8..=10, 0))
    }

    /// Number of multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    /// Free and total memory, in bytes.
    pub fn memory(&self) -> Result<(u64, u64), GpuError> {
        let (free, total) = self.context.mem_get_info().map_err(driver("reading the free memory"))?;
        Ok((free as u64, total as u64))
    }

    /// The stream that everything runs on.
    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// A stream beside it, for work on one coset while others are worked on.
    pub(crate) fn lane(&self, index: usize) -> &Arc<CudaStream> {
        &self.lanes[index % self.lanes.len()]
    }

    /// The context.
    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.context
    }

    /// A loaded module by its source file's name.
    pub(crate) fn module(&self, name: &'static str) -> Result<&Arc<CudaModule>, GpuError> {
        self.modules.get(name).ok_or(GpuError::NoKernels)
    }

    /// A kernel by its module's and its own name.
    pub(crate) fn function(&self, module: &'static str, name: &str) -> Result<CudaFunction, GpuError> {
        self.module(module)?.load_function(name).map_err(driver("finding a kernel"))
    }

    /// Waits until all work of the main stream has ended.
    pub fn synchronize(&self) -> Result<(), GpuError> {
        self.stream.synchronize().map_err(driver("waiting for the device"))
    }

    /// Waits until all work of proofs has ended, that of one which was given up included. Not for the whole context: the upload of
    /// another proof's table goes on.
    pub(crate) fn synchronize_all(&self) -> Result<(), GpuError> {
        self.lanes.iter().try_for_each(|lane| lane.synchronize()).map_err(driver("waiting for the device"))?;
        self.synchronize()
    }
}

/// How many devices the driver sees.
///
/// # Errors
/// If there is no driver, or it is too old.
pub fn device_count() -> Result<usize, GpuError> {
    // SAFETY: only looks for the library; with dynamic loading any other call would panic if it were missing.
    if !unsafe { sys::is_culib_present() } {
        return Err(GpuError::NoDriver { detail: "libcuda.so.1 cannot be loaded".into() });
    }
    result::init().map_err(|error| GpuError::NoDriver { detail: describe(error) })?;
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(driver("reading the driver's version"))?;
    if version < NEEDED_CUDA {
        let text = |v: i32| format!("{}.{}", v / 1000, v % 1000 / 10);
        return Err(GpuError::DriverTooOld { found: text(version), needed: text(NEEDED_CUDA) });
    }
    let count = result::device::get_count().map_err(driver("counting devices"))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

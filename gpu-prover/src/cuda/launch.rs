//! The kernels of this build as named, typed values, and the one place that launches them.

use std::ffi::c_void;

use cudarc::driver::sys::{CUevent_flags, CUfunction_attribute_enum as FunctionAttribute};
use cudarc::driver::{CudaEvent, CudaFunction, CudaStream, result};
use triton_vm::prelude::{BFieldElement, XFieldElement};

use super::air;
use super::arena::{Arena, Region};
use super::columns::Columns;
use super::device::{Device, driver};
use super::extend::ExtendKernels;
use super::ntt::{LOG_ROWS, max_tile_bytes};
use crate::error::GpuError;

/// An extension field element as kernels take it: raw Montgomery words.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct X(pub [u64; 3]);

impl From<XFieldElement> for X {
    fn from(x: XFieldElement) -> Self {
        Self(x.coefficients.map(|c| c.raw_u64()))
    }
}

/// A factor of extension field products as its matrix' entries: see `XMat` in `xfield.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct XMat(pub [u64; 7]);

impl From<XFieldElement> for XMat {
    fn from(x: XFieldElement) -> Self {
        let [w0, w1, w2] = x.coefficients;
        Self([w0, w1, w2, -w2, w0 + w2, -w1, w1 - w2].map(|w| w.raw_u64()))
    }
}

/// What a transform adds to its first coefficients while it loads them: see `Tail` in `ntt.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tail {
    pub values: u64,
    pub stride: u64,
    pub length: u64,
    pub factor: u64,
}

impl Tail {
    /// Nothing.
    pub(crate) const NONE: Self = Self { values: 0, stride: 0, length: 0, factor: 0 };

    /// Short coefficients that a coset's evaluation adds, times `factor`.
    pub(crate) fn of(values: Columns, factor: BFieldElement) -> Self {
        Self { values: values.address(), stride: values.stride(), length: values.rows() as u64, factor: factor.raw_u64() }
    }
}

/// What the rows pass of a transform is called with: see `RowsPass` in `ntt.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsPass {
    pub source: u64,
    pub source_stride: u64,
    pub target: u64,
    pub target_stride: u64,
    pub columns: u32,
    pub columns_per_block: u32,
    pub log_n: u32,
    pub log_width: u32,
    pub twiddles: u64,
    pub powers: u64,
    pub low: u64,
    pub high: u64,
    pub scale: u64,
}

/// Pointers to kernel arguments, in order. Types must be those of the kernel's parameters. Only for use inside a launch's
/// own statement: the arguments live no longer than that.
macro_rules! args {
    ($($argument:expr),* $(,)?) => { [$($crate::cuda::launch::argument(&$argument)),*] };
}
pub(crate) use args;

pub(crate) fn argument<T>(value: &T) -> *mut c_void {
    std::ptr::from_ref(value).cast_mut().cast()
}

/// All kernels, found once.
#[derive(Debug)]
pub(crate) struct Kernels {
    pub row_hash: CudaFunction,
    pub merkle_level: CudaFunction,
    pub merkle_top: CudaFunction,
    pub fri_leaves: CudaFunction,
    pub ntt_forward_contiguous: CudaFunction,
    /// For 2^4 rows and following.
    pub ntt_forward_rows: Vec<CudaFunction>,
    pub ntt_inverse_rows: Vec<CudaFunction>,
    pub ntt_inverse_contiguous: CudaFunction,
    pub split_coefficients: CudaFunction,
    pub add_scaled: CudaFunction,
    pub gather_rows: CudaFunction,
    pub gather_nodes: CudaFunction,
    pub combine_columns: CudaFunction,
    pub add_at_reversed: CudaFunction,
    pub reversed_powers: CudaFunction,
    pub evaluate_columns: CudaFunction,
    pub divide_by_zerofiers: CudaFunction,
    pub reconstruct_quotient: CudaFunction,
    pub randomize_segments: CudaFunction,
    pub deep_codeword: CudaFunction,
    pub fri_fold: CudaFunction,
    pub gather_codeword: CudaFunction,
    pub evaluate_points: CudaFunction,
    pub add_chunks: CudaFunction,
    pub fill_main_single: CudaFunction,
    pub fill_main_dual: CudaFunction,
    pub fill_aux_dual: CudaFunction,
    pub extend: ExtendKernels,
    pub air: air::AirKernels,
}

impl Kernels {
    /// Finds all kernels of the device's modules.
    ///
    /// # Errors
    /// If the build is incomplete.
    pub(crate) fn load(device: &Device) -> Result<Self, GpuError> {
        let form = if device.has_fast_fp64() { "dmma" } else { "plain" };
        let tip5 = |name: &str| device.function("tip5", &format!("{name}_{form}"));
        let ntt = |name: &str| {
            let function = device.function("ntt", name)?;
            function
                .set_attribute(FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, max_tile_bytes() as i32)
                .map_err(driver("raising the shared memory limit"))?;
            Ok::<_, GpuError>(function)
        };
        let table = |name: &str| device.function("table", name);
        let quotient = |name: &str| device.function("quotient", name);
        let fri = |name: &str| device.function("fri", name);
        Ok(Self {
            row_hash: tip5("row_hash")?,
            merkle_level: tip5("merkle_level")?,
            merkle_top: tip5("merkle_top")?,
            fri_leaves: device.function("tip5", "fri_leaves")?,
            ntt_forward_contiguous: ntt("ntt_forward_contiguous")?,
            ntt_forward_rows: LOG_ROWS.map(|s| ntt(&format!("ntt_forward_rows_{s}"))).collect::<Result<_, _>>()?,
            ntt_inverse_rows: LOG_ROWS.map(|s| ntt(&format!("ntt_inverse_rows_{s}"))).collect::<Result<_, _>>()?,
            ntt_inverse_contiguous: ntt("ntt_inverse_contiguous")?,
            split_coefficients: table("split_coefficients")?,
            add_scaled: table("add_scaled")?,
            gather_rows: table("gather_rows")?,
            gather_nodes: table("gather_nodes")?,
            combine_columns: table("combine_columns")?,
            add_at_reversed: table("add_at_reversed")?,
            reversed_powers: table("reversed_powers")?,
            evaluate_columns: table("evaluate_columns")?,
            divide_by_zerofiers: quotient("divide_by_zerofiers")?,
            reconstruct_quotient: quotient("reconstruct_quotient")?,
            randomize_segments: quotient("randomize_segments")?,
            deep_codeword: fri("deep_codeword")?,
            fri_fold: fri("fri_fold")?,
            gather_codeword: fri("gather_codeword")?,
            evaluate_points: device.function("open", "evaluate_points")?,
            add_chunks: device.function("open", "add_chunks")?,
            fill_main_single: device.function("fill_main_single", "fill_main_single")?,
            fill_main_dual: device.function("fill_main_dual", "fill_main_dual")?,
            fill_aux_dual: device.function("fill_aux_dual", "fill_aux_dual")?,
            extend: ExtendKernels::load(device)?,
            air: air::AirKernels::load(device)?,
        })
    }
}

/// Launches kernels and copies memory on one of a device's streams.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Launcher<'a> {
    device: &'a Device,
    stream: &'a CudaStream,
}

impl<'a> Launcher<'a> {
    /// A launcher for the calling thread.
    pub(crate) fn new(device: &'a Device) -> Result<Self, GpuError> {
        device.context().bind_to_thread().map_err(driver("binding the context"))?;
        Ok(Self { device, stream: device.stream() })
    }

    /// The same for another stream.
    pub(crate) fn on_lane(self, index: usize) -> Self {
        Self { stream: self.device.lane(index), ..self }
    }

    /// The place in the stream that work has been enqueued up to.
    pub(crate) fn mark(&self) -> Result<CudaEvent, GpuError> {
        self.stream.record_event(Some(CUevent_flags::CU_EVENT_DISABLE_TIMING)).map_err(driver("recording an event"))
    }

    /// Lets what is enqueued from now on wait for a place in another stream.
    pub(crate) fn wait(&self, mark: &CudaEvent) -> Result<(), GpuError> {
        self.stream.wait(mark).map_err(driver("making a stream wait"))
    }

    pub(crate) fn device(&self) -> &'a Device {
        self.device
    }

    pub(crate) fn multiprocessors(&self) -> u32 {
        self.device.multiprocessors()
    }

    /// Blocks for `items` items of one thread each, in kernels that stride over the grid.
    pub(crate) fn blocks(&self, items: usize, threads: u32) -> (u32, u32) {
        let wanted = items.div_ceil(threads as usize).min(32 * self.multiprocessors() as usize);
        (wanted.max(1) as u32, 1)
    }

    /// Enqueues a kernel. `arguments` must match the kernel's parameters in number, order and type, and what they
    /// point to on the device must be as large as the kernel expects: the typed callers in this module assert that.
    pub(crate) fn launch(
        &self,
        name: &'static str,
        function: &CudaFunction,
        grid: (u32, u32),
        threads: u32,
        shared: u32,
        arguments: &mut [*mut c_void],
    ) -> Result<(), GpuError> {
        // SAFETY: see above; the stream's context is bound to this thread.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                (grid.0, grid.1, 1),
                (threads, 1, 1),
                shared,
                self.stream.cu_stream(),
                arguments,
            )
        }
        .map_err(|error| match driver(name)(error) {
            GpuError::Driver { operation, detail } => GpuError::Kernel { kernel: operation, detail },
            other => other,
        })
    }

    /// Median milliseconds of `work` on the device over `runs` runs, after one to warm up.
    pub(crate) fn time(&self, runs: usize, work: &dyn Fn() -> Result<(), GpuError>) -> Result<f64, GpuError> {
        let stream = self.stream;
        let mark = || stream.record_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(driver("recording an event"));
        work()?;
        let mut times = vec![];
        for _ in 0..runs {
            let begin = mark()?;
            work()?;
            let end = mark()?;
            times.push(f64::from(begin.elapsed_ms(&end).map_err(driver("timing"))?));
        }
        times.sort_by(f64::total_cmp);
        Ok(times[runs / 2])
    }

    /// Copies to the device.
    pub(crate) fn upload<T: Copy>(&self, target: Region<T>, source: &[T]) -> Result<(), GpuError> {
        assert_eq!(target.len(), source.len(), "upload of another length than the region");
        // SAFETY: the region has room; the driver has staged pageable memory when the call returns, and `source` is
        // never page-locked memory that could change before the copy.
        unsafe { result::memcpy_htod_async(target.address(), source, self.stream.cu_stream()) }
            .map_err(driver("copying to the device"))
    }

    /// Takes a region and copies to it.
    pub(crate) fn upload_new<T: Copy>(&self, arena: &mut Arena, source: &[T]) -> Result<Region<T>, GpuError> {
        let region = arena.take(source.len())?;
        self.upload(region, source)?;
        Ok(region)
    }

    /// Copies from the device, when all work before has ended.
    pub(crate) fn download<T: Copy + Default>(&self, source: Region<T>) -> Result<Vec<T>, GpuError> {
        let mut target = vec![T::default(); source.len()];
        // SAFETY: both sides have this many elements; the stream is waited for before `target` is read.
        unsafe { result::memcpy_dtoh_async(&mut target, source.address(), self.stream.cu_stream()) }
            .map_err(driver("copying from the device"))?;
        self.stream.synchronize().map_err(driver("waiting for the device"))?;
        Ok(target)
    }

    /// Fills a region with zero bytes.
    pub(crate) fn clear<T>(&self, target: Region<T>) -> Result<(), GpuError> {
        let bytes = target.len() * size_of::<T>();
        // SAFETY: the region has this many bytes.
        unsafe { result::memset_d8_async(target.address(), 0, bytes, self.stream.cu_stream()) }
            .map_err(driver("clearing memory"))
    }
}

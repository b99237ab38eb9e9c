//! What can be known of driver, devices and kernels without opening a device: for whoever chooses one, and for whoever
//! wants to know why none is chosen.

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};
use cudarc::driver::{DriverError, result};

use super::blob;
use super::device::{Device, device_count, driver};
use crate::error::GpuError;

/// A device as the driver lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its number among the devices that the driver shows.
    pub ordinal: usize,
    /// The model.
    pub name: String,
    /// `GPU-…`, or `MIG-…` for a part of one; what `CUDA_VISIBLE_DEVICES` takes and other tools of the vendor show.
    pub uuid: String,
    /// Compute capability, (major, minor).
    pub capability: (i32, i32),
    /// Bytes of memory in all.
    pub memory: u64,
}

/// All devices that the driver shows, without making a context on any.
///
/// # Errors
/// If there is no driver, or it is too old.
pub fn devices() -> Result<Vec<DeviceFacts>, GpuError> {
    (0..device_count()?).map(|ordinal| facts(ordinal).map_err(driver("asking for a device's properties"))).collect()
}

fn facts(ordinal: usize) -> Result<DeviceFacts, DriverError> {
    let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))?;
    // SAFETY: `device` comes from `device::get`.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }? as u64;
    let name = result::device::get_name(device)?;
    let uuid = uuid_text(&name, result::device::get_uuid(device)?.bytes.map(|byte| byte as u8));
    Ok(DeviceFacts { ordinal, name, uuid, capability, memory })
}

/// A UUID as the vendor's tools write it. The driver names a part of a device after it: `NVIDIA H100 MIG 1g.10gb`.
fn uuid_text(name: &str, bytes: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    let kind = if name.contains(" MIG ") { "MIG" } else { "GPU" };
    format!("{kind}-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The CUDA version that the driver supports, such as `13.0`; `None` without a driver.
pub fn driver_cuda_version() -> Option<String> {
    // SAFETY: only looks for the library; with dynamic loading any other call would panic if it were missing.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    let mut version = 0;
    // SAFETY: writes one integer; may be called before `cuInit`.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
    Some(format!("{}.{}", version / 1000, version % 1000 / 10))
}

/// Whether this build has kernels at all.
pub fn has_kernels() -> bool {
    blob::modules().is_ok()
}

/// The architectures that this build has machine code for, such as `90a`; newer devices run the last one's PTX. Empty
/// without kernels.
pub fn kernel_architectures() -> Vec<&'static str> {
    let archs = option_env!("GPU_PROVER_EMBEDDED_ARCHS").unwrap_or_default();
    if has_kernels() { archs.split(',').map(str::trim).filter(|arch| !arch.is_empty()).collect() } else { Vec::new() }
}

impl Device {
    /// The UUID, as [`DeviceFacts::uuid`].
    ///
    /// # Errors
    /// Those of the driver.
    pub fn uuid(&self) -> Result<String, GpuError> {
        let uuid = self.context().uuid().map_err(driver("reading the device's UUID"))?;
        Ok(uuid_text(self.name(), uuid.bytes.map(|byte| byte as u8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_written_as_the_tools_write_them() {
        let bytes = [0x1f, 0x2e, 0x3d, 0x4c, 0x5b, 0x6a, 0x79, 0x88, 0x97, 0xa6, 0xb5, 0xc4, 0xd3, 0xe2, 0xf1, 0x00];
        assert_eq!(uuid_text("NVIDIA H100 80GB HBM3", bytes), "GPU-1f2e3d4c-5b6a-7988-97a6-b5c4d3e2f100");
        assert!(uuid_text("NVIDIA H100 80GB HBM3 MIG 1g.10gb", bytes).starts_with("MIG-1f2e3d4c-"));
    }

    #[test]
    fn kernels_and_their_architectures_come_together() {
        assert_eq!(has_kernels(), !kernel_architectures().is_empty());
    }

    #[test]
    fn asking_never_panics() {
        match devices() {
            Ok(devices) => assert!(driver_cuda_version().is_some(), "{devices:?}"),
            Err(error) => assert!(error.to_string().contains(':'), "the message names a remedy: {error}"),
        }
    }
}

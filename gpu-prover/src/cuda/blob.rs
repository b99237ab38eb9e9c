//! The compiled kernels, embedded by `build.rs`.

use crate::error::GpuError;

static KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.bin"));

static RESOURCES: &str = include_str!(concat!(env!("OUT_DIR"), "/kernel_resources.txt"));

/// What a kernel takes on one architecture, as ptxas reported it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    /// The kernel's name.
    pub kernel: &'static str,
    /// For example `sm_90a`.
    pub architecture: &'static str,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of a thread that do not fit into registers.
    pub spilled_bytes: u32,
}

/// Registers and spills of all kernels of this build; nothing if it was built without nvcc.
pub fn resources() -> Vec<Resources> {
    let line = |line: &'static str| {
        let mut words = line.split(' ');
        Some(Resources {
            kernel: words.next()?,
            architecture: words.next()?,
            registers: words.next()?.parse().ok()?,
            spilled_bytes: words.next()?.parse().ok()?,
        })
    };
    RESOURCES.lines().filter_map(line).collect()
}

/// One fatbin and the name of the file it was compiled from, without extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// Name of the source file.
    pub name: &'static str,
    /// What the driver loads.
    pub fatbin: &'static [u8],
}

/// All modules of this build.
///
/// # Errors
/// [`GpuError::NoKernels`] if the crate was built without nvcc.
pub fn modules() -> Result<Vec<Module>, GpuError> {
    parse(KERNELS).filter(|modules| !modules.is_empty()).ok_or(GpuError::NoKernels)
}

/// Count, then for each: name length, name, data length, data; lengths are u32 little-endian.
fn parse(mut blob: &'static [u8]) -> Option<Vec<Module>> {
    fn number(blob: &mut &'static [u8]) -> Option<usize> {
        let (bytes, rest) = blob.split_first_chunk::<4>()?;
        *blob = rest;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    }
    fn bytes(blob: &mut &'static [u8]) -> Option<&'static [u8]> {
        let length = number(blob)?;
        let (bytes, rest) = blob.split_at_checked(length)?;
        *blob = rest;
        Some(bytes)
    }
    let count = number(&mut blob)?;
    let module = |blob: &mut _| Some(Module { name: std::str::from_utf8(bytes(blob)?).ok()?, fatbin: bytes(blob)? });
    (0..count).map(|_| module(&mut blob)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gives_its_modules_in_order() {
        let blob = b"\x02\0\0\0\x01\0\0\0a\x02\0\0\0xy\x02\0\0\0bc\0\0\0\0";
        let modules = parse(blob).expect("the container is whole");
        assert_eq!(modules[0], Module { name: "a", fatbin: b"xy" });
        assert_eq!(modules[1], Module { name: "bc", fatbin: b"" });
    }

    #[test]
    fn a_cut_container_is_refused() {
        assert_eq!(parse(b"\x02\0\0\0\x01\0\0\0a\x02\0\0\0x"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_build_has_all_kernels_or_none() {
        match modules() {
            Ok(modules) => assert!(modules.iter().any(|m| m.name == "tip5") && modules.len() > 20),
            Err(error) => assert!(matches!(error, GpuError::NoKernels)),
        }
    }
}

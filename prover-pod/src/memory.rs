//! How much memory a CPU proof takes, and how much there is.

use std::fs;
use std::path::Path;

/// Whether the low-degree extension of the trace is kept or recomputed (`TVM_LDE_TRACE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LdeMode {
    /// Kept: faster, four times the memory.
    Cached,
    /// Recomputed coset by coset.
    JustInTime,
}

/// What a proof will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// How to prove.
    pub lde: LdeMode,
    /// Peak resident bytes of the proof.
    pub bytes: u64,
}

/// The job does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not fit into memory; the largest log2 padded height that does is {largest}")]
pub struct TooBig {
    /// Largest log2 padded height that fits.
    pub largest: u8,
}

/// Peak bytes per padded row with the extension kept. Measured with triton-vm 9.0.1: 54.4 KB at 2^20 (53.1 GiB).
const CACHED_BYTES_PER_ROW: u64 = 55_000;

/// Peak bytes per padded row with the extension recomputed. Measured: 12.6 KB at 2^22 (49.2 GiB), 14.0 KB at 2^21.
const JUST_IN_TIME_BYTES_PER_ROW: u64 = 14_500;

/// Peak bytes of the host per padded row while the GPU proves, from what it holds: the 149 original columns of the main table
/// twice (the second time to extend from), the 49 original ones of the auxiliary table, of 24 bytes an element, and randomizers.
const GPU_HOST_BYTES_PER_ROW: u64 = 2 * 149 * 8 + 49 * 24 + 200;

/// Peak bytes of the host per padded row while a job is traced and its main table filled for the GPU, from what it holds: the
/// table, the records that it is filled from (270 bytes where all tables are as high as the highest), and those of the memory
/// tables once more, sorted.
const GPU_AHEAD_BYTES_PER_ROW: u64 = 149 * 8 + 700;

/// What a GPU worker takes of the host beside its jobs: code, kernels, the driver's context, page-locked buffers, and at most
/// 2 GiB of traces from inspections.
pub const GPU_WORKER_BYTES: u64 = 3 << 30;

/// What a worker takes beside the rows: code, thread stacks, the job itself.
const BASE_BYTES: u64 = 96 << 20;

/// What a job of a GPU worker takes beside its rows: the decoded job, thread stacks.
const JOB_BYTES: u64 = 64 << 20;

/// The proof system's own limit: log2 padded heights are below 30 (proof version 8).
pub const MAX_LOG2_HEIGHT: u8 = 29;

/// Peak resident bytes of a proof of `2^log2_height` padded rows.
pub fn proof_bytes(log2_height: u8, lde: LdeMode) -> u64 {
    let per_row = match lde {
        LdeMode::Cached => CACHED_BYTES_PER_ROW,
        LdeMode::JustInTime => JUST_IN_TIME_BYTES_PER_ROW,
    };
    // Below 2^9 the trace domain stays at 512 rows: it must hold the randomizers.
    BASE_BYTES + (per_row << log2_height.clamp(9, 40))
}

/// Peak bytes of the host while a GPU proves `2^log2_height` padded rows.
pub fn gpu_host_bytes(log2_height: u8) -> u64 {
    JOB_BYTES + (GPU_HOST_BYTES_PER_ROW << log2_height.clamp(9, 40))
}

/// Peak bytes of the host while a job of `2^log2_height` padded rows is traced and its table filled ahead of a GPU.
pub fn gpu_ahead_bytes(log2_height: u8) -> u64 {
    JOB_BYTES + (GPU_AHEAD_BYTES_PER_ROW << log2_height.clamp(9, 40))
}

/// Whether the host's part of a GPU proof of `2^log2_height` rows fits into `free_bytes`.
///
/// # Errors
/// [`TooBig`], with the largest height that would fit.
pub fn gpu_host_plan(log2_height: u8, free_bytes: u64) -> Result<MemoryPlan, TooBig> {
    let bytes = gpu_host_bytes(log2_height);
    if log2_height <= MAX_LOG2_HEIGHT && bytes <= free_bytes {
        return Ok(MemoryPlan { lde: LdeMode::Cached, bytes });
    }
    Err(TooBig { largest: largest_gpu_log2_height(free_bytes) })
}

/// Largest log2 padded height whose host part of a GPU proof fits into `free` bytes; 0 when none does.
pub fn largest_gpu_log2_height(free: u64) -> u8 {
    (0..=MAX_LOG2_HEIGHT).rev().find(|&h| gpu_host_bytes(h) <= free).unwrap_or(0)
}

/// Largest log2 padded height that fits into `free` bytes in any mode; 0 when none does.
pub fn largest_log2_height(free: u64) -> u8 {
    (0..=MAX_LOG2_HEIGHT).rev().find(|&h| proof_bytes(h, LdeMode::JustInTime) <= free).unwrap_or(0)
}

/// Whether and how a proof of `2^log2_height` rows fits into `free_bytes`. `frugal` never chooses the cached mode.
///
/// # Errors
/// [`TooBig`], with the largest height that would fit.
pub fn memory_plan(log2_height: u8, free_bytes: u64, frugal: bool) -> Result<MemoryPlan, TooBig> {
    let modes: &[LdeMode] = if frugal { &[LdeMode::JustInTime] } else { &[LdeMode::Cached, LdeMode::JustInTime] };
    modes
        .iter()
        .map(|&lde| MemoryPlan { lde, bytes: proof_bytes(log2_height, lde) })
        .find(|plan| log2_height <= MAX_LOG2_HEIGHT && plan.bytes <= free_bytes)
        .ok_or_else(|| TooBig { largest: largest_log2_height(free_bytes) })
}

/// Bytes that this process and its children may still take: what the control group leaves, or the host, whichever is less.
/// Page cache counts as free. `None` where nothing tells.
pub fn available_bytes() -> Option<u64> {
    let host = host_available(&fs::read_to_string("/proc/meminfo").ok()?);
    let group = cgroup_available(Path::new("/sys/fs/cgroup"));
    match (host, group) {
        (Some(host), Some(group)) => Some(host.min(group)),
        (one, other) => one.or(other),
    }
}

fn host_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// In a container the process's own group is mounted at the root, in version 2 and 1 alike. On a host the root has no limit
/// file, and there the host's memory decides.
fn cgroup_available(root: &Path) -> Option<u64> {
    let read = |name: &str| -> Option<u64> { fs::read_to_string(root.join(name)).ok()?.trim().parse().ok() };
    let cache = |name: &str, key: &str| -> u64 {
        let stat = fs::read_to_string(root.join(name)).unwrap_or_default();
        stat.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
    };
    let (limit, used, cache) = if let Some(limit) = read("memory.max") {
        (limit, read("memory.current")?, cache("memory.stat", "inactive_file "))
    } else {
        let limit = read("memory/memory.limit_in_bytes")?;
        (limit, read("memory/memory.usage_in_bytes")?, cache("memory/memory.stat", "total_inactive_file "))
    };
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A plan fits, the modes are ordered, and more memory never makes a job inadmissible.
        #[test]
        fn plans_fit_and_grow_with_memory(height in 0u8..=40, free in 0u64..1 << 44, more in 0u64..1 << 40, frugal: bool) {
            match memory_plan(height, free, frugal) {
                Ok(plan) => {
                    prop_assert!(plan.bytes <= free);
                    prop_assert_eq!(plan.bytes, proof_bytes(height, plan.lde));
                    prop_assert!(!frugal || plan.lde == LdeMode::JustInTime);
                    prop_assert!(memory_plan(height, free + more, frugal).is_ok());
                    // The cached mode is chosen whenever it fits.
                    prop_assert_eq!(plan.lde == LdeMode::Cached, !frugal && proof_bytes(height, LdeMode::Cached) <= free);
                }
                Err(TooBig { largest }) => {
                    prop_assert!(height > largest || largest == 0);
                    prop_assert!(largest == 0 || memory_plan(largest, free, frugal).is_ok());
                    prop_assert!(largest == MAX_LOG2_HEIGHT || proof_bytes(largest + 1, LdeMode::JustInTime) > free);
                }
            }
        }
    }

    /// The measured peaks of the CPU prover (docs/benchmarks.md) are inside the plan, and not by more than a fifth.
    #[test]
    fn plan_covers_the_measured_peaks() {
        let gib = |x: f64| (x * f64::from(1 << 30)) as u64;
        for (height, lde, measured) in [
            (20, LdeMode::Cached, gib(53.1)),
            (18, LdeMode::Cached, gib(13.5)),
            (16, LdeMode::Cached, gib(3.4)),
            (21, LdeMode::JustInTime, gib(28.0)),
            (22, LdeMode::JustInTime, gib(49.2)),
        ] {
            let planned = proof_bytes(height, lde);
            assert!(planned >= measured, "2^{height}: planned {planned} < measured {measured}");
            assert!(planned < measured + measured / 5, "2^{height}: planned {planned}, measured {measured}");
        }
    }

    #[test]
    fn meminfo_and_cgroups_are_read() {
        assert_eq!(host_available("MemTotal: 5 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(host_available("garbage"), None);
        let dir = tempfile::tempdir().expect("temporary directory");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("has a parent")).expect("create");
            fs::write(path, text).expect("write");
        };
        assert_eq!(cgroup_available(dir.path()), None);
        write("memory/memory.limit_in_bytes", "1000\n");
        write("memory/memory.usage_in_bytes", "700\n");
        write("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 200\n");
        assert_eq!(cgroup_available(dir.path()), Some(500));
        write("memory.max", "max\n");
        assert_eq!(cgroup_available(dir.path()), Some(500), "an unlimited v2 group says nothing");
        write("memory.max", "5000\n");
        write("memory.current", "3000\n");
        write("memory.stat", "anon 1\ninactive_file 1000\n");
        assert_eq!(cgroup_available(dir.path()), Some(3000));
    }
}

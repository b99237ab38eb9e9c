//! `prover-pod doctor`: why the GPU is or is not used, in plain words.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gpu_prover::cuda::facts::{self, DeviceFacts};
use gpu_prover::error::GpuError;
use gpu_prover::workloads;
use prover_api::{GpuInfo, ProverJob};
use serde::Serialize;

use super::nvml;
use crate::memory::{LdeMode, available_bytes, largest_gpu_log2_height, largest_log2_height};
use crate::worker::{Cancelled, GpuBackend, Limits, ProverBackend, self_test_claim};

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Nothing that keeps the GPU from being used.
    Note,
    /// This keeps the GPU from being used.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub says: String,
}

/// One proof of one height.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeightReport {
    /// log2 of the padded height.
    pub log2_padded_height: u8,
    /// How it fits into the device's memory.
    pub plan: String,
    /// Seconds of a warm, verified proof made just now, from the filled table on; absent where none was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Whether a pod here proves on a GPU.
    pub gpu_is_usable: bool,
    /// All checks, in the order in which one depends on the other.
    pub checks: Vec<Check>,
    /// The device that was tried: the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<GpuInfo>,
    /// What it can prove.
    pub heights: Vec<HeightReport>,
}

/// Looks at everything, and proves on the first device heights up to 2^`prove_up_to`.
pub fn examine(prove_up_to: u8) -> Report {
    let mut checks =
        vec![kernels(), driver_library(), device_files(Path::new("/dev")), visible(), nvml_and_mig(), host_memory()];
    let devices = match facts::devices() {
        Ok(devices) => devices,
        Err(error) => {
            // Without a driver that was said already.
            if !matches!(error, GpuError::NoDriver { .. }) || facts::driver_cuda_version().is_some() {
                checks.push(bad("devices", error.to_string()));
            }
            return conclude(checks, None, Vec::new());
        }
    };
    checks.extend(device_checks(&devices));
    if devices.is_empty() {
        return conclude(checks, None, Vec::new());
    }
    let started = Instant::now();
    match GpuBackend::open(1, Limits::default()) {
        Ok(backend) => {
            checks.push(ok("open", format!("context and kernels ready in {:.1} s", started.elapsed().as_secs_f64())));
            let check = self_test(&backend);
            let heights = if check.verdict == Verdict::Ok { heights(&backend, prove_up_to) } else { Vec::new() };
            checks.push(check);
            conclude(checks, backend.facts().gpu, heights)
        }
        Err(error) => {
            checks.push(bad("open", error.to_string()));
            conclude(checks, None, Vec::new())
        }
    }
}

fn conclude(checks: Vec<Check>, device: Option<GpuInfo>, heights: Vec<HeightReport>) -> Report {
    let gpu_is_usable = checks.iter().all(|check| check.verdict != Verdict::Bad) && device.is_some();
    Report { gpu_is_usable, checks, device, heights }
}

fn ok(name: &'static str, says: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Ok, says: says.into() }
}

fn note(name: &'static str, says: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Note, says: says.into() }
}

fn bad(name: &'static str, says: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Bad, says: says.into() }
}

fn kernels() -> Check {
    let archs = facts::kernel_architectures();
    if archs.is_empty() {
        return bad("kernels", GpuError::NoKernels.to_string());
    }
    let list: Vec<String> = archs.iter().map(|arch| format!("sm_{arch}")).collect();
    ok("kernels", format!("this build has machine code for {}, and PTX for devices that are newer", list.join(", ")))
}

fn driver_library() -> Check {
    match facts::driver_cuda_version() {
        Some(version) => ok("driver", format!("libcuda.so.1 is there and supports CUDA {version}")),
        None => bad("driver", GpuError::NoDriver { detail: "libcuda.so.1 cannot be loaded".to_owned() }.to_string()),
    }
}

/// The device files that the driver needs, and whether this user may use them.
fn device_files(dev: &Path) -> Check {
    let entries = std::fs::read_dir(dev).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_gpu = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let gpus: Vec<PathBuf> = entries.filter(is_gpu).collect();
    let needed = [dev.join("nvidiactl"), dev.join("nvidia-uvm")];
    let missing: Vec<String> = needed.iter().filter(|path| !path.exists()).map(|path| path.display().to_string()).collect();
    if gpus.is_empty() {
        // Some systems, such as WSL, have the driver and no such files: whether devices are there is asked of the driver.
        return note(
            "device files",
            format!("there is no {}/nvidia0: outside of a container the driver is not loaded", dev.display()),
        );
    }
    if !missing.is_empty() {
        let missing = missing.join(" and ");
        return bad(
            "device files",
            format!("{missing} missing: run `nvidia-modprobe -u -c 0`, or let the container toolkit mount it"),
        );
    }
    let denied = |path: &&PathBuf| {
        nix::unistd::access(path.as_path(), nix::unistd::AccessFlags::R_OK | nix::unistd::AccessFlags::W_OK).is_err()
    };
    let denied: Vec<String> = needed.iter().chain(&gpus).filter(denied).map(|path| path.display().to_string()).collect();
    if denied.is_empty() {
        return ok("device files", format!("{} GPU device files, all of them open to this user", gpus.len()));
    }
    bad("device files", format!("this user may not read and write {}: add it to the group that owns them", denied.join(", ")))
}

fn visible() -> Check {
    match std::env::var("CUDA_VISIBLE_DEVICES") {
        Err(_) => ok("CUDA_VISIBLE_DEVICES", "not set: all devices are shown"),
        Ok(text) => match super::devices::parse_visible(&text) {
            devices if devices.is_empty() => {
                bad("CUDA_VISIBLE_DEVICES", format!("{text:?} hides all devices: name one, or unset it"))
            }
            devices => ok("CUDA_VISIBLE_DEVICES", format!("{text:?}: {} shown", devices.len())),
        },
    }
}

fn nvml_and_mig() -> Check {
    let Some(version) = nvml::driver_version() else {
        return note(
            "NVML",
            "libnvidia-ml.so.1 cannot be used: proofs work, but there are no metrics of memory, temperature and power",
        );
    };
    match nvml::parts().as_slice() {
        [] => ok("NVML", format!("driver {version}; no GPU is cut up by MIG")),
        parts => ok("NVML", format!("driver {version}; MIG devices, a worker each: {}", parts.join(", "))),
    }
}

fn host_memory() -> Check {
    match available_bytes() {
        None => note("host memory", "cannot tell how much there is; give `serve` --memory-limit"),
        Some(free) => {
            let gib = free as f64 / f64::from(1 << 30);
            let (gpu, cpu) = (largest_gpu_log2_height(free), largest_log2_height(free));
            ok(
                "host memory",
                format!(
                    "{gib:.1} GiB free: enough for the host's part of GPU proofs to 2^{gpu}, and for CPU proofs to 2^{cpu}"
                ),
            )
        }
    }
}

fn device_checks(devices: &[DeviceFacts]) -> Vec<Check> {
    if devices.is_empty() {
        return vec![bad(
            "devices",
            "the driver shows no device: check that a GPU is installed, or that the container asks for one",
        )];
    }
    let describe = |device: &DeviceFacts| {
        let DeviceFacts { ordinal, name, uuid, capability: (major, minor), memory } = device;
        let gib = *memory as f64 / f64::from(1 << 30);
        let says = format!("{ordinal}: {name}, compute capability {major}.{minor}, {gib:.1} GiB, {uuid}");
        if *major < 8 { bad("device", format!("{says}: too old, 8.0 is needed")) } else { ok("device", says) }
    };
    devices.iter().map(describe).collect()
}

fn self_test(backend: &GpuBackend) -> Check {
    let started = Instant::now();
    let proof = match backend.self_test() {
        Ok(proof) => proof,
        Err(failure) => return bad("self-test", format!("no proof: {failure:?}")),
    };
    let seconds = started.elapsed().as_secs_f64();
    match prover_api::proof::verify(&self_test_claim(), &proof) {
        Ok(()) => ok("self-test", format!("a proof in {seconds:.2} s, the first one and cold; it verifies")),
        Err(error) => bad("self-test", format!("{error}: take the device out of service and run its memory tests")),
    }
}

/// The plan of each height, and the time of proofs made now.
fn heights(backend: &GpuBackend, prove_up_to: u8) -> Vec<HeightReport> {
    let plans = backend.facts().gpu.map(|gpu| gpu.plans).unwrap_or_default();
    let host = available_bytes().map_or(u8::MAX, largest_gpu_log2_height);
    let report = |plan: prover_api::HeightPlan| {
        let log2 = plan.log2_padded_height;
        let seconds = (log2 <= prove_up_to.min(host)).then(|| time(backend, log2)).flatten();
        HeightReport { log2_padded_height: log2, plan: plan.plan, seconds }
    };
    plans.into_iter().map(report).collect()
}

/// Seconds of the second of two proofs, if both verify.
fn time(backend: &GpuBackend, log2_height: u8) -> Option<f64> {
    let body = spin(log2_height)?;
    let claim = ProverJob::from_json(&body).ok()?.claim;
    let nobody = Cancelled::default();
    let mut seconds = None;
    for _ in 0..2 {
        let traced = backend.trace(&body, &nobody).ok()?;
        let started = Instant::now();
        let proof = traced.prove(LdeMode::Cached, &nobody, &|_, _| {}).ok()?;
        seconds = Some(started.elapsed().as_secs_f64());
        prover_api::proof::verify(&claim, &proof).ok()?;
    }
    seconds
}

/// A job of that height as callers send it; `None` below the least height.
pub(super) fn spin(log2_height: u8) -> Option<Vec<u8>> {
    let workload = workloads::spin(u32::from(log2_height));
    let job = ProverJob::new(
        workload.program.clone(),
        // The count-down writes nothing.
        triton_vm::prelude::Claim::about_program(&workload.program).with_input(workload.public_input.individual_tokens.clone()),
        workload.non_determinism,
    );
    job.to_json().ok()
}

/// The report for people.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    for Check { name, verdict, says } in &report.checks {
        let mark = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Note => "note",
            Verdict::Bad => "BAD ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{mark} {name}: {says}");
    }
    if !report.heights.is_empty() {
        let _ = writeln!(text, "\n {:>11}  {:<22} {:>9}", "LOG2 HEIGHT", "PLAN", "SECONDS");
        for HeightReport { log2_padded_height, plan, seconds } in &report.heights {
            let seconds = seconds.map_or("not tried".to_owned(), |seconds| format!("{seconds:.3}"));
            let _ = writeln!(text, " {log2_padded_height:>11}  {plan:<22} {seconds:>9}");
        }
    }
    let verdict = if report.gpu_is_usable {
        "The GPU is usable: `prover-pod serve` proves on it."
    } else {
        "The GPU is not used: `prover-pod serve` proves on the CPU. What is marked BAD says why."
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_cuda_gets_reasons_and_no_panic() {
        let report = examine(0);
        let text = text(&report);
        if facts::driver_cuda_version().is_none() {
            assert!(!report.gpu_is_usable && report.heights.is_empty());
            assert!(text.contains("BAD  driver: no CUDA driver was found"), "{text}");
            assert!(text.contains("proves on the CPU"), "{text}");
        }
        let json = serde_json::to_value(&report).expect("serializes");
        assert_eq!(json["gpu_is_usable"], report.gpu_is_usable);
        assert_eq!(json["checks"].as_array().map(Vec::len), Some(report.checks.len()));
    }

    #[test]
    fn device_files_are_looked_at_one_by_one() {
        let dev = tempfile::tempdir().expect("temporary directory");
        let check = || device_files(dev.path());
        assert_eq!(check().verdict, Verdict::Note);
        let touch = |name: &str| std::fs::write(dev.path().join(name), "").expect("writes");
        touch("nvidia0");
        touch("nvidiactl");
        touch("nvidia-caps");
        let missing = check();
        assert!(missing.verdict == Verdict::Bad && missing.says.contains("nvidia-uvm"), "{missing:?}");
        touch("nvidia-uvm");
        let fine = check();
        assert!(fine.verdict == Verdict::Ok && fine.says.starts_with("1 GPU"), "{fine:?}");
    }

    #[test]
    fn jobs_to_time_have_the_height_they_say() {
        for log2 in [8, 10, 13] {
            let body = spin(log2).expect("is a job");
            let height = crate::worker::CpuBackend::default().inspect(&body, &Cancelled::default());
            assert_eq!(height, Ok(log2));
        }
    }
}

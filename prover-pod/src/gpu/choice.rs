//! Whether a pod proves on GPUs, and on which.

use super::devices::{VisibleDevice, choose};
use super::nvml;

/// The backend that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendChoice {
    /// The GPU where this build and this host have all that it takes, else the CPU.
    Auto,
    /// The host's cores.
    Cpu,
    /// CUDA devices.
    Gpu,
    /// No proofs: the mock networks.
    Mock,
}

impl BackendChoice {
    /// The name in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Mock => "mock",
        }
    }
}

/// What this host and this build have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The devices that the driver shows to this process, or why it shows none; the text says what to do.
    pub devices: Result<usize, String>,
    /// Why this build cannot use them, if it cannot.
    pub no_kernels: Option<String>,
    /// Names of MIG devices, where the host's GPUs are cut up.
    pub parts: Vec<String>,
}

impl Probe {
    /// Asks driver and NVML. Makes no context on any device.
    pub fn look() -> Self {
        let no_kernels = (!gpu_prover::cuda::facts::has_kernels()).then(|| gpu_prover::error::GpuError::NoKernels.to_string());
        let devices = gpu_prover::cuda::device_count().map_err(|error| error.to_string());
        let parts = if devices.is_ok() { nvml::parts() } else { Vec::new() };
        Self { devices, no_kernels, parts }
    }
}

/// How to prove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// On the host's cores; with the reason where GPUs were looked for.
    Cpu(Option<String>),
    /// On these devices.
    Gpu(Vec<VisibleDevice>),
    /// Not at all.
    Mock,
}

/// Decides from what was asked for and what there is. `visible` is `CUDA_VISIBLE_DEVICES`.
///
/// # Errors
/// Why the GPU that was asked for cannot be used, and what to do.
pub fn decide(
    asked: BackendChoice,
    visible: Option<&str>,
    at_most: Option<u16>,
    probe: impl Fn() -> Probe,
) -> Result<Decision, String> {
    match asked {
        BackendChoice::Cpu => Ok(Decision::Cpu(None)),
        BackendChoice::Mock => Ok(Decision::Mock),
        BackendChoice::Gpu => usable(visible, at_most, &probe()).map(Decision::Gpu),
        BackendChoice::Auto => Ok(match usable(visible, at_most, &probe()) {
            Ok(devices) => Decision::Gpu(devices),
            Err(reason) => Decision::Cpu(Some(reason)),
        }),
    }
}

fn usable(visible: Option<&str>, at_most: Option<u16>, probe: &Probe) -> Result<Vec<VisibleDevice>, String> {
    if at_most == Some(0) {
        return Err("--num-gpus (TRITON_GPU_COUNT) is 0: let it be 1 or more, or leave it out".to_owned());
    }
    if let Some(reason) = &probe.no_kernels {
        return Err(reason.clone());
    }
    let count = probe.devices.clone()?;
    let hidden = || match visible {
        Some(text) => format!("CUDA_VISIBLE_DEVICES={text:?} shows no device: name one that exists, or unset it"),
        None => "the driver shows no device: check that a GPU is installed, or that the container asks for one".to_owned(),
    };
    let mut devices = choose(visible, count, &probe.parts, at_most);
    // The driver shows one MIG device to a process, whatever the list; of whole ones it shows those that exist.
    if !devices.iter().any(|device| device.0.starts_with("MIG-")) {
        devices.truncate(count);
    }
    if devices.is_empty() { Err(hidden()) } else { Ok(devices) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(devices: Result<usize, String>, kernels: bool) -> impl Fn() -> Probe {
        move || Probe { devices: devices.clone(), no_kernels: (!kernels).then(|| "no kernels".to_owned()), parts: vec![] }
    }

    fn gpus(names: &[&str]) -> Decision {
        Decision::Gpu(names.iter().map(|&name| VisibleDevice(name.to_owned())).collect())
    }

    #[test]
    fn auto_takes_the_gpu_where_all_is_there_and_else_says_why_not() {
        let auto = |visible, at_most, probe: &dyn Fn() -> Probe| decide(BackendChoice::Auto, visible, at_most, probe);
        assert_eq!(auto(None, None, &host(Ok(2), true)), Ok(gpus(&["0", "1"])));
        assert_eq!(auto(Some("1"), None, &host(Ok(1), true)), Ok(gpus(&["1"])));
        assert_eq!(auto(None, Some(1), &host(Ok(2), true)), Ok(gpus(&["0"])));
        for (visible, at_most, probe, says) in [
            (None, None, host(Err("no CUDA driver was found".to_owned()), true), "no CUDA driver"),
            (None, None, host(Ok(1), false), "no kernels"),
            (None, None, host(Ok(0), true), "shows no device"),
            (Some(""), None, host(Ok(0), true), "CUDA_VISIBLE_DEVICES"),
            (Some("7"), None, host(Ok(0), true), "CUDA_VISIBLE_DEVICES"),
            (None, Some(0), host(Ok(1), true), "TRITON_GPU_COUNT"),
        ] {
            let Ok(Decision::Cpu(Some(reason))) = auto(visible, at_most, &probe) else { panic!("{says}") };
            assert!(reason.contains(says), "{reason}");
            let refused = decide(BackendChoice::Gpu, visible, at_most, probe).expect_err("cannot be used");
            assert_eq!(refused, reason);
        }
    }

    #[test]
    fn mig_devices_are_a_worker_each_though_the_driver_shows_one_at_a_time() {
        let parts = vec!["MIG-a".to_owned(), "MIG-b".to_owned()];
        let host = || Probe { devices: Ok(1), no_kernels: None, parts: parts.clone() };
        assert_eq!(decide(BackendChoice::Gpu, None, None, host), Ok(gpus(&["MIG-a", "MIG-b"])));
        assert_eq!(decide(BackendChoice::Gpu, Some("MIG-b,MIG-a"), None, host), Ok(gpus(&["MIG-b", "MIG-a"])));
        assert_eq!(decide(BackendChoice::Gpu, Some("0,5"), None, || Probe { parts: vec![], ..host() }), Ok(gpus(&["0"])));
    }

    #[test]
    fn who_asks_for_the_cpu_or_for_no_proofs_gets_that_unseen() {
        let never = || panic!("nothing is looked at");
        assert_eq!(decide(BackendChoice::Cpu, None, None, never), Ok(Decision::Cpu(None)));
        assert_eq!(decide(BackendChoice::Mock, None, None, never), Ok(Decision::Mock));
    }
}

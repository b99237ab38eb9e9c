//! `prover-pod devices`: what there is to prove on, for whoever starts pods and gives each its share.

use serde::Serialize;

use super::choice::{BackendChoice, Decision, Probe, decide};
use crate::memory::available_bytes;

/// What a pod would find here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Found {
    /// GPUs that a pod would use, as entries of `CUDA_VISIBLE_DEVICES`.
    pub gpus: Vec<String>,
    /// Why there are none, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_gpu: Option<String>,
    /// Bytes of memory that are free; absent where nothing tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_memory_bytes: Option<u64>,
}

/// Looks, as a pod that starts would. Makes no context on any device.
pub fn look() -> Found {
    found(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), Probe::look)
}

fn found(visible: Option<&str>, probe: impl Fn() -> Probe) -> Found {
    let (gpus, no_gpu) = match decide(BackendChoice::Gpu, visible, None, probe) {
        Ok(Decision::Gpu(devices)) => (devices.into_iter().map(|device| device.0).collect(), None),
        Ok(Decision::Cpu(why)) => (Vec::new(), why),
        Ok(Decision::Mock) => (Vec::new(), None),
        Err(why) => (Vec::new(), Some(why)),
    };
    Found { gpus, no_gpu, free_memory_bytes: available_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_pod_would_use_or_why_it_would_not() {
        let host = |devices: Result<usize, String>| move || Probe { devices: devices.clone(), no_kernels: None, parts: vec![] };
        let two = found(None, host(Ok(2)));
        assert_eq!((two.gpus, two.no_gpu), (vec!["0".to_owned(), "1".to_owned()], None));
        assert_eq!(found(Some("1"), host(Ok(1))).gpus, ["1"]);
        let none = found(None, host(Err("no CUDA driver was found".to_owned())));
        assert_eq!((none.gpus.len(), none.no_gpu.as_deref()), (0, Some("no CUDA driver was found")));
        assert!(none.free_memory_bytes.is_some(), "Linux tells");
    }
}

//! Device metrics by NVML. Where its library is missing, or does not know something, there is one metric less and no error.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use prometheus::core::Collector;
use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};
use prover_api::DeviceInfo;
use tracing::{debug, warn};

/// The library as drivers install it; the name without a version comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// How long the watcher of events sleeps at a time.
const EVENT_WAIT_MS: u32 = 5_000;

fn nvml() -> Option<&'static Nvml> {
    static NVML: OnceLock<Option<Nvml>> = OnceLock::new();
    NVML.get_or_init(|| {
        Nvml::builder().lib_path(LIBRARY.as_ref()).init().inspect_err(|error| debug!(%error, "no NVML: no device metrics")).ok()
    })
    .as_ref()
}

/// Version of the driver, such as `580.95.05`; `None` without NVML.
pub fn driver_version() -> Option<String> {
    nvml()?.sys_driver_version().ok()
}

/// UUIDs of all MIG devices. Empty where no GPU is cut up.
pub fn parts() -> Vec<String> {
    let Some(nvml) = nvml() else { return Vec::new() };
    let gpus = (0..nvml.device_count().unwrap_or(0)).filter_map(|index| nvml.device_by_index(index).ok());
    let parts = gpus.flat_map(|gpu| {
        let cut_up = gpu.mig_mode().is_ok_and(|mode| mode.current == 1);
        let count = if cut_up { gpu.mig_device_count().unwrap_or(0) } else { 0 };
        // The count is of places, and not each holds a device.
        (0..count).filter_map(move |index| gpu.mig_device_by_index(index).ok()?.uuid().ok()).collect::<Vec<_>>()
    });
    parts.collect()
}

/// Critical XID errors by UUID of the GPU, since the pod started.
static XID_ERRORS: OnceLock<HashMap<String, AtomicU64>> = OnceLock::new();

/// Critical XID errors of a GPU. Watched from a thread of its own once somebody asks; `None` for a GPU that is not.
fn xid_errors(uuid: &str) -> Option<u64> {
    let counts = XID_ERRORS.get_or_init(|| {
        let Some(nvml) = nvml() else { return HashMap::new() };
        let gpus: Vec<Device<'static>> =
            (0..nvml.device_count().unwrap_or(0)).filter_map(|index| nvml.device_by_index(index).ok()).collect();
        let counts = gpus.iter().filter_map(|gpu| gpu.uuid().ok()).map(|uuid| (uuid, AtomicU64::new(0))).collect();
        let watching = std::thread::Builder::new().name("xid".to_owned()).spawn(move || watch_xid(nvml, gpus));
        if let Err(error) = watching {
            debug!(%error, "XID errors are not watched");
        }
        counts
    });
    counts.get(uuid).map(|count| count.load(Ordering::Relaxed))
}

fn watch_xid(nvml: &'static Nvml, gpus: Vec<Device<'static>>) {
    let Ok(mut events) = nvml.create_event_set() else { return };
    for gpu in gpus {
        match gpu.register_events(EventTypes::CRITICAL_XID_ERROR, events) {
            Ok(set) => events = set,
            // The set is consumed and gone.
            Err(error) => return debug!(%error, "XID errors are not watched"),
        }
    }
    loop {
        match events.wait(EVENT_WAIT_MS) {
            Ok(event) => {
                let uuid = event.device.uuid().unwrap_or_default();
                let number = match event.event_data {
                    Some(XidError::Value(number)) => Some(number),
                    _ => None,
                };
                warn!(gpu = uuid, xid = number, "the driver reports a critical error of a GPU");
                if let Some(count) = XID_ERRORS.get().and_then(|counts| counts.get(&uuid)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(NvmlError::Timeout) => {}
            Err(error) => return debug!(%error, "XID errors are not watched any more"),
        }
    }
}

/// Gauges of GPUs, labelled by the number of their worker in the pod.
#[derive(Debug, Clone)]
pub struct GpuMetrics {
    memory_used: IntGaugeVec,
    memory_total: IntGaugeVec,
    utilization: GaugeVec,
    temperature: IntGaugeVec,
    power: GaugeVec,
    energy: GaugeVec,
    ecc_errors: IntGaugeVec,
    xid_errors: IntGaugeVec,
}

impl GpuMetrics {
    /// Registers all.
    ///
    /// # Errors
    /// A name is registered twice: a bug.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
            registry.register(Box::new(collector.clone()))?;
            Ok(collector)
        }
        let ints = |name: &str, help: &str| add(registry, IntGaugeVec::new(Opts::new(name, help), &["device"])?);
        let floats = |name: &str, help: &str| add(registry, GaugeVec::new(Opts::new(name, help), &["device"])?);
        Ok(Self {
            memory_used: ints("gpu_memory_used_bytes", "Device memory in use, by NVML")?,
            memory_total: ints("gpu_memory_bytes", "Device memory in all, by NVML")?,
            utilization: floats("gpu_utilization_ratio", "Share of the last moments in which kernels ran, by NVML")?,
            temperature: ints("gpu_temperature_celsius", "Temperature of the GPU, by NVML")?,
            power: floats("gpu_power_watts", "Power drawn, by NVML")?,
            energy: floats("gpu_energy_joules", "Energy drawn since the driver was loaded, by NVML")?,
            ecc_errors: ints("gpu_ecc_uncorrected_errors", "Uncorrected memory errors since the driver was loaded, by NVML")?,
            xid_errors: ints("gpu_xid_errors", "Critical XID errors since the pod started, by NVML")?,
        })
    }

    /// Asks NVML about each GPU among `devices`. Takes some milliseconds.
    pub fn refresh(&self, devices: &[DeviceInfo]) {
        let Some(nvml) = nvml().filter(|_| devices.iter().any(|device| device.gpu.is_some())) else { return };
        for info in devices {
            let Some(gpu) = &info.gpu else { continue };
            let Ok(device) = nvml.device_by_uuid(gpu.uuid.as_str()) else { continue };
            let label = info.worker.to_string();
            self.refresh_one(&[label.as_str()], &device);
        }
    }

    fn refresh_one(&self, label: &[&str; 1], device: &Device<'_>) {
        if let Ok(memory) = device.memory_info() {
            self.memory_used.with_label_values(label).set(as_i64(memory.used));
            self.memory_total.with_label_values(label).set(as_i64(memory.total));
        }
        // A part of a GPU has neither temperature nor power of its own: those are the whole one's.
        let parent = device.mig_parent_device().ok();
        let whole = parent.as_ref().unwrap_or(device);
        if let Ok(rates) = whole.utilization_rates() {
            self.utilization.with_label_values(label).set(f64::from(rates.gpu) / 100.0);
        }
        if let Ok(celsius) = whole.temperature(TemperatureSensor::Gpu) {
            self.temperature.with_label_values(label).set(i64::from(celsius));
        }
        if let Ok(milliwatts) = whole.power_usage() {
            self.power.with_label_values(label).set(f64::from(milliwatts) / 1e3);
        }
        if let Ok(millijoules) = whole.total_energy_consumption() {
            self.energy.with_label_values(label).set(millijoules as f64 / 1e3);
        }
        if let Ok(errors) = whole.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile) {
            self.ecc_errors.with_label_values(label).set(as_i64(errors));
        }
        if let Some(errors) = whole.uuid().ok().and_then(|uuid| xid_errors(&uuid)) {
            self.xid_errors.with_label_values(label).set(as_i64(errors));
        }
    }
}

fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_nvml_there_are_no_metrics_and_no_errors() {
        let registry = Registry::new();
        let metrics = GpuMetrics::new(&registry).expect("registers");
        metrics.refresh(&[]);
        if nvml().is_none() {
            assert_eq!((driver_version(), parts()), (None, Vec::new()));
            assert!(registry.gather().iter().all(|family| family.get_metric().is_empty()));
        }
    }
}

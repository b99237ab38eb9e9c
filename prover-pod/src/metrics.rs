//! Metrics for Prometheus. Labels come from closed sets: priorities, kinds, outcomes, backends, worker numbers.

use crate::gpu::nvml::GpuMetrics;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use prover_api::{Capacity, DeviceInfo, JobKind, JobState, JobStatus, Priority};

/// All metrics of a pod.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    queue_jobs: IntGaugeVec,
    queue_seconds: GaugeVec,
    running_jobs: IntGauge,
    slots: IntGauge,
    body_bytes: IntGauge,
    cached_proofs: IntGauge,
    cached_proof_bytes: IntGauge,
    capacity: IntGauge,
    ready: IntGauge,
    device_memory_bytes: IntGaugeVec,
    device_ready: IntGaugeVec,
    gpus: GpuMetrics,
    jobs: IntCounterVec,
    stage_seconds: HistogramVec,
    /// log2 padded heights of inspected jobs.
    pub padded_heights: Histogram,
    /// Verifications by this service.
    pub verification_seconds: Histogram,
    /// Proofs that did not verify, by backend.
    pub verification_failures: IntCounterVec,
    /// Deaths of worker processes.
    pub worker_restarts: IntCounterVec,
    /// HTTP answers by method, route and status.
    pub http_requests: IntCounterVec,
    /// Connections of the TVMP socket by outcome.
    pub tvmp_requests: IntCounterVec,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// A name is registered twice: a bug.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("prover_pod".to_owned()), None)?;
        let build = IntGaugeVec::new(Opts::new("build_info", "1; the labels tell the build"), &["version", "proof_version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), &prover_api::PROOF_VERSION.to_string()]).set(1);
        registry.register(Box::new(build))?;

        let int = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let ints = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| -> prometheus::Result<Histogram> {
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };

        let queue_seconds = GaugeVec::new(
            Opts::new("queue_estimated_seconds", "Estimated seconds of work that waits, by priority"),
            &["priority"],
        )?;
        registry.register(Box::new(queue_seconds.clone()))?;
        let stage_seconds = HistogramVec::new(
            HistogramOpts::new("stage_duration_seconds", "Seconds of finished jobs by stage and backend")
                .buckets(prometheus::exponential_buckets(0.01, 2.0, 17)?),
            &["stage", "backend"],
        )?;
        registry.register(Box::new(stage_seconds.clone()))?;
        let uptime_start = Gauge::new("start_time_seconds", "When the pod started, seconds since 1970")?;
        registry.register(Box::new(uptime_start.clone()))?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        uptime_start.set(now.map_or(0.0, |since| since.as_secs_f64()));

        let verification_failures = counters(
            "proof_verification_failures_total",
            "Proofs that did not verify and never left, by backend",
            &["backend"],
        )?;
        for backend in ["cpu", "gpu", "mock"] {
            // Alerts need the zero.
            verification_failures.with_label_values(&[backend]).inc_by(0);
        }
        Ok(Self {
            queue_jobs: ints("queue_jobs", "Jobs that wait for a slot, by priority", &["priority"])?,
            queue_seconds,
            running_jobs: int("running_jobs", "Jobs that hold a slot")?,
            slots: int("slots", "Jobs that can run at once on ready devices")?,
            body_bytes: int("job_body_bytes", "Bytes of job bodies held")?,
            cached_proofs: int("cached_proofs", "Verified proofs kept for later callers")?,
            cached_proof_bytes: int("cached_proof_bytes", "Their bytes")?,
            capacity: int("max_log2_padded_height", "Largest log2 padded height taken; 0 while no device is ready")?,
            ready: int("ready", "1 when some device is ready and the pod is not draining")?,
            device_memory_bytes: ints("worker_resident_bytes", "Resident memory of worker processes", &["worker", "backend"])?,
            device_ready: ints("device_ready", "1 when the device takes jobs", &["worker", "backend"])?,
            gpus: GpuMetrics::new(&registry)?,
            jobs: counters("jobs_total", "Finished jobs by kind, outcome and backend", &["kind", "outcome", "backend"])?,
            stage_seconds,
            padded_heights: histogram(
                "job_log2_padded_height",
                "log2 of the padded heights of jobs",
                (8..=24).map(f64::from).collect(),
            )?,
            verification_seconds: histogram(
                "proof_verification_duration_seconds",
                "Seconds to verify one proof in the service",
                prometheus::exponential_buckets(0.002, 2.0, 10)?,
            )?,
            verification_failures,
            worker_restarts: counters(
                "worker_restarts_total",
                "Ends of worker processes: stopped by the service to end a job, or died of themselves",
                &["worker", "cause"],
            )?,
            http_requests: counters("http_requests_total", "HTTP answers", &["method", "route", "status"])?,
            tvmp_requests: counters("tvmp_requests_total", "TVMP connections by outcome", &["outcome"])?,
            registry,
        })
    }

    /// The text format.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Sets the gauges.
    pub fn refresh(&self, capacity: &Capacity, devices: &[DeviceInfo], cached: usize, cached_bytes: u64) {
        for priority in Priority::ALL {
            let queue = capacity.queue.get(&priority).copied().unwrap_or_default();
            self.queue_jobs.with_label_values(&[priority.name()]).set(as_i64(queue.jobs as u64));
            self.queue_seconds.with_label_values(&[priority.name()]).set(queue.seconds);
        }
        self.running_jobs.set(as_i64(capacity.running as u64));
        self.slots.set(as_i64(capacity.slots as u64));
        self.body_bytes.set(as_i64(capacity.body_bytes));
        self.cached_proofs.set(as_i64(cached as u64));
        self.cached_proof_bytes.set(as_i64(cached_bytes));
        self.capacity.set(i64::from(capacity.max_log2_padded_height.unwrap_or(0)));
        self.ready.set(i64::from(capacity.ready));
        for device in devices {
            let labels = [device.worker.to_string(), device.backend.clone()];
            self.device_memory_bytes.with_label_values(&labels).set(as_i64(device.rss_bytes));
            self.device_ready.with_label_values(&labels).set(i64::from(device.ready));
        }
        self.gpus.refresh(devices);
    }

    /// Counts a job that ended.
    pub fn count_end(&self, status: &JobStatus, kind: JobKind) {
        let backend = status.backend.as_deref().unwrap_or("none");
        let outcome = match (status.state, &status.problem) {
            (JobState::Done, _) => "done",
            (JobState::Cancelled, None) => "cancelled",
            (_, Some(problem)) => problem.problem_type.slug(),
            _ => "failed",
        };
        self.jobs.with_label_values(&[kind.name(), outcome, backend]).inc();
        if status.state == JobState::Done {
            let stages = [
                ("queued", status.seconds.queued),
                ("trace", status.seconds.traced),
                ("prove", status.seconds.proved),
                ("verify", status.seconds.verified),
            ];
            for (stage, seconds) in stages {
                if let Some(seconds) = seconds {
                    self.stage_seconds.with_label_values(&[stage, backend]).observe(seconds);
                }
            }
        }
    }
}

fn as_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

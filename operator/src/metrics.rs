//! What Prometheus reads. Labels are bounded: fleets, kinds of objects, classes of errors.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::error::Class;

/// All metrics, cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles by result.
    pub reconciles: IntCounterVec,
    /// Failed reconciles by class of error.
    pub errors: IntCounterVec,
    /// How long a reconcile takes.
    pub seconds: Histogram,
    /// How long the API server takes for a write, by verb.
    pub write_seconds: HistogramVec,
    /// Writes by verb and kind.
    pub writes: IntCounterVec,
    /// 1 while this process leads.
    pub leader: IntGauge,
    /// Questions to pods by result.
    pub polls: IntCounterVec,
    /// 1 while no pod on any node answers.
    pub cut_off: IntGauge,
    fleets: [IntGaugeVec; 9],
    provers: [IntGaugeVec; 3],
    /// The kinds of provers that each fleet has lines for, by namespace and name.
    kinds: Arc<Mutex<Kinds>>,
}

/// Names of kinds of provers by namespace and fleet.
type Kinds = HashMap<(String, String), Vec<String>>;

/// One fleet in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetNumbers {
    /// Byte values with a ready owner.
    pub covered: i64,
    /// Byte values with several.
    pub overlapping: i64,
    /// Ready shards.
    pub shards_ready: i64,
    /// Wanted shards.
    pub shards_desired: i64,
    /// Substitutes for dead shards.
    pub substitutes: i64,
    /// Whether shards are being changed.
    pub resharding: bool,
    /// Whether a person is needed.
    pub degraded: bool,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Seconds of work that waits.
    pub queued_seconds: i64,
    /// Name, wanted, ready and unschedulable of each kind of provers.
    pub provers: Vec<(String, i64, i64, i64)>,
}

impl Metrics {
    /// A new registry.
    ///
    /// # Errors
    /// A name is registered twice: a bug.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("upgrader_fleet".to_owned()), None)?;
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let build = gauge("operator_build_info", "1; the label tells the build", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let leader = IntGauge::new("operator_leader", "1 while this process leads")?;
        registry.register(Box::new(leader.clone()))?;
        let cut_off = IntGauge::new("operator_cut_off", "1 while no pod on any node answers the operator")?;
        registry.register(Box::new(cut_off.clone()))?;
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];
        let seconds = Histogram::with_opts(
            HistogramOpts::new("reconcile_duration_seconds", "Seconds of a reconcile").buckets(buckets.clone()),
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let write = HistogramOpts::new("api_write_duration_seconds", "Seconds that the API server takes for a write, by verb");
        let write_seconds = HistogramVec::new(write.buckets(buckets), &["verb"])?;
        registry.register(Box::new(write_seconds.clone()))?;
        let of_fleet = |name, help| gauge(name, help, &["namespace", "fleet"]);
        let of_provers = |name, help| gauge(name, help, &["namespace", "fleet", "provers"]);
        let metrics = Self {
            reconciles: counter("reconciles_total", "Reconciles by result", &["result"])?,
            errors: counter("reconcile_errors_total", "Failed reconciles by class of error", &["class"])?,
            writes: counter("api_writes_total", "Writes to the API server by verb and kind", &["verb", "kind"])?,
            polls: counter("polls_total", "Questions to pods how they are, by result", &["result"])?,
            fleets: [
                of_fleet("covered_residues", "Values of a transaction id's last byte with a ready upgrader, of 256")?,
                of_fleet("overlapping_residues", "Values of a transaction id's last byte with several ready upgraders")?,
                of_fleet("shards_ready", "Ready shards")?,
                of_fleet("shards_desired", "Wanted shards")?,
                of_fleet("substitutes", "Substitutes for dead shards")?,
                of_fleet("resharding", "1 while shards are being changed")?,
                of_fleet("degraded", "1 while a person is needed")?,
                of_fleet("suspended", "1 while the fleet is suspended")?,
                of_fleet("queued_seconds", "Estimated seconds of proofs that wait, over all prover pods")?,
            ],
            provers: [
                of_provers("provers_desired", "Wanted prover pods")?,
                of_provers("provers_ready", "Ready prover pods")?,
                of_provers("provers_unschedulable", "Prover pods that no node has room for")?,
            ],
            kinds: Arc::default(),
            seconds,
            write_seconds,
            leader,
            cut_off,
            registry,
        };
        for class in Class::ALL {
            metrics.errors.with_label_values(&[class.name()]);
        }
        for result in ["ok", "error"] {
            metrics.reconciles.with_label_values(&[result]);
            metrics.polls.with_label_values(&[result]);
        }
        Ok(metrics)
    }

    /// Puts a fleet's numbers in.
    pub fn fleet(&self, namespace: &str, name: &str, numbers: &FleetNumbers) {
        let values = [
            numbers.covered,
            numbers.overlapping,
            numbers.shards_ready,
            numbers.shards_desired,
            numbers.substitutes,
            i64::from(numbers.resharding),
            i64::from(numbers.degraded),
            i64::from(numbers.suspended),
            numbers.queued_seconds,
        ];
        for (gauge, value) in self.fleets.iter().zip(values) {
            gauge.with_label_values(&[namespace, name]).set(value);
        }
        for (kind, desired, ready, unschedulable) in &numbers.provers {
            for (gauge, value) in self.provers.iter().zip([desired, ready, unschedulable]) {
                gauge.with_label_values(&[namespace, name, kind]).set(*value);
            }
        }
        let kinds = numbers.provers.iter().map(|(kind, ..)| kind.clone()).collect();
        self.keep_kinds(namespace, name, Some(kinds));
    }

    /// Takes a fleet's numbers out.
    pub fn forget(&self, namespace: &str, name: &str) {
        for gauge in &self.fleets {
            // Not there when it never got so far.
            let _ = gauge.remove_label_values(&[namespace, name]);
        }
        self.keep_kinds(namespace, name, None);
    }

    /// Takes the lines of kinds of provers out that a fleet has no more.
    fn keep_kinds(&self, namespace: &str, name: &str, now: Option<Vec<String>>) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut all = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match now.clone() {
            Some(now) => all.insert(key, now),
            None => all.remove(&key),
        };
        let now = now.unwrap_or_default();
        for kind in before.unwrap_or_default().iter().filter(|kind| !now.contains(kind)) {
            for gauge in &self.provers {
                let _ = gauge.remove_label_values(&[namespace, name, kind]);
            }
        }
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, took: Duration, error: Option<Class>) {
        self.seconds.observe(took.as_secs_f64());
        self.reconciles.with_label_values(&[if error.is_some() { "error" } else { "ok" }]).inc();
        if let Some(class) = error {
            self.errors.with_label_values(&[class.name()]).inc();
        }
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// A bug in a metric.
    pub fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_comes_and_goes() {
        let metrics = Metrics::new().expect("sound");
        let of = |kinds: &[&str]| FleetNumbers {
            covered: 256,
            provers: kinds.iter().map(|kind| ((*kind).to_owned(), 2, 1, 0)).collect(),
            ..FleetNumbers::default()
        };
        metrics.fleet("ns", "a", &of(&["default", "big"]));
        let text = metrics.text().expect("text");
        assert!(text.contains("upgrader_fleet_covered_residues{fleet=\"a\",namespace=\"ns\"} 256"));
        assert!(text.contains("upgrader_fleet_provers_ready{fleet=\"a\",namespace=\"ns\",provers=\"big\"} 1"));
        metrics.fleet("ns", "a", &of(&["default"]));
        let text = metrics.text().expect("text");
        assert!(text.contains("provers=\"default\"") && !text.contains("provers=\"big\""), "{text}");
        metrics.forget("ns", "a");
        assert!(!metrics.text().expect("text").contains("fleet=\"a\""));
    }
}

//! Metrics for Prometheus. Labels come from closed sets: kinds, outcomes, methods of the node, its refusals.

use std::collections::BTreeMap;

use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use prover_api::JobKind;

use crate::dag::Outcome;
use crate::node::NodeStats;
use crate::select::{Plan, Work};

/// All metrics of an upgrader.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    candidates: IntGaugeVec,
    passed_over: IntGaugeVec,
    mempool_transactions: IntGauge,
    in_progress: IntGauge,
    proofs_running: IntGauge,
    upgrades: IntCounterVec,
    upgrade_seconds: HistogramVec,
    proof_seconds: HistogramVec,
    prover_seconds: prometheus::CounterVec,
    fees: GaugeVec,
    cost: Gauge,
    price_per_prover_hour: f64,
    tip_height: IntGauge,
    tip_age: Gauge,
    ready: IntGauge,
    node_calls: IntGaugeVec,
    node_bytes: IntGaugeVec,
    node_errors: IntCounterVec,
    refusals: IntCounterVec,
    rounds: IntCounter,
    round_seconds: prometheus::Histogram,
}

const PREFIX: &str = "upgrader";

impl Metrics {
    /// Registers everything. An hour of proving costs this many coins; 0 when nobody said.
    ///
    /// # Errors
    /// When a name is registered twice, which is a bug.
    pub fn new(price_per_prover_hour: f64) -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some(PREFIX.to_owned()), None)?;
        let int = |name, help| -> prometheus::Result<IntGauge> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let ints = |name, help, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counters = |name, help, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let histograms = |name, help, labels: &[&str]| -> prometheus::Result<HistogramVec> {
            let buckets = prometheus::exponential_buckets(0.25, 2.0, 14)?;
            let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let fees =
            GaugeVec::new(Opts::new("fees_coins", "Fees of ours, by what became of them; lossy, for graphs"), &["state"])?;
        registry.register(Box::new(fees.clone()))?;
        let cost = Gauge::new("cost_coins", "What the provers' time cost so far, at the given price per hour")?;
        registry.register(Box::new(cost.clone()))?;
        let tip_age = Gauge::new("tip_age_seconds", "Seconds since the tip changed")?;
        registry.register(Box::new(tip_age.clone()))?;
        let rounds = IntCounter::new("rounds_total", "Looks at the mempool")?;
        registry.register(Box::new(rounds.clone()))?;
        let round_seconds = prometheus::Histogram::with_opts(
            HistogramOpts::new("round_duration_seconds", "Seconds for one look at the mempool")
                .buckets(prometheus::exponential_buckets(0.001, 2.0, 14)?),
        )?;
        registry.register(Box::new(round_seconds.clone()))?;
        let prover_seconds =
            prometheus::CounterVec::new(Opts::new("prover_seconds_total", "Seconds of proving, by kind of job"), &["kind"])?;
        registry.register(Box::new(prover_seconds.clone()))?;
        Ok(Self {
            candidates: ints("candidates", "Upgrades that could be done now, by kind", &["kind"])?,
            passed_over: ints("passed_over", "Transactions left alone, by reason", &["reason"])?,
            mempool_transactions: int("mempool_transactions", "Transactions in the node's mempool")?,
            in_progress: int("upgrades_in_progress", "Upgrades under way")?,
            proofs_running: int("proofs_in_progress", "Proofs that pods make for us")?,
            upgrades: counters("upgrades_total", "Upgrades that ended, by kind and outcome", &["kind", "outcome"])?,
            upgrade_seconds: histograms("upgrade_duration_seconds", "Seconds from start to submission, by kind", &["kind"])?,
            proof_seconds: histograms("proof_duration_seconds", "Seconds of trace and proof as pods report them", &["kind"])?,
            prover_seconds,
            fees,
            cost,
            price_per_prover_hour,
            tip_height: int("tip_height", "Height of the tip")?,
            tip_age,
            ready: int("ready", "1 when the node is in reach and some prover takes jobs")?,
            node_calls: ints("node_calls", "Calls to nodes since the start", &["method"])?,
            node_bytes: ints("node_bytes", "Bytes from and to nodes since the start", &["method", "direction"])?,
            node_errors: counters("node_errors_total", "Calls to nodes that failed, by kind of failure", &["error"])?,
            refusals: counters("submissions_refused_total", "Transactions that the node refused, by its reason", &["reason"])?,
            rounds,
            round_seconds,
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

    /// A look at the mempool took this long and gave this plan.
    pub fn round(&self, seconds: f64, plan: &Plan, mempool: usize, in_progress: usize, proofs: usize) {
        self.rounds.inc();
        self.round_seconds.observe(seconds);
        let mut candidates = BTreeMap::from([("raise", 0_i64), ("update", 0), ("merge", 0)]);
        for planned in &plan.work {
            let kind = match planned.work {
                Work::Raise { .. } => "raise",
                Work::Update { .. } => "update",
                Work::Merge { .. } => "merge",
            };
            *candidates.entry(kind).or_default() += 1;
        }
        for (kind, count) in candidates {
            self.candidates.with_label_values(&[kind]).set(count);
        }
        self.passed_over.reset();
        for reason in plan.why_not.values() {
            self.passed_over.with_label_values(&[reason.name()]).inc();
        }
        self.mempool_transactions.set(as_i64(mempool as u64));
        self.in_progress.set(as_i64(in_progress as u64));
        self.proofs_running.set(as_i64(proofs as u64));
    }

    /// An upgrade ended.
    pub fn ended(&self, kind: &str, outcome: &Outcome, seconds: f64) {
        let name = match outcome {
            Outcome::Submitted => "submitted",
            Outcome::Superseded { .. } => "superseded",
            Outcome::Failed { failure } => failure.name(),
        };
        self.upgrades.with_label_values(&[kind, name]).inc();
        if *outcome == Outcome::Submitted {
            self.upgrade_seconds.with_label_values(&[kind]).observe(seconds);
        }
    }

    /// A pod made a proof.
    pub fn proved(&self, kind: JobKind, seconds: f64) {
        self.proof_seconds.with_label_values(&[kind.name()]).observe(seconds);
        let seconds = seconds.max(0.0);
        self.prover_seconds.with_label_values(&[kind.name()]).inc_by(seconds);
        self.cost.add(seconds / 3600.0 * self.price_per_prover_hour);
    }

    /// Fees of ours in this state: `submitted`, `mined` or `lost`.
    pub fn fee(&self, state: &str, amount: NativeCurrencyAmount) {
        self.fees.with_label_values(&[state]).add(amount.to_nau_f64() / NativeCurrencyAmount::coin_as_nau() as f64);
    }

    /// The tip.
    pub fn tip(&self, height: u64, age_seconds: f64, ready: bool) {
        self.tip_height.set(as_i64(height));
        self.tip_age.set(age_seconds);
        self.ready.set(i64::from(ready));
    }

    /// A call to a node failed.
    pub fn node_error(&self, name: &str) {
        self.node_errors.with_label_values(&[name]).inc();
    }

    /// The node refused a transaction.
    pub fn refused(&self, reason: &str) {
        self.refusals.with_label_values(&[reason]).inc();
    }

    /// What nodes were asked so far.
    pub fn nodes(&self, stats: &BTreeMap<String, NodeStats>) {
        for (method, stats) in stats {
            self.node_calls.with_label_values(&[method]).set(as_i64(stats.calls));
            self.node_bytes.with_label_values(&[method, "sent"]).set(as_i64(stats.bytes_sent));
            self.node_bytes.with_label_values(&[method, "received"]).set(as_i64(stats.bytes_received));
        }
    }
}

fn as_i64(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

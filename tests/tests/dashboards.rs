//! The dashboards of provers and of economics name metrics, and labels of these, that pods and upgraders export. (Those of the
//! operator are tested with it.)

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use prover_api::{Capacity, DeviceInfo, JobKind, JobStatus, Priority};
use serde_json::{Value, json};
use upgrader::TxId;
use upgrader::dag::Outcome;
use upgrader::select::{Plan, WhyNot};

/// Metrics and their labels.
type Exported = BTreeMap<String, BTreeSet<String>>;

/// Those of a text in Prometheus' format.
fn exported(text: &str) -> Exported {
    let mut exported = Exported::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap_or((line, ""));
        let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
        let names = labels.split("\",").filter_map(|label| label.split_once("=\"")).map(|(name, _)| name.to_owned());
        exported.entry(name.to_owned()).or_default().extend(names);
    }
    exported
}

/// What a pod exports once it has finished a job.
fn of_a_pod() -> Result<Exported> {
    let metrics = prover_pod::metrics::Metrics::new()?;
    let queue: Value =
        Priority::ALL.iter().map(|priority| (priority.name().to_owned(), json!({ "jobs": 0, "seconds": 0.0 }))).collect();
    let capacity: Capacity = serde_json::from_value(json!({
        "idle": true, "ready": true, "draining": false, "slots": 2, "running": 0, "queue": queue, "body_bytes": 0,
        "max_body_bytes": 0, "proof_versions": [8], "backends": ["cpu"], "mock": false,
    }))?;
    let device: DeviceInfo = serde_json::from_value(json!({
        "worker": 0, "backend": "cpu", "device": "cpu", "ready": true, "quarantined": false, "wrong_proofs": 0, "slots": 1,
        "running": [], "rss_bytes": 0, "restarts": 0, "max_log2_padded_height": 20,
    }))?;
    metrics.refresh(&capacity, &[device], 0, 0);
    let job: JobStatus = serde_json::from_value(json!({
        "id": "0".repeat(80), "state": "done", "priority": "low", "progress": 1.0, "backend": "cpu",
        "seconds": { "queued": 1.0, "traced": 1.0, "proved": 1.0, "verified": 1.0 },
    }))?;
    metrics.count_end(&job, JobKind::Raise);
    metrics.worker_restarts.with_label_values(&["0", "died"]).inc();
    Ok(exported(&metrics.render()?))
}

/// What an upgrader exports once it has upgraded a transaction and left another one alone.
fn of_an_upgrader() -> Result<Exported> {
    let metrics = upgrader::metrics::Metrics::new(1.0)?;
    let left: TxId = "0".repeat(80).parse()?;
    let plan = Plan { work: Vec::new(), why_not: BTreeMap::from([(left, WhyNot::UpdatePaysNothing)]) };
    metrics.round(0.1, &plan, 1, 0, 0);
    metrics.ended("raise", &Outcome::Submitted, 10.0);
    metrics.proved(JobKind::Raise, 10.0);
    metrics.fee("mined", NativeCurrencyAmount::coins(1));
    Ok(exported(&metrics.render()?))
}

/// Names of metrics in an expression: words that begin so.
fn named<'a>(expression: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    expression
        .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(move |word| word.starts_with(prefix))
}

fn check(dashboard: &str, prefix: &str, exported: &Exported) -> Result<()> {
    let path = upgrader_fleet_tests::package().join(format!("../operator/dashboards/{dashboard}.json"));
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let mut checked = 0;
    for target in panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten() {
        let expression = target["expr"].as_str().context("an expression")?;
        let kept = expression.split_once(" by (").and_then(|(_, rest)| rest.split_once(')')).map_or("", |(labels, _)| labels);
        for name in named(expression, prefix) {
            let labels = exported.get(name).with_context(|| format!("{name} is not exported: {expression}"))?;
            for label in kept.split(',').map(str::trim).filter(|label| !label.is_empty()) {
                // These two come from Prometheus: where it found the pod.
                ensure!(["namespace", "pod"].contains(&label) || labels.contains(label), "{name} has no {label}: {expression}");
            }
            checked += 1;
        }
    }
    ensure!(checked >= panels.len() && checked > 5, "only {checked} names were found");
    Ok(())
}

#[test]
fn the_dashboard_of_provers_shows_what_pods_export() -> Result<()> {
    check("provers", "prover_pod_", &of_a_pod()?)
}

#[test]
fn the_dashboard_of_economics_shows_what_upgraders_export() -> Result<()> {
    check("economics", "upgrader_", &of_an_upgrader()?)
}

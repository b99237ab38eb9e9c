//! What Prometheus' operator takes: what to scrape and when to call somebody.

use fleet_api::v1alpha1::ServiceMonitorSpec;
use serde_json::{Value, json};

use super::{BuildError, Fleet, Object};
use crate::kinds::Kind;

/// Where the pages of the alerts are.
pub const RUNBOOKS: &str = "https://github.com/upgrader-fleet/upgrader-fleet/blob/main/docs/runbooks";

/// One ServiceMonitor over the Services of upgraders and provers.
pub fn service_monitor(fleet: &Fleet<'_>) -> Result<Option<Object>, BuildError> {
    let ServiceMonitorSpec { enabled, interval_seconds, labels } = &fleet.resource.spec.monitoring.service_monitor;
    if !enabled {
        return Ok(None);
    }
    let mut meta = fleet.meta(fleet.name, []);
    meta.labels.get_or_insert_default().extend(labels.clone());
    let metadata = serde_json::to_value(meta).map_err(|error| BuildError::Json(error.to_string()))?;
    let body = json!({
        "apiVersion": Kind::ServiceMonitor.api_version(),
        "kind": Kind::ServiceMonitor.name(),
        "metadata": metadata,
        "spec": {
            "selector": { "matchLabels": fleet.labels() },
            "endpoints": [{ "port": "http", "path": "/metrics", "interval": format!("{interval_seconds}s") }],
            "podTargetLabels": [super::FLEET_LABEL, super::SHARD_LABEL, super::PROVERS_LABEL],
        },
    });
    Ok(Some(Object { kind: Kind::ServiceMonitor, name: fleet.name.to_owned(), body }))
}

/// The alerts of this fleet alone. The chart has the same for all fleets.
pub fn prometheus_rule(fleet: &Fleet<'_>) -> Option<Object> {
    let switch = &fleet.resource.spec.monitoring.rules;
    if !switch.enabled {
        return None;
    }
    let mut meta = fleet.meta(fleet.name, []);
    meta.labels.get_or_insert_default().extend(switch.labels.clone());
    let body = json!({
        "apiVersion": Kind::PrometheusRule.api_version(),
        "kind": Kind::PrometheusRule.name(),
        "metadata": meta,
        "spec": rules(Some((fleet.namespace, fleet.name))),
    });
    Some(Object { kind: Kind::PrometheusRule, name: fleet.name.to_owned(), body })
}

/// One alert.
#[derive(Debug, Clone, Copy)]
pub struct Alert {
    /// Its name, which is that of its page in `docs/runbooks`, too.
    pub name: &'static str,
    /// The expression, with `{SELECTOR}` where the fleet is chosen among the operator's metrics, and `{POD_SELECTOR}` among those
    /// of its pods.
    expression: &'static str,
    /// How long it has to hold.
    hold: &'static str,
    /// `critical`: transactions wait for nobody. `warning`: somebody should look today.
    severity: &'static str,
    /// One line.
    summary: &'static str,
}

/// All alerts.
pub const ALERTS: [Alert; 11] = [
    Alert {
        name: "UpgraderFleetUncovered",
        expression: "upgrader_fleet_covered_residues{SELECTOR} < 256 and on (namespace, fleet) upgrader_fleet_suspended{SELECTOR} == 0",
        hold: "2m",
        severity: "critical",
        summary: "{{ $value }} of 256 residues of fleet {{ $labels.namespace }}/{{ $labels.fleet }} have an upgrader",
    },
    Alert {
        name: "UpgraderFleetShardsNotReady",
        expression: "upgrader_fleet_shards_ready{SELECTOR} < upgrader_fleet_shards_desired{SELECTOR}",
        hold: "15m",
        severity: "warning",
        summary: "{{ $value }} shards of fleet {{ $labels.namespace }}/{{ $labels.fleet }} are ready, fewer than wanted",
    },
    Alert {
        name: "UpgraderFleetReshardStuck",
        expression: "upgrader_fleet_resharding{SELECTOR} == 1",
        hold: "30m",
        severity: "warning",
        summary: "Fleet {{ $labels.namespace }}/{{ $labels.fleet }} has been changing its shards for half an hour",
    },
    Alert {
        name: "UpgraderFleetNoProver",
        expression: "upgrader_fleet_provers_ready{SELECTOR} == 0 and upgrader_fleet_provers_desired{SELECTOR} > 0",
        hold: "5m",
        severity: "critical",
        summary: "No prover pod of kind {{ $labels.provers }} of fleet {{ $labels.namespace }}/{{ $labels.fleet }} is ready",
    },
    Alert {
        name: "UpgraderFleetProversUnschedulable",
        expression: "upgrader_fleet_provers_unschedulable{SELECTOR} > 0",
        hold: "10m",
        severity: "warning",
        summary: "{{ $value }} prover pods of fleet {{ $labels.namespace }}/{{ $labels.fleet }} find no node: GPUs are taken",
    },
    Alert {
        name: "UpgraderFleetQueueTooLong",
        expression: "upgrader_fleet_queued_seconds{SELECTOR} > 1800",
        hold: "15m",
        severity: "warning",
        summary: "{{ $value }} seconds of proofs wait in fleet {{ $labels.namespace }}/{{ $labels.fleet }}",
    },
    Alert {
        name: "UpgraderFleetDegraded",
        expression: "upgrader_fleet_degraded{SELECTOR} == 1",
        hold: "5m",
        severity: "warning",
        summary: "Fleet {{ $labels.namespace }}/{{ $labels.fleet }} needs a person: kubectl describe says what",
    },
    Alert {
        name: "UpgraderFleetOperatorFailing",
        expression: "sum by (namespace) (increase(upgrader_fleet_reconcile_errors_total[10m])) > 5",
        hold: "10m",
        severity: "warning",
        summary: "The operator in {{ $labels.namespace }} failed {{ $value }} times in ten minutes",
    },
    Alert {
        name: "UpgraderFleetOperatorGone",
        // Of a process that is gone nothing is scraped: no other alert of the operator's could say so.
        expression: "absent(upgrader_fleet_operator_leader == 1)",
        hold: "5m",
        severity: "critical",
        summary: "No operator leads: dead shards are not taken over, and no other alert about fleets can fire",
    },
    Alert {
        name: "UpgraderFleetOperatorCutOff",
        expression: "max by (namespace) (upgrader_fleet_operator_cut_off) == 1",
        hold: "5m",
        severity: "warning",
        summary: "The operator in {{ $labels.namespace }} reaches no pod on any node: takeovers wait for Kubernetes, nothing scales",
    },
    Alert {
        name: "UpgraderFleetWrongProofs",
        expression: "sum by (namespace, pod, backend) (increase(prover_pod_proof_verification_failures_total{POD_SELECTOR}[1h])) > 0",
        hold: "1m",
        severity: "warning",
        summary: "A device of backend {{ $labels.backend }} in pod {{ $labels.namespace }}/{{ $labels.pod }} makes wrong proofs",
    },
];

/// The rule groups: of one fleet, or of all.
pub fn rules(fleet: Option<(&str, &str)>) -> Value {
    // Prometheus makes a label of a metric from the label of a pod, and underscores of all that is no letter.
    let pod_label = super::FLEET_LABEL.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
    let select = |label: &str| {
        fleet.map(|(namespace, name)| format!("{{namespace=\"{namespace}\",{label}=\"{name}\"}}")).unwrap_or_default()
    };
    let (selector, of_pods) = (select("fleet"), select(&pod_label));
    // The operator's own alerts are not about one fleet.
    let ours = ALERTS.iter().filter(|alert| fleet.is_none() || alert.expression.contains("SELECTOR}"));
    let rules: Vec<_> = ours
        .map(|alert| {
            json!({
                "alert": alert.name,
                "expr": alert.expression.replace("{SELECTOR}", &selector).replace("{POD_SELECTOR}", &of_pods),
                "for": alert.hold,
                "labels": { "severity": alert.severity },
                "annotations": { "summary": alert.summary, "runbook_url": format!("{RUNBOOKS}/{}.md", alert.name) },
            })
        })
        .collect();
    json!({ "groups": [{ "name": "upgrader-fleet", "rules": rules }] })
}

//! `spec.monitoring` and `spec.networkPolicy`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// On or off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Switch {
    /// Whether it is made. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Labels to add, for example those by which Prometheus or Grafana find it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Objects for Prometheus and Grafana. What needs a definition that the cluster lacks is left out and reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// A ServiceMonitor for upgraders and prover pods.
    #[serde(default)]
    pub service_monitor: ServiceMonitorSpec,
    /// A PrometheusRule with the alerts of this fleet.
    #[serde(default)]
    pub rules: Switch,
    /// A ConfigMap with the Grafana dashboard of this fleet.
    #[serde(default)]
    pub dashboard: Switch,
}

/// A ServiceMonitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceMonitorSpec {
    /// Whether it is made. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Seconds between two scrapes, 5 to 3600. Default: 30.
    #[serde(default = "default_interval")]
    #[schemars(range(min = 5, max = 3600))]
    pub interval_seconds: i32,
    /// Labels to add, for example those by which Prometheus finds it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Default for ServiceMonitorSpec {
    fn default() -> Self {
        Self { enabled: false, interval_seconds: default_interval(), labels: BTreeMap::new() }
    }
}

/// NetworkPolicies for the pods of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkPolicies {
    /// Whether they are made: provers take connections from upgraders, upgraders and provers from the operator and from
    /// `monitoringNamespaces`, and nothing else comes in. Default: false.
    #[serde(default)]
    pub enabled: bool,
    /// Namespaces, by their label `kubernetes.io/metadata.name`, that may read metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub monitoring_namespaces: Vec<String>,
}

fn default_interval() -> i32 {
    30
}

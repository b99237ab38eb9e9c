//! The kinds of objects that the operator writes, and where the API has them.

use kube::core::{ApiResource, GroupVersionKind};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1`.
    ServiceAccount,
    /// `v1`.
    Secret,
    /// `v1`.
    Service,
    /// `v1`.
    ConfigMap,
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`.
    StatefulSet,
    /// `policy/v1`.
    PodDisruptionBudget,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `monitoring.coreos.com/v1`, when the cluster has it.
    ServiceMonitor,
    /// `monitoring.coreos.com/v1`, when the cluster has it.
    PrometheusRule,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::ServiceAccount,
        Self::Secret,
        Self::Service,
        Self::ConfigMap,
        Self::Deployment,
        Self::StatefulSet,
        Self::PodDisruptionBudget,
        Self::NetworkPolicy,
        Self::ServiceMonitor,
        Self::PrometheusRule,
    ];

    /// Those that need a definition which a cluster may lack.
    pub fn is_optional(self) -> bool {
        matches!(self, Self::ServiceMonitor | Self::PrometheusRule)
    }

    /// The name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Secret => "Secret",
            Self::Service => "Service",
            Self::ConfigMap => "ConfigMap",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ServiceMonitor => "ServiceMonitor",
            Self::PrometheusRule => "PrometheusRule",
        }
    }

    /// The resource's name in paths and in roles.
    pub fn plural(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceaccounts",
            Self::Secret => "secrets",
            Self::Service => "services",
            Self::ConfigMap => "configmaps",
            Self::Deployment => "deployments",
            Self::StatefulSet => "statefulsets",
            Self::PodDisruptionBudget => "poddisruptionbudgets",
            Self::NetworkPolicy => "networkpolicies",
            Self::ServiceMonitor => "servicemonitors",
            Self::PrometheusRule => "prometheusrules",
        }
    }

    /// The API group; empty for the core.
    pub fn group(self) -> &'static str {
        match self {
            Self::ServiceAccount | Self::Secret | Self::Service | Self::ConfigMap => "",
            Self::Deployment | Self::StatefulSet => "apps",
            Self::PodDisruptionBudget => "policy",
            Self::NetworkPolicy => "networking.k8s.io",
            Self::ServiceMonitor | Self::PrometheusRule => "monitoring.coreos.com",
        }
    }

    /// Group and version, as objects name them.
    pub fn api_version(self) -> String {
        if self.group().is_empty() { "v1".to_owned() } else { format!("{}/v1", self.group()) }
    }

    /// What the client needs to address it.
    pub fn api_resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(self.group(), "v1", self.name()), self.plural())
    }
}

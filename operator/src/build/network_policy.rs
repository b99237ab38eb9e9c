//! Who may talk to the pods of a fleet.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{BuildError, COMPONENT_LABEL, Fleet, Object, labels, object};
use crate::kinds::Kind;

const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// Provers take connections from upgraders and from namespaces of allowed accounts; upgraders and provers from the operator and from monitoring; nothing else comes in.
/// What goes out is left to the cluster's own policies.
pub fn network_policies(fleet: &Fleet<'_>) -> Result<Vec<Object>, BuildError> {
    if !fleet.resource.spec.network_policy.enabled {
        return Ok(Vec::new());
    }
    let upgraders = NetworkPolicyPeer { pod_selector: Some(matching(fleet, "upgrader")), ..NetworkPolicyPeer::default() };
    let mut callers = vec![upgraders];
    // A policy knows no accounts: whoever is in the namespace of an allowed one may knock, and needs its token.
    let own = format!("{}:{}", fleet.namespace, fleet.service_account());
    let accounts = fleet.allowed_accounts();
    let others: BTreeSet<String> = accounts
        .iter()
        .filter(|account| **account != own)
        .filter_map(|account| Some(account.split_once(':')?.0.to_owned()))
        .collect();
    if !others.is_empty() {
        let others: Vec<String> = others.into_iter().collect();
        callers.push(NetworkPolicyPeer { namespace_selector: Some(namespaces(&others)), ..NetworkPolicyPeer::default() });
    }
    Ok(vec![policy(fleet, "provers", "prover", callers)?, policy(fleet, "upgraders", "upgrader", Vec::new())?])
}

fn matching(fleet: &Fleet<'_>, component: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(fleet.selector(component)), ..LabelSelector::default() }
}

fn policy(fleet: &Fleet<'_>, suffix: &str, component: &str, mut from: Vec<NetworkPolicyPeer>) -> Result<Object, BuildError> {
    from.push(NetworkPolicyPeer {
        namespace_selector: Some(namespaces(std::slice::from_ref(&fleet.defaults.operator_namespace))),
        pod_selector: Some(LabelSelector {
            match_labels: Some(labels([("app.kubernetes.io/name", "upgrader-fleet-operator")])),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    });
    let monitoring = &fleet.resource.spec.network_policy.monitoring_namespaces;
    if !monitoring.is_empty() {
        from.push(NetworkPolicyPeer { namespace_selector: Some(namespaces(monitoring)), ..NetworkPolicyPeer::default() });
    }
    let policy = NetworkPolicy {
        metadata: fleet.meta(&format!("{}-{suffix}", fleet.name), [(COMPONENT_LABEL, component.to_owned())]),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(matching(fleet, component)),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: Some(from),
                ports: Some(vec![NetworkPolicyPort {
                    port: Some(IntOrString::String("http".to_owned())),
                    protocol: Some("TCP".to_owned()),
                    ..NetworkPolicyPort::default()
                }]),
            }]),
            ..NetworkPolicySpec::default()
        }),
    };
    object(Kind::NetworkPolicy, &policy)
}

fn namespaces(names: &[String]) -> LabelSelector {
    LabelSelector {
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: NAMESPACE_LABEL.to_owned(),
            operator: "In".to_owned(),
            values: Some(names.to_vec()),
        }]),
        ..LabelSelector::default()
    }
}

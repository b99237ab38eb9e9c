//! What all pods of a fleet have in common.

use std::collections::BTreeMap;

use fleet_api::v1alpha1::{Resources, Scheduling};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector,
    PodSecurityContext, PodSpec, Probe, ProjectedVolumeSource, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, ServiceAccountTokenProjection, Toleration, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// User and group that all containers run as.
pub const USER: i64 = 65_532;
/// Where the provers' tokens are mounted.
pub const TOKEN_DIRECTORY: &str = "/var/run/upgrader-fleet/token";

/// Where a prover pod finds what it asks the API server with.
pub const KUBE_DIRECTORY: &str = "/var/run/upgrader-fleet/kube";
/// Where an upgrader finds its account's token for the provers.
pub const ACCOUNT_DIRECTORY: &str = "/var/run/upgrader-fleet/account";
/// The audience of tokens that open provers.
pub const AUDIENCE: &str = "upgrader-fleet.dev/provers";
/// Seconds that a token of an account holds. The kubelet replaces it long before.
const TOKEN_SECONDS: i64 = 3600;

/// The pod's part of the Pod Security Standard `restricted`.
pub fn security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

/// The container's part of the Pod Security Standard `restricted`, with a read-only root file system.
pub fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

/// Requests and limits, given or by default.
pub fn resources(given: Option<&Resources>, requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ResourceRequirements {
    let defaults = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
    };
    let (requests, limits): (BTreeMap<_, _>, BTreeMap<_, _>) = match given {
        Some(given) => {
            let read = |map: &BTreeMap<String, fleet_api::v1alpha1::Quantity>| {
                map.iter().map(|(name, amount)| (name.clone(), Quantity(amount.to_string()))).collect()
            };
            (read(&given.requests), read(&given.limits))
        }
        None => (defaults(requests), defaults(limits)),
    };
    let some = |map: BTreeMap<_, _>| (!map.is_empty()).then_some(map);
    ResourceRequirements { requests: some(requests), limits: some(limits), ..ResourceRequirements::default() }
}

/// Puts the scheduling of the specification into a pod.
pub fn schedule(pod: &mut PodSpec, scheduling: &Scheduling) {
    if !scheduling.node_selector.is_empty() {
        pod.node_selector = Some(scheduling.node_selector.clone());
    }
    if !scheduling.tolerations.is_empty() {
        pod.tolerations.get_or_insert_default().extend(scheduling.tolerations.clone());
    }
    if scheduling.affinity.is_some() {
        pod.affinity.clone_from(&scheduling.affinity);
    }
    if !scheduling.topology_spread_constraints.is_empty() {
        pod.topology_spread_constraints = Some(scheduling.topology_spread_constraints.clone());
    }
    pod.priority_class_name.clone_from(&scheduling.priority_class_name);
    pod.runtime_class_name.clone_from(&scheduling.runtime_class_name);
}

/// Tolerations with which a pod leaves a lost node after 15 seconds; by default it would stay for five minutes.
pub fn leave_lost_nodes() -> Vec<Toleration> {
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
        .map(|taint| Toleration {
            key: Some(taint.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(15),
            ..Toleration::default()
        })
        .to_vec()
}

/// A probe by HTTP.
pub fn probe(path: &str, port: i32, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction { path: Some(path.to_owned()), port: IntOrString::Int(port), ..HTTPGetAction::default() }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

/// A variable of the environment.
pub fn variable(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), ..EnvVar::default() }
}

/// A variable that holds a field of the pod.
pub fn field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

/// A volume with some keys of a Secret: each pod sees what it needs. The pod waits until the Secret has them.
pub fn secret_volume(name: &str, secret: &str, keys: &[&str]) -> Volume {
    let item = |key: &&str| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), ..KeyToPath::default() };
    let source = SecretVolumeSource {
        secret_name: Some(secret.to_owned()),
        default_mode: Some(0o440),
        items: Some(keys.iter().map(item).collect()),
        ..SecretVolumeSource::default()
    };
    Volume { name: name.to_owned(), secret: Some(source), ..Volume::default() }
}

/// The token of the pod's account for an audience.
fn account_token(audience: Option<&str>) -> VolumeProjection {
    VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: audience.map(str::to_owned),
            expiration_seconds: Some(TOKEN_SECONDS),
            path: "token".to_owned(),
            ..ServiceAccountTokenProjection::default()
        }),
        ..VolumeProjection::default()
    }
}

fn projected(name: &str, sources: Vec<VolumeProjection>) -> Volume {
    let source =
        ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources), ..ProjectedVolumeSource::default() };
    Volume { name: name.to_owned(), projected: Some(source), ..Volume::default() }
}

/// A volume with the account's token for provers.
pub fn account_volume(name: &str) -> Volume {
    projected(name, vec![account_token(Some(AUDIENCE))])
}

/// A volume with what the API server is asked with: the account's token for it, and its authority, which each namespace has.
pub fn kube_volume(name: &str) -> Volume {
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".to_owned(),
        items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), ..KeyToPath::default() }]),
        ..ConfigMapProjection::default()
    };
    let authority = VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() };
    projected(name, vec![account_token(None), authority])
}

/// A volume that lives as long as the pod.
pub fn scratch(name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(k8s_openapi::api::core::v1::EmptyDirVolumeSource::default()),
        ..Volume::default()
    }
}

/// A mount.
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// A restricted pod with one container and nothing of the cluster's in it.
pub fn pod(service_account: String, container: Container, grace_seconds: i64) -> PodSpec {
    PodSpec {
        containers: vec![Container { security_context: Some(container_security()), ..container }],
        security_context: Some(security()),
        service_account_name: Some(service_account),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds),
        ..PodSpec::default()
    }
}

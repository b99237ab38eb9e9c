//! The objects of a fleet, one kind a file. No client and no clock: what comes out depends on the specification alone.

mod dashboard;
mod monitor;
mod network_policy;
mod node;
mod overlay;
mod pod;
mod prover;
mod service;
mod service_account;
mod upgrader;

use std::collections::BTreeMap;

use fleet_api::UpgraderFleet;
use fleet_api::v1alpha1::UpgraderMode;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;

pub use dashboard::{FLEET_DASHBOARD, dashboard};
pub use monitor::{ALERTS, Alert, prometheus_rule, rules, service_monitor};
pub use network_policy::network_policies;
pub use node::{node_service, shard_node, shared_node};
pub use overlay::InvalidPodTemplate;
pub use prover::{prover_deployment, prover_disruption_budget, prover_selector};
pub use service::services;
pub use service_account::service_account;
pub use upgrader::shard_deployment;

use crate::kinds::Kind;
use crate::plan::shards::Key;

/// Who applies: the field manager, and the value of `app.kubernetes.io/managed-by`.
pub const MANAGER: &str = "upgrader-fleet-operator";
/// Label with the fleet's name.
pub const FLEET_LABEL: &str = "upgrader-fleet.dev/fleet";
/// Label with the shard, `d4-r2`.
pub const SHARD_LABEL: &str = "upgrader-fleet.dev/shard";
/// Label that tells a shard's own workload from its substitute.
pub const ROLE_LABEL: &str = "upgrader-fleet.dev/role";
/// Label with the name of the kind of provers.
pub const PROVERS_LABEL: &str = "upgrader-fleet.dev/provers";
/// Label with the proof version that a prover pod serves.
pub const PROOF_VERSION_LABEL: &str = "upgrader-fleet.dev/proof-version";
/// Label of each pod: `upgrader`, `prover` or `node`.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Annotation with the revision of a shard's workload.
pub const REVISION_ANNOTATION: &str = "upgrader-fleet.dev/revision";
/// Annotation with the hash of what was applied.
pub const HASH_ANNOTATION: &str = "upgrader-fleet.dev/applied";
/// Label of prover pods that speak TLS.
pub const TLS_LABEL: &str = "upgrader-fleet.dev/tls";
/// The proof version of the released prover image.
pub const PROOF_VERSION: &str = "8";
/// The port of prover pods.
pub const PROVER_PORT: i32 = 8080;
/// The port of an upgrader's health and metrics.
pub const UPGRADER_PORT: i32 = 8081;

/// What the operator was released with and configured for.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Image of the upgrader.
    pub upgrader_image: String,
    /// Image of the prover pod; also holds `prover-proxy`.
    pub prover_image: String,
    /// Namespace of the operator, whose pods may ask upgraders and provers how they are.
    pub operator_namespace: String,
}

/// An object to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// All of it, as JSON.
    pub body: Value,
}

/// Why an object cannot be built. All are mistakes of the specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// An overlay that is no part of a pod.
    #[error("{path}.podTemplate: {source}")]
    PodTemplate {
        /// Where.
        path: &'static str,
        /// Why.
        source: InvalidPodTemplate,
    },
    /// A resource that the server has not named yet, or a bug.
    #[error("the fleet has no {0}")]
    Incomplete(&'static str),
    /// No certificate could be made.
    #[error("{0}")]
    Certificate(String),
    /// An object that is no JSON: a bug.
    #[error("cannot be written as JSON: {0}")]
    Json(String),
}

/// The fleet that objects are built for.
#[derive(Debug, Clone, Copy)]
pub struct Fleet<'a> {
    /// The resource.
    pub resource: &'a UpgraderFleet,
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// What its specification leaves out.
    pub defaults: &'a Defaults,
}

impl<'a> Fleet<'a> {
    /// The fleet, when it has been stored by a server.
    ///
    /// # Errors
    /// Without name, namespace or uid.
    pub fn new(resource: &'a UpgraderFleet, defaults: &'a Defaults) -> Result<Self, BuildError> {
        let name = resource.metadata.name.as_deref().ok_or(BuildError::Incomplete("name"))?;
        let namespace = resource.metadata.namespace.as_deref().ok_or(BuildError::Incomplete("namespace"))?;
        resource.metadata.uid.as_deref().ok_or(BuildError::Incomplete("uid"))?;
        Ok(Self { resource, name, namespace, defaults })
    }

    /// Labels of all its objects.
    pub fn labels(&self) -> BTreeMap<String, String> {
        labels([
            ("app.kubernetes.io/name", "upgrader-fleet"),
            ("app.kubernetes.io/instance", self.name),
            ("app.kubernetes.io/managed-by", MANAGER),
            (FLEET_LABEL, self.name),
        ])
    }

    /// Labels by which Services and policies find the pods of a component.
    pub fn selector(&self, component: &str) -> BTreeMap<String, String> {
        labels([(FLEET_LABEL, self.name), (COMPONENT_LABEL, component)])
    }

    fn meta(&self, name: &str, more: impl IntoIterator<Item = (&'static str, String)>) -> ObjectMeta {
        let mut labels = self.labels();
        labels.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(labels),
            owner_references: self.owner().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        }
    }

    fn owner(&self) -> Option<OwnerReference> {
        self.resource.controller_owner_ref(&())
    }

    /// Name of the Secret with the provers' tokens.
    pub fn token_secret(&self) -> String {
        format!("{}-token", self.name)
    }

    /// An empty Secret of the fleet.
    pub fn secret(&self, name: &str) -> Value {
        serde_json::json!({ "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": self.meta(name, []) })
    }

    /// Whether jobs go over TLS: those of stock nodes hold spending secrets.
    pub fn needs_tls(&self) -> bool {
        self.resource.spec.upgraders.mode == UpgraderMode::Node
    }

    /// Name of the ServiceAccount of all pods. It has no rights but to ask whose a token is, where the chart gives that, and no
    /// token is mounted that nobody uses.
    pub fn service_account(&self) -> String {
        self.name.to_owned()
    }

    /// The service accounts whose tokens open the provers, each with its namespace.
    pub fn allowed_accounts(&self) -> Vec<String> {
        let whole = |account: &String| match account.split_once('/') {
            Some((namespace, name)) => format!("{namespace}:{name}"),
            None => format!("{}:{account}", self.namespace),
        };
        self.resource.spec.allowed_service_accounts.iter().map(whole).collect()
    }

    /// Whether the fleet's own pods may use tokens of their account.
    pub fn trusts_itself(&self) -> bool {
        self.allowed_accounts().contains(&format!("{}:{}", self.namespace, self.service_account()))
    }

    /// Name of the headless Service over all prover pods.
    pub fn provers_service(&self) -> String {
        format!("{}-provers", self.name)
    }

    /// Name of a shard's workload.
    pub fn shard_name(&self, key: Key) -> String {
        let suffix = if key.role == crate::plan::shards::Role::Substitute { "-sub" } else { "" };
        format!("{}-{}{suffix}", self.name, key.class.slug())
    }

    /// Name of the workload of a kind of provers.
    pub fn prover_name(&self, kind: &str) -> String {
        if kind == "default" { format!("{}-prover", self.name) } else { format!("{}-prover-{kind}", self.name) }
    }

    /// Kind of the workloads of shards.
    pub fn shard_kind(&self) -> Kind {
        match self.resource.spec.upgraders.mode {
            UpgraderMode::Standalone => Kind::Deployment,
            UpgraderMode::Node => Kind::StatefulSet,
        }
    }

    /// A shard's workload.
    ///
    /// # Errors
    /// When the overlay of its pods is none.
    pub fn shard(&self, key: Key, stopped: bool) -> Result<Object, BuildError> {
        match self.resource.spec.upgraders.mode {
            UpgraderMode::Standalone => shard_deployment(self, key, stopped),
            UpgraderMode::Node => shard_node(self, key, stopped),
        }
    }

    /// The revision of the shards' image and options: changes exactly when a pod of a shard would.
    ///
    /// # Errors
    /// When the overlay of its pods is none.
    pub fn shard_revision(&self) -> Result<String, BuildError> {
        let any = Key::primary(fleet_api::ResidueClass::WHOLE);
        let object = self.shard(any, false)?;
        let revision = object.body.pointer("/metadata/annotations").and_then(|all| all.get(REVISION_ANNOTATION));
        revision.and_then(Value::as_str).map(str::to_owned).ok_or(BuildError::Incomplete("revision"))
    }

    /// All objects but the shards' workloads. `replicas` has the number of pods of each kind of provers.
    ///
    /// # Errors
    /// When an overlay is none.
    pub fn objects(&self, replicas: &BTreeMap<String, i32>) -> Result<Vec<Object>, BuildError> {
        let mut objects = vec![service_account(self)?];
        objects.extend(services(self)?);
        objects.extend(network_policies(self)?);
        for (kind, provers) in self.resource.spec.prover_kinds() {
            let count = replicas.get(kind).copied().unwrap_or(provers.replicas);
            objects.push(prover_deployment(self, kind, provers, count)?);
            objects.extend(prover_disruption_budget(self, kind, count)?);
        }
        objects.extend(shared_node(self)?);
        objects.extend(service_monitor(self)?);
        objects.extend(prometheus_rule(self));
        objects.extend(dashboard(self)?);
        Ok(objects)
    }
}

/// The labels as a map.
pub(crate) fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn object<K: Serialize + Resource<DynamicType = ()>>(kind: Kind, object: &K) -> Result<Object, BuildError> {
    let name = object.meta().name.clone().ok_or(BuildError::Incomplete("name"))?;
    let mut body = serde_json::to_value(object).map_err(|error| BuildError::Json(error.to_string()))?;
    body["apiVersion"] = kind.api_version().into();
    body["kind"] = kind.name().into();
    Ok(Object { kind, name, body })
}

/// A short stable hash of JSON (64-bit FNV-1a). Against nobody's malice: it only tells one configuration from another.
pub fn hash(value: &Value) -> String {
    let text = value.to_string();
    let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The revision of a template.
fn revision(template: &PodTemplateSpec) -> Result<String, BuildError> {
    serde_json::to_value(template).map(|json| hash(&json)).map_err(|error| BuildError::Json(error.to_string()))
}

/// The uid of the fleet.
pub fn uid(resource: &UpgraderFleet) -> String {
    resource.uid().unwrap_or_default()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

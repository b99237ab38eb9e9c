//! What is kept of a watched object. As Kubernetes' own types an object takes some ten kilobytes, most of them fields that are empty or
//! that nobody reads; a fleet of nine pods has thirty objects, and an operator may have a thousand fleets.

use fleet_api::ResidueClass;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::ObjectMeta;

use crate::build::{
    COMPONENT_LABEL, FLEET_LABEL, HASH_ANNOTATION, PROVERS_LABEL, REVISION_ANNOTATION, ROLE_LABEL, SHARD_LABEL, TLS_LABEL,
};
use crate::plan::shards::{Key, Role};
use crate::writer::{Live, token};

/// What matters of any object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The fleet that its label names.
    pub fleet: Option<String>,
    /// The uids of its owners.
    pub owners: Vec<String>,
    /// What a writer needs to know.
    pub live: Live,
}

impl Facts {
    /// Reads them; none of what has no name.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        Some(Self {
            namespace: meta.namespace.clone()?,
            name: meta.name.clone()?,
            fleet: label(meta, FLEET_LABEL),
            owners: meta.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect(),
            live: Live {
                uid: meta.uid.clone().unwrap_or_default(),
                hash: annotation(meta, HASH_ANNOTATION),
                token: token(meta),
                deleting: meta.deletion_timestamp.is_some(),
            },
        })
    }

    /// Whether an object is a fleet's own: by label and by owner.
    pub fn belongs(&self, fleet: &str, uid: &str) -> bool {
        self.fleet.as_deref() == Some(fleet) && self.owners.iter().any(|owner| owner == uid)
    }
}

/// What can be on a [`crate::shelf::Shelf`].
pub trait Fact: Send + Sync + 'static {
    /// What it has in common with all others.
    fn facts(&self) -> &Facts;
}

impl Fact for Facts {
    fn facts(&self) -> &Facts {
        self
    }
}

/// A Deployment or a StatefulSet, with the state of its rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// What it has in common with all others.
    pub facts: Facts,
    /// The shard that it is, if it is one.
    pub key: Option<Key>,
    /// The kind of provers that it is, if it is one.
    pub provers: Option<String>,
    /// The revision that was applied last.
    pub revision: Option<String>,
    /// How many pods it shall have.
    pub replicas: i32,
    /// Whether all its pods have the revision.
    pub rolled_out: bool,
    /// Why it has no pods although it should, as its controller says.
    pub failure: Option<String>,
}

impl Fact for Workload {
    fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl Workload {
    fn of(meta: &ObjectMeta, replicas: Option<i32>, rolled_out: bool, failure: Option<String>) -> Option<Self> {
        Some(Self {
            facts: Facts::of(meta)?,
            key: key(meta),
            provers: label(meta, PROVERS_LABEL),
            revision: annotation(meta, REVISION_ANNOTATION),
            replicas: replicas.unwrap_or(1),
            rolled_out,
            failure,
        })
    }

    /// Reads a Deployment.
    pub fn of_deployment(object: &Deployment) -> Option<Self> {
        let status = object.status.as_ref();
        let number = |read: fn(&DeploymentStatus) -> Option<i32>| status.and_then(read).unwrap_or(0);
        let replicas = object.spec.replicas.unwrap_or(1);
        let seen = status.and_then(|status| status.observed_generation) == object.metadata.generation;
        let rolled_out = seen && number(|s| s.updated_replicas) == replicas && number(|s| s.replicas) == replicas;
        let failing = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten().find(|condition| {
            condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True")
        });
        Self::of(&object.metadata, object.spec.replicas, rolled_out, failing.and_then(|condition| condition.message.clone()))
    }

    /// Reads a StatefulSet.
    pub fn of_set(object: &StatefulSet) -> Option<Self> {
        let status = object.status.as_ref();
        let seen = status.and_then(|status| status.observed_generation) == object.metadata.generation;
        let updated = status.is_some_and(|status| status.current_revision == status.update_revision);
        Self::of(&object.metadata, object.spec.replicas, seen && updated, None)
    }
}

/// A pod of a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct PodFacts {
    /// What it has in common with all others.
    pub facts: Facts,
    /// `upgrader`, `prover` or `node`.
    pub component: Option<String>,
    /// The shard that it belongs to.
    pub key: Option<Key>,
    /// The kind of provers that it belongs to.
    pub provers: Option<String>,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whether a StatefulSet made it: a stock node.
    pub in_set: bool,
    /// Its node.
    pub node: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Whether the kubelet finds it ready.
    pub ready: bool,
    /// Whether its containers have been started.
    pub running: bool,
    /// Whether it has ended for good.
    pub ended: bool,
    /// Why no node takes it, as the scheduler says.
    pub unschedulable: Option<String>,
}

impl Fact for PodFacts {
    fn facts(&self) -> &Facts {
        &self.facts
    }
}

impl PodFacts {
    /// Reads a pod.
    pub fn of(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
        let conditions = || status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        Some(Self {
            facts: Facts::of(meta)?,
            component: label(meta, COMPONENT_LABEL),
            key: key(meta),
            provers: label(meta, PROVERS_LABEL),
            tls: label(meta, TLS_LABEL).is_some(),
            in_set: label(meta, "apps.kubernetes.io/pod-index").is_some(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            address: status.and_then(|status| status.pod_ip.clone()),
            ready: conditions().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            running: phase == "Running",
            ended: matches!(phase, "Succeeded" | "Failed"),
            unschedulable: status.and_then(unschedulable),
        })
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        &self.facts.live.uid
    }

    /// Whether it is being deleted.
    pub fn is_going(&self) -> bool {
        self.facts.live.deleting
    }
}

fn unschedulable(status: &PodStatus) -> Option<String> {
    let found = status.conditions.as_ref()?.iter().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    Some(found.message.clone().unwrap_or_else(|| "no node has room".to_owned()))
}

fn key(meta: &ObjectMeta) -> Option<Key> {
    let class = ResidueClass::from_slug(&label(meta, SHARD_LABEL)?)?;
    Some(Key { class, role: Role::from_name(&label(meta, ROLE_LABEL)?)? })
}

fn label(meta: &ObjectMeta, name: &str) -> Option<String> {
    meta.labels.as_ref()?.get(name).cloned()
}

fn annotation(meta: &ObjectMeta, name: &str) -> Option<String> {
    meta.annotations.as_ref()?.get(name).cloned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(more: &Value) -> PodFacts {
        let mut pod = json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u", "labels": {
                FLEET_LABEL: "prod", COMPONENT_LABEL: "upgrader", SHARD_LABEL: "d4-r2", ROLE_LABEL: "primary",
            } },
            "spec": { "nodeName": "n", "containers": [] },
        });
        pod["status"] = more.clone();
        PodFacts::of(&serde_json::from_value(pod).expect("a pod")).expect("a name")
    }

    #[test]
    fn a_pod_is_ready_when_the_kubelet_says_so_and_ended_when_its_phase_does() {
        let facts = pod(&json!({ "phase": "Running", "podIP": "10.0.0.1", "conditions": [
            { "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "True" },
        ] }));
        assert_eq!(facts.key, Some(Key::primary("4:2".parse().expect("a class"))));
        assert_eq!((facts.node.as_deref(), facts.address.as_deref()), (Some("n"), Some("10.0.0.1")));
        assert!(facts.ready && facts.running && !facts.ended && facts.unschedulable.is_none());
        let facts = pod(&json!({ "phase": "Failed", "conditions": [{ "type": "Ready", "status": "False" }] }));
        assert!(!facts.ready && !facts.running && facts.ended);
        let waits = json!({ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes" });
        assert_eq!(pod(&json!({ "conditions": [waits] })).unschedulable.as_deref(), Some("0/1 nodes"));
        assert!(!pod(&Value::Null).ready);
    }

    #[test]
    fn a_rollout_is_over_when_its_controller_has_seen_the_last_change() {
        let workload = |observed: i64, updated: i32, pods: i32| {
            let object = json!({
                "metadata": { "name": "d", "namespace": "ns", "uid": "u", "generation": 3, "annotations": { REVISION_ANNOTATION: "r" },
                    "ownerReferences": [{ "apiVersion": "v1", "kind": "UpgraderFleet", "name": "prod", "uid": "owner" }],
                    "labels": { FLEET_LABEL: "prod" } },
                "spec": { "replicas": 1, "selector": {}, "template": {} },
                "status": { "observedGeneration": observed, "updatedReplicas": updated, "replicas": pods },
            });
            Workload::of_deployment(&serde_json::from_value(object).expect("a Deployment")).expect("a name")
        };
        assert!(workload(3, 1, 1).rolled_out);
        assert!(!workload(2, 1, 1).rolled_out, "its controller has not seen the last change");
        assert!(!workload(3, 1, 2).rolled_out, "an old pod is still there");
        let found = workload(3, 1, 1);
        assert_eq!((found.revision.as_deref(), found.facts.live.token.as_str()), (Some("r"), "3"));
        assert!(
            found.facts.belongs("prod", "owner") && !found.facts.belongs("prod", "other") && !found.facts.belongs("x", "owner")
        );
    }
}

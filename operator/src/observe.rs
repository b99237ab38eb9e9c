//! From watched objects and answers of pods to what the planner takes. No IO.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::ResidueClass;
use fleet_api::v1alpha1::{ShardPhase, UpgraderFleetStatus};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;

use crate::build::{COMPONENT_LABEL, PROVERS_LABEL, REVISION_ANNOTATION, ROLE_LABEL, SHARD_LABEL};
use crate::plan::shards::{Health, Key, Role, Workload};
use crate::poll::Answers;

/// A shard's workload with what the planner does not need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// For the planner.
    pub workload: Workload,
    /// Name of the object.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// A pod of it, a ready one if there is one.
    pub pod: Option<String>,
    /// Why it has no pods although it should, as its controller says.
    pub failure: Option<String>,
}

/// Prover pods of one kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provers {
    /// Pods that are there and not going.
    pub pods: i32,
    /// Ready ones.
    pub ready: i32,
    /// Without a node.
    pub unschedulable: i32,
    /// Whether some pods still have an image or options of before.
    pub updating: bool,
    /// What the scheduler says about one of them.
    pub reason: Option<String>,
    /// Queued and running proofs, where pods answered.
    pub queue: Option<i64>,
    /// Estimated seconds of work, where pods answered.
    pub work_seconds: Option<f64>,
    /// Names of pods with the number of proofs that they run.
    pub busy: BTreeMap<String, i64>,
}

/// The state of a workload's rollout, from a Deployment or a StatefulSet.
struct Rollout<'a> {
    meta: &'a ObjectMeta,
    replicas: i32,
    rolled_out: bool,
    failure: Option<String>,
}

/// A fleet as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Its shards' workloads.
    pub shards: BTreeMap<Key, Shard>,
    /// Its provers by kind.
    pub provers: BTreeMap<String, Provers>,
}

/// Looks at the objects of one fleet.
pub fn observe(
    deployments: &[Arc<Deployment>],
    stateful_sets: &[Arc<StatefulSet>],
    pods: &[Arc<Pod>],
    answers: &Answers,
    status: Option<&UpgraderFleetStatus>,
    now: Timestamp,
) -> Observed {
    let mut observed = Observed::default();
    let rollouts =
        deployments.iter().map(|object| of_deployment(object)).chain(stateful_sets.iter().map(|object| of_set(object)));
    for rollout in rollouts {
        let Some(key) = key_of(rollout.meta) else { continue };
        // What is being deleted does not come back, and cannot be applied again before it is gone.
        let own: Vec<_> = pods.iter().filter(|pod| key_of(&pod.metadata) == Some(key)).collect();
        let ready = own.iter().find(|pod| is_up(pod, answers));
        let is_outdated = |pod: &&&Arc<Pod>| {
            let meta = &pod.metadata;
            meta.deletion_timestamp.is_none() && answers.is_outdated(meta.uid.as_deref().unwrap_or_default())
        };
        let health = if ready.is_none() && own.iter().any(|pod| is_outdated(&pod)) {
            Health::Outdated
        } else {
            health(key, ready.is_some(), status, now)
        };
        let revision = rollout.meta.annotations.as_ref().and_then(|all| all.get(REVISION_ANNOTATION)).cloned();
        let any = ready.or_else(|| own.iter().find(|pod| pod.metadata.deletion_timestamp.is_none()));
        observed.shards.insert(
            key,
            Shard {
                workload: Workload {
                    revision: revision.unwrap_or_default(),
                    rolled_out: rollout.rolled_out,
                    health,
                    stopped: rollout.replicas == 0,
                },
                name: rollout.meta.name.clone().unwrap_or_default(),
                uid: rollout.meta.uid.clone().unwrap_or_default(),
                pod: any.and_then(|pod| pod.metadata.name.clone()),
                failure: rollout.failure,
            },
        );
    }
    for pod in pods {
        let label = |name| pod.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
        let (Some("prover"), Some(kind), None) =
            (label(COMPONENT_LABEL), label(PROVERS_LABEL), &pod.metadata.deletion_timestamp)
        else {
            continue;
        };
        count_prover(observed.provers.entry(kind.to_owned()).or_default(), pod, answers);
    }
    for deployment in deployments {
        let label = deployment.metadata.labels.as_ref().and_then(|labels| labels.get(PROVERS_LABEL));
        let Some(kind) = label else { continue };
        let rollout = of_deployment(deployment);
        let provers = observed.provers.entry(kind.clone()).or_default();
        provers.updating = !rollout.rolled_out;
        if let Some(message) = rollout.failure {
            provers.reason.get_or_insert(message);
        }
    }
    observed
}

fn count_prover(provers: &mut Provers, pod: &Pod, answers: &Answers) {
    if matches!(phase(pod), "Succeeded" | "Failed") {
        return;
    }
    provers.pods += 1;
    provers.ready += i32::from(is_up(pod, answers));
    if let Some(reason) = unschedulable(pod) {
        provers.unschedulable += 1;
        provers.reason = Some(reason);
    }
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    if let Some(load) = answers.load(uid) {
        *provers.queue.get_or_insert(0) += load.queued + load.running;
        *provers.work_seconds.get_or_insert(0.0) += load.work_seconds;
        provers.busy.insert(pod.metadata.name.clone().unwrap_or_default(), load.running);
    }
}

fn key_of(meta: &ObjectMeta) -> Option<Key> {
    let labels = meta.labels.as_ref()?;
    let class = ResidueClass::from_slug(labels.get(SHARD_LABEL)?)?;
    Some(Key { class, role: Role::from_name(labels.get(ROLE_LABEL)?)? })
}

fn of_deployment(object: &Deployment) -> Rollout<'_> {
    let status = object.status.as_ref();
    let number = |read: fn(&k8s_openapi::api::apps::v1::DeploymentStatus) -> Option<i32>| status.and_then(read).unwrap_or(0);
    let replicas = object.spec.replicas.unwrap_or(1);
    let seen = status.and_then(|status| status.observed_generation) == object.metadata.generation;
    let failing =
        status.and_then(|status| status.conditions.as_ref()).into_iter().flatten().find(|condition| {
            condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True")
        });
    Rollout {
        meta: &object.metadata,
        replicas,
        rolled_out: seen && number(|s| s.updated_replicas) == replicas && number(|s| s.replicas) == replicas,
        failure: failing.and_then(|condition| condition.message.clone()),
    }
}

fn of_set(object: &StatefulSet) -> Rollout<'_> {
    let status = object.status.as_ref();
    let replicas = object.spec.replicas.unwrap_or(1);
    let seen = status.and_then(|status| status.observed_generation) == object.metadata.generation;
    let updated = status.is_some_and(|status| status.current_revision == status.update_revision);
    Rollout { meta: &object.metadata, replicas, rolled_out: seen && updated, failure: None }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether a pod does its work: the kubelet found it ready, it is not going, and our own questions are answered.
pub fn is_up(pod: &Pod, answers: &Answers) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    ready && pod.metadata.deletion_timestamp.is_none() && !answers.is_silent(uid)
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled" && condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    Some(found.message.clone().unwrap_or_else(|| "no node has room".to_owned()))
}

/// A workload's health, with since when from the last status: it survives the operator. Substitutes have no line of their own in
/// the status; they count as ready since just now.
fn health(key: Key, ready: bool, status: Option<&UpgraderFleetStatus>, now: Timestamp) -> Health {
    let before = status
        .filter(|_| key.role == Role::Primary)
        .and_then(|status| status.shards.iter().find(|shard| shard.class == key.class));
    let since = |phase: ShardPhase| {
        let at = before.filter(|shard| shard.phase == phase)?.since.as_ref()?.0;
        Some(Duration::try_from(now.duration_since(at)).unwrap_or_default().as_secs())
    };
    let phase = before.map(|shard| shard.phase);
    if ready {
        Health::Ready { seconds: since(ShardPhase::Ready).unwrap_or(0) }
    } else {
        match phase {
            Some(ShardPhase::Ready | ShardPhase::Unready) => Health::Lost { seconds: since(ShardPhase::Unready).unwrap_or(0) },
            _ => Health::Starting,
        }
    }
}

//! From watched objects and answers of pods to what the planner takes. No IO.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::v1alpha1::{ShardPhase, UpgraderFleetStatus};
use k8s_openapi::jiff::Timestamp;

use crate::facts::{self, PodFacts};
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

/// A fleet as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Its shards' workloads.
    pub shards: BTreeMap<Key, Shard>,
    /// Its provers by kind.
    pub provers: BTreeMap<String, Provers>,
    /// Whether a pod has its node and does not start: it may wait for a Secret.
    pub stuck: bool,
}

/// Looks at the objects of one fleet.
pub fn observe(
    workloads: &[Arc<facts::Workload>],
    pods: &[Arc<PodFacts>],
    answers: &Answers,
    status: Option<&UpgraderFleetStatus>,
    now: Timestamp,
) -> Observed {
    let is_stuck = |pod: &Arc<PodFacts>| pod.node.is_some() && !pod.running && !pod.ended && !pod.is_going();
    let mut observed = Observed { stuck: pods.iter().any(is_stuck), ..Observed::default() };
    for found in workloads {
        let Some(key) = found.key else { continue };
        // What is being deleted does not come back, and cannot be applied again before it is gone.
        let own: Vec<_> = pods.iter().filter(|pod| pod.key == Some(key)).collect();
        let ready = own.iter().find(|pod| is_up(pod, answers));
        let is_outdated = |pod: &&&Arc<PodFacts>| !pod.is_going() && answers.is_outdated(pod.uid());
        let health = if ready.is_none() && own.iter().any(|pod| is_outdated(&pod)) {
            Health::Outdated
        } else {
            health(key, ready.is_some(), status, now)
        };
        let any = ready.or_else(|| own.iter().find(|pod| !pod.is_going()));
        observed.shards.insert(
            key,
            Shard {
                workload: Workload {
                    revision: found.revision.clone().unwrap_or_default(),
                    rolled_out: found.rolled_out,
                    health,
                    stopped: found.replicas == 0,
                },
                name: found.facts.name.clone(),
                uid: found.facts.live.uid.clone(),
                pod: any.map(|pod| pod.facts.name.clone()),
                failure: found.failure.clone(),
            },
        );
    }
    for pod in pods.iter().filter(|pod| pod.component.as_deref() == Some("prover") && !pod.is_going()) {
        if let Some(kind) = &pod.provers {
            count_prover(observed.provers.entry(kind.clone()).or_default(), pod, answers);
        }
    }
    for found in workloads {
        let Some(kind) = &found.provers else { continue };
        let provers = observed.provers.entry(kind.clone()).or_default();
        provers.updating = !found.rolled_out;
        if let Some(message) = &found.failure {
            provers.reason.get_or_insert_with(|| message.clone());
        }
    }
    observed
}

fn count_prover(provers: &mut Provers, pod: &PodFacts, answers: &Answers) {
    if pod.ended {
        return;
    }
    provers.pods += 1;
    provers.ready += i32::from(is_up(pod, answers));
    if let Some(reason) = &pod.unschedulable {
        provers.unschedulable += 1;
        provers.reason = Some(reason.clone());
    }
    if let Some(load) = answers.load(pod.uid()) {
        *provers.queue.get_or_insert(0) += load.queued + load.running;
        *provers.work_seconds.get_or_insert(0.0) += load.work_seconds;
        provers.busy.insert(pod.facts.name.clone(), load.running);
    }
}

/// Whether a pod does its work: the kubelet found it ready, it is not going, and our own questions are answered.
pub fn is_up(pod: &PodFacts, answers: &Answers) -> bool {
    pod.ready && !pod.is_going() && !answers.is_silent(pod.uid())
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

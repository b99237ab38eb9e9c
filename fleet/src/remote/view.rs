//! From the resource and the pods to what is shown. No IO.

use std::collections::BTreeMap;

use fleet_api::v1alpha1::{ShardPhase, UpgraderMode};
use fleet_api::{CoverageMask, ResidueClass, UpgraderFleet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

/// The port of an upgrader whose pod does not name it.
const UPGRADER_PORT: u16 = 8081;

/// A fleet of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct View {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its network.
    pub network: String,
    /// Whether the operator says that all is ready.
    pub ready: bool,
    /// Whether the status is about another specification than the current one: the operator is late, or gone.
    pub outdated: bool,
    /// Ready and wanted shards, as the operator counts them.
    pub shards_ready: Option<String>,
    /// Covered values of a transaction id's last byte, of 256.
    pub coverage: u16,
    /// The uncovered ones, in the fewest classes.
    pub uncovered: Vec<ResidueClass>,
    /// Ready and wanted prover pods.
    pub provers_ready: Option<String>,
    /// Queued and running proofs.
    pub queue: Option<i32>,
    /// Each shard.
    pub shards: Vec<Shard>,
    /// Each kind of provers.
    pub provers: Vec<Provers>,
    /// Each condition.
    pub conditions: Vec<Condition>,
    /// Each pod.
    pub pods: Vec<PodLine>,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shard {
    /// Its class.
    pub class: ResidueClass,
    /// Where it is in its life.
    pub phase: ShardPhase,
    /// For how many seconds.
    pub seconds: Option<i64>,
    /// The pod that upgrades for it.
    pub pod: Option<String>,
    /// Where that pod runs.
    pub node: Option<String>,
    /// Whether a substitute is there or being started.
    pub substituted: bool,
}

/// Prover pods of a kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Provers {
    /// Its name.
    pub name: String,
    /// Ready pods.
    pub ready: i32,
    /// Wanted pods.
    pub desired: i32,
    /// Pods that no node has room for.
    pub unschedulable: i32,
    /// Queued and running proofs.
    pub queue: Option<i32>,
    /// Seconds of work that waits.
    pub queued_seconds: Option<i32>,
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Condition {
    /// Its type.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// For how many seconds.
    pub seconds: i64,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PodLine {
    /// Its name.
    pub name: String,
    /// `upgrader`, `prover` or `node`.
    pub component: String,
    /// Its shard or kind of provers.
    pub part: String,
    /// Ready, or why not.
    pub state: String,
    /// Where it runs.
    pub node: Option<String>,
    /// How often its containers were started again.
    pub restarts: i32,
    /// Seconds since it was made.
    pub age: i64,
}

/// Who can say what is done with a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its class.
    pub class: ResidueClass,
    /// A pod of it.
    pub pod: String,
    /// Where that pod answers.
    pub port: u16,
    /// Where it runs.
    pub node: Option<String>,
    /// Whether the kubelet finds it ready.
    pub ready: bool,
}

/// What is shown.
pub fn view(fleet: &UpgraderFleet, pods: &[Pod], now: Timestamp) -> View {
    let status = fleet.status.clone().unwrap_or_default();
    let since = |time: Timestamp| now.as_second().saturating_sub(time.as_second()).max(0);
    let nodes: BTreeMap<&str, &str> =
        pods.iter().filter_map(|pod| Some((pod.metadata.name.as_deref()?, node_of(pod)?))).collect();
    // What nobody has looked at covers nothing.
    let covered: CoverageMask = status.coverage_mask.as_deref().and_then(|mask| mask.parse().ok()).unwrap_or_default();
    let shard = |shard: &fleet_api::v1alpha1::ShardStatus| Shard {
        class: shard.class,
        phase: shard.phase,
        seconds: shard.since.as_ref().map(|time| since(time.0)),
        pod: shard.pod.clone(),
        node: shard.pod.as_deref().and_then(|pod| nodes.get(pod)).map(|node| (*node).to_owned()),
        substituted: shard.substituted,
    };
    let provers = status.provers.iter().map(|kind| Provers {
        name: kind.name.clone(),
        ready: kind.ready,
        desired: kind.desired,
        unschedulable: kind.unschedulable,
        queue: kind.queue,
        queued_seconds: kind.queued_seconds,
    });
    let conditions = status.conditions.iter().map(|one| Condition {
        kind: one.type_.clone(),
        status: one.status.clone(),
        reason: one.reason.clone(),
        message: one.message.clone(),
        seconds: since(one.last_transition_time.0),
    });
    let mut pods: Vec<PodLine> = pods.iter().map(|pod| line(pod, &since)).collect();
    pods.sort_by(|one, other| (&other.component, &one.part, &one.name).cmp(&(&one.component, &other.part, &other.name)));
    View {
        name: fleet.metadata.name.clone().unwrap_or_default(),
        namespace: fleet.metadata.namespace.clone().unwrap_or_default(),
        network: fleet.spec.network.node_name().to_owned(),
        ready: status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
        outdated: status.observed_generation != fleet.metadata.generation,
        shards_ready: status.ready_shards.clone(),
        coverage: covered.count(),
        uncovered: classes_of(!covered),
        provers_ready: status.ready_provers.clone(),
        queue: status.queue,
        shards: status.shards.iter().map(shard).collect(),
        provers: provers.collect(),
        conditions: conditions.collect(),
        pods,
    }
}

/// Pods that upgrade the transactions with this last byte, the one that knows best first.
///
/// # Errors
///
/// A text for people: nobody does, or those who do cannot be asked.
pub fn owners(fleet: &UpgraderFleet, pods: &[Pod], last_byte: u8) -> Result<Vec<Owner>, String> {
    let class_of = |pod: &Pod| ResidueClass::from_slug(label(pod, "upgrader-fleet.dev/shard")?);
    let is_going = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
    let mut found: Vec<Owner> = pods
        .iter()
        .filter(|pod| !is_going(pod))
        .filter_map(|pod| {
            let class = class_of(pod).filter(|class| class.owns(last_byte))?;
            Some(Owner {
                class,
                pod: pod.metadata.name.clone()?,
                port: port_of(pod),
                node: node_of(pod).map(str::to_owned),
                ready: is_ready(pod),
            })
        })
        .collect();
    if found.is_empty() {
        return Err(format!("no pod of this fleet upgrades transactions whose id ends with {last_byte:02x}"));
    }
    if fleet.spec.upgraders.mode == UpgraderMode::Node {
        let names: Vec<&str> = found.iter().map(|owner| owner.pod.as_str()).collect();
        let class = found[0].class;
        return Err(format!(
            "it is in shard {class}, which is the node {}: nodes do not explain what they do",
            names.join(", ")
        ));
    }
    // While shards change, the finer class is the one that stays or comes.
    found.sort_by_key(|owner| (!owner.ready, std::cmp::Reverse(owner.class.divisor()), owner.pod.clone()));
    Ok(found)
}

/// The fewest residue classes that make up this set.
fn classes_of(mask: CoverageMask) -> Vec<ResidueClass> {
    fn add(class: ResidueClass, mask: CoverageMask, found: &mut Vec<ResidueClass>) {
        if mask.covers(class.mask()) {
            found.push(class);
        } else if (mask & class.mask()).count() > 0 {
            class.split().into_iter().flatten().for_each(|half| add(half, mask, found));
        }
    }
    let mut found = Vec::new();
    add(ResidueClass::WHOLE, mask, &mut found);
    found
}

fn line(pod: &Pod, since: &impl Fn(Timestamp) -> i64) -> PodLine {
    let part = label(pod, "upgrader-fleet.dev/shard").and_then(ResidueClass::from_slug).map(|class| class.to_string());
    let is_substitute = label(pod, "upgrader-fleet.dev/role") == Some("substitute");
    let part = part.map(|class| if is_substitute { format!("{class} (substitute)") } else { class });
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    PodLine {
        name: pod.metadata.name.clone().unwrap_or_default(),
        component: label(pod, "app.kubernetes.io/component").unwrap_or_default().to_owned(),
        part: part.or_else(|| label(pod, "upgrader-fleet.dev/provers").map(str::to_owned)).unwrap_or_default(),
        state: state(pod),
        node: node_of(pod).map(str::to_owned),
        restarts: statuses.into_iter().flatten().map(|container| container.restart_count).sum(),
        age: pod.metadata.creation_timestamp.as_ref().map_or(0, |time| since(time.0)),
    }
}

fn label<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn port_of(pod: &Pod) -> u16 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let named = containers.flat_map(|one| one.ports.iter().flatten()).find(|port| port.name.as_deref() == Some("http"));
    named.and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(UPGRADER_PORT)
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True")
}

/// As `kubectl get pods` has it, in one word where that will do.
fn state(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "terminating".to_owned();
    }
    if is_ready(pod) {
        return "ready".to_owned();
    }
    let status = pod.status.clone().unwrap_or_default();
    let waiting =
        status.container_statuses.iter().flatten().find_map(|one| one.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let refused = status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled" && one.status == "False");
    let phase = status.phase.unwrap_or_else(|| "Pending".to_owned()).to_lowercase();
    match (waiting, refused.and_then(|one| one.message.clone())) {
        (Some(reason), _) => format!("{phase}: {reason}"),
        (None, Some(message)) => format!("{phase}: {message}"),
        (None, None) => format!("{phase}, not ready"),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

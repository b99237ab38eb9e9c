//! `status`: what the operator saw.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shard::ResidueClass;

/// What the operator saw and did last.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgraderFleetStatus {
    /// Generation of the specification that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Covered`, `Resharding`, `ProversAvailable` and `Degraded`.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// Ready and wanted shards, as `kubectl get` prints them: `3/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_shards: Option<String>,
    /// Covered values of the last byte of transaction ids, of 256: `256/256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<String>,
    /// The covered values, one bit each, as 64 hexadecimal digits, byte 255 first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage_mask: Option<String>,
    /// Byte values with more than one ready owner: wasted proofs at worst.
    #[serde(default)]
    pub overlapping: i32,
    /// Each shard.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["class".to_owned()]))]
    pub shards: Vec<ShardStatus>,
    /// The change of shards under way, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reshard: Option<ReshardStatus>,
    /// Ready and wanted prover pods: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_provers: Option<String>,
    /// Each kind of prover pods.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub provers: Vec<ProverStatus>,
    /// Queued and running proofs over all prover pods, as they report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<i32>,
    /// Pods of `spec.provers`, for the `scale` subresource.
    #[serde(default)]
    pub replicas: i32,
    /// Labels of the pods of `spec.provers`, for the `scale` subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

/// Where a shard is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ShardPhase {
    /// Wanted, not ready yet.
    Starting,
    /// Upgrades its transactions.
    Ready,
    /// Was ready and does not answer.
    Unready,
    /// Not wanted any more, kept until others cover its transactions.
    Retiring,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// The residue class `D:R` of the last byte of transaction ids.
    pub class: ResidueClass,
    /// Where it is in its life.
    pub phase: ShardPhase,
    /// Byte values that belong to it, of 256.
    pub weight: i32,
    /// The pod that upgrades for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Whether a substitute is there or being started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub substituted: bool,
    /// Since when it has been in this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// What a change of shards waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReshardPhase {
    /// New shards start; the old ones go on.
    Starting,
    /// New shards are ready; the old ones finish and go.
    Retiring,
}

/// A change of shards under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReshardStatus {
    /// What it waits for.
    pub phase: ReshardPhase,
    /// Classes that are wanted and not ready.
    pub pending: i32,
    /// Classes that are not wanted and still there.
    pub retiring: i32,
}

/// Prover pods of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProverStatus {
    /// `default` for `spec.provers`, otherwise the name in `spec.additionalProvers`.
    pub name: String,
    /// Pods wanted.
    pub desired: i32,
    /// Pods that passed their self-test.
    pub ready: i32,
    /// Pods that no node has room for, for example because all GPUs are taken.
    pub unschedulable: i32,
    /// Queued and running proofs, as the pods report them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<i32>,
    /// Seconds of work queued, by the pods' own estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_seconds: Option<i32>,
}

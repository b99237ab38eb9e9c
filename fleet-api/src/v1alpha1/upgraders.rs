//! `spec.upgraders`: who watches the mempool.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{PodOverlay, Resources, Scheduling};
use crate::shard::ResidueClass;

/// The kind of upgrader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpgraderMode {
    /// Our stateless upgrader against a node's JSON-RPC: no chain data, no wallet, restarts in a second. Neptune Cash only.
    #[default]
    Standalone,
    /// Stock nodes with `--tx-proof-upgrading`, one for each shard. Each holds chain data and a wallet.
    Node,
}

/// Who upgrades: shards, fees, and the pods that do it.
///
/// A shard is a residue class `D:R` of the last byte of the transaction id. `shards` cuts the classes by itself; `classes` lists
/// them. Neither: one shard. A change never leaves a transaction without an upgrader: new shards are ready before old ones go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.shards) && has(self.classes))")
    .message("shards and classes exclude each other: remove one of them"))]
pub struct UpgradersSpec {
    /// `Standalone` (default) or `Node`. Immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("mode is immutable: create another fleet and delete this one"))]
    pub mode: UpgraderMode,
    /// Number of shards, 1 to 128. Default: 1. Excludes `classes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 128))]
    pub shards: Option<i32>,
    /// The shards themselves, each `D:R` with D a power of two up to 128 and R less than D. Together they cover each transaction
    /// exactly once. Excludes `shards`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(c, int(c.split(':')[1]) < int(c.split(':')[0]))")
            .message("in each class D:R, R is less than D"),
        validation = Rule::new("self.map(c, 128 / int(c.split(':')[0])).sum() == 128")
            .message("classes do not cover each transaction exactly once: the sum of 1/D over all classes D:R is 1"),
        validation = Rule::new(
            "self.all(a, self.exists_one(b, int(b.split(':')[0]) <= int(a.split(':')[0]) \
             ? int(a.split(':')[1]) % int(b.split(':')[0]) == int(b.split(':')[1]) \
             : int(b.split(':')[1]) % int(a.split(':')[0]) == int(a.split(':')[1])))")
            .message("classes overlap: a transaction would be upgraded twice"),
    )]
    pub classes: Option<Vec<ResidueClass>>,
    /// Image of the upgrader; in mode `Node` taken from `node.deploy` instead. Default: the one that the operator was released with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Which part of the fees is kept.
    #[serde(default)]
    pub gobbling: Gobbling,
    /// Address that gobbled fees go to, in mode `Standalone`. Without one, the upgrader upgrades and takes no fee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub receiving_address: Option<String>,
    /// Transactions with more inner proofs than this are left to others. Default: 16.
    #[serde(default = "default_max_num_proofs")]
    #[schemars(range(min = 1, max = 256))]
    pub max_num_proofs: i32,
    /// What happens when a shard dies, in mode `Standalone`. A stock node has no substitute: it would have to synchronise first.
    #[serde(default)]
    pub failover: Failover,
    /// Shards that may start at once during a resize, 1 to 128. Default: 4.
    #[serde(default = "default_max_surge")]
    #[schemars(range(min = 1, max = 128))]
    pub max_surge: i32,
    /// Shards that may restart at once when image or options change, 1 to 128. Default: 1. In mode `Standalone` a restarted
    /// shard's successor is ready before it goes.
    #[serde(default = "default_max_unavailable")]
    #[schemars(range(min = 1, max = 128))]
    pub max_unavailable: i32,
    /// Resources of each upgrader. Default: requests of 100m CPU and 256Mi memory, limit of 2Gi memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where the pods may run.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Changes to the pods, merged over them last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodOverlay>,
}

/// Which part of the fees is kept, and below what it is not worth a proof.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gobbling {
    /// Part of the fee that the upgrader keeps, 0 to 1. Default: 0.6.
    #[serde(default = "default_fraction")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub fraction: f64,
    /// Least gobbled fee in coins for which a transaction is upgraded, a decimal number. Default: "0.01".
    #[serde(default = "default_min_fee")]
    #[schemars(regex(pattern = r"^[0-9]{1,9}(\.[0-9]{1,30})?$"), length(max = 40))]
    pub min_fee: String,
}

/// What happens when a shard dies: its transactions go to a substitute until it is back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Failover {
    /// Whether substitutes are started. Default: true.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Seconds that a shard may be unready before a substitute with its class is started elsewhere, 5 to 3600. Default: 20, so
    /// that the substitute is ready within 45 seconds. The operator asks each upgrader every 5 seconds.
    #[serde(default = "default_takeover")]
    #[schemars(range(min = 5, max = 3600))]
    pub takeover_after_seconds: i32,
}

impl Default for UpgradersSpec {
    fn default() -> Self {
        Self {
            mode: UpgraderMode::default(),
            shards: None,
            classes: None,
            image: None,
            gobbling: Gobbling::default(),
            receiving_address: None,
            max_num_proofs: default_max_num_proofs(),
            failover: Failover::default(),
            max_surge: default_max_surge(),
            max_unavailable: default_max_unavailable(),
            resources: None,
            scheduling: Scheduling::default(),
            pod_template: None,
        }
    }
}

impl Default for Gobbling {
    fn default() -> Self {
        Self { fraction: default_fraction(), min_fee: default_min_fee() }
    }
}

impl Default for Failover {
    fn default() -> Self {
        Self { enabled: true, takeover_after_seconds: default_takeover() }
    }
}

fn default_fraction() -> f64 {
    0.6
}

fn default_min_fee() -> String {
    "0.01".to_owned()
}

fn default_takeover() -> i32 {
    20
}

fn default_max_num_proofs() -> i32 {
    16
}

fn default_max_surge() -> i32 {
    4
}

fn default_max_unavailable() -> i32 {
    1
}

fn yes() -> bool {
    true
}

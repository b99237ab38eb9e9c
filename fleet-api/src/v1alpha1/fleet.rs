//! The resource itself.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::common::Network;
use super::monitoring::{Monitoring, NetworkPolicies};
use super::node::NodeSpec;
use super::provers::{AdditionalProvers, ProverSpec};
use super::status::UpgraderFleetStatus;
use super::upgraders::UpgradersSpec;
use crate::shard::{ResidueClass, ShardCountOutOfRange, plan};

/// Longest name of a fleet: with the longest suffix that the operator adds, a StatefulSet keeps to the 52 characters beyond which
/// its pods get no label with its revision.
pub const MAX_NAME_LENGTH: usize = 36;

/// A service account, with or without a namespace.
const SERVICE_ACCOUNT: &str = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?/)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$";

/// A fleet of upgraders, one for each shard of the transactions, and of prover pods that they share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "upgrader-fleet.dev",
    version = "v1alpha1",
    kind = "UpgraderFleet",
    plural = "upgraderfleets",
    singular = "upgraderfleet",
    shortname = "uf",
    category = "all",
    category = "upgrader-fleet",
    namespaced,
    status = "UpgraderFleetStatus",
    derive = "PartialEq",
    cel,
    doc = "A fleet of upgraders, one for each shard of the transactions, and of prover pods that they share.",
    scale(
        spec_replicas_path = ".spec.provers.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    validation = Rule::new("self.metadata.name.size() <= 36").message("the name of a fleet has at most 36 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Network", type_ = "string", json_path = ".spec.network"),
    printcolumn(name = "Shards", type_ = "string", json_path = ".status.readyShards", description = "Ready and wanted shards"),
    printcolumn(
        name = "Coverage",
        type_ = "string",
        json_path = ".status.coverage",
        description = "Values of a transaction id's last byte that have a ready upgrader"
    ),
    printcolumn(
        name = "Provers",
        type_ = "string",
        json_path = ".status.readyProvers",
        description = "Ready and wanted prover pods"
    ),
    printcolumn(name = "Queue", type_ = "integer", json_path = ".status.queue", description = "Queued and running proofs"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.network != 'xnt' || self.upgraders.mode == 'Node'")
        .message("network xnt needs upgraders.mode Node: XNT's node has no JSON-RPC that a standalone upgrader could use"),
    validation = Rule::new("self.upgraders.mode != 'Node' || has(self.node.deploy)")
        .message("upgraders.mode Node needs node.deploy: each shard is a node of its own"),
    validation = Rule::new("self.upgraders.mode != 'Node' || !has(self.node.deploy) || has(self.node.deploy.walletSecret)")
        .message("upgraders.mode Node needs node.deploy.walletSecret: a node without a wallet silently makes a new one"),
    validation = Rule::new(
        "self.network in ['regtest', 'testnet-mock'] || !(has(self.provers.backend) && self.provers.backend == 'Mock')")
        .message("backend Mock is for networks regtest and testnet-mock only")
        .field_path(".provers.backend"),
    validation = Rule::new(
        "!(self.network in ['regtest', 'testnet-mock']) || !has(self.provers.backend) || self.provers.backend == 'Mock'")
        .message("networks regtest and testnet-mock have mock proofs: remove backend, or set it to Mock")
        .field_path(".provers.backend"),
)]
pub struct UpgraderFleetSpec {
    /// The network whose transactions are upgraded: `main`, `testnet`, `testnet-mock`, `regtest` or `xnt`. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf").message("network is immutable: create another fleet and delete this one"))]
    pub network: Network,
    /// The nodes whose mempool is watched.
    pub node: NodeSpec,
    /// Who watches the mempool and asks for proofs.
    #[serde(default)]
    pub upgraders: UpgradersSpec,
    /// Who makes the proofs.
    #[serde(default)]
    pub provers: ProverSpec,
    /// More prover pods, of other kinds: another GPU, another size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub additional_provers: Vec<AdditionalProvers>,
    /// Objects for Prometheus and Grafana.
    #[serde(default)]
    pub monitoring: Monitoring,
    /// NetworkPolicies for the pods of the fleet.
    #[serde(default)]
    pub network_policy: NetworkPolicies,
    /// Service accounts, `name` or `namespace/name`, whose projected tokens for the audience `upgrader-fleet.dev/provers` open the
    /// prover pods, besides the token in the Secret `NAME-token`. With the account of the fleet's own pods, which has the fleet's
    /// name, its upgraders use such tokens, too. The API server checks them: the chart's `tokenReview.namespaces` must name the
    /// fleet's namespace. A deleted account's token works for a minute more. At most 16. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = SERVICE_ACCOUNT), length(max = 317)))]
    pub allowed_service_accounts: Vec<String>,
    /// Stops all upgraders and provers and keeps everything else. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

impl UpgraderFleetSpec {
    /// The wanted shards, listed or cut by their number.
    ///
    /// # Errors
    /// When the number is out of range, which the resource's schema refuses.
    pub fn shards(&self) -> Result<Vec<ResidueClass>, ShardCountOutOfRange> {
        match &self.upgraders.classes {
            Some(classes) => Ok(classes.clone()),
            None => plan(i64::from(self.upgraders.shards.unwrap_or(1))),
        }
    }

    /// All kinds of prover pods with their names; `default` first.
    pub fn prover_kinds(&self) -> impl Iterator<Item = (&str, &ProverSpec)> {
        let more = self.additional_provers.iter().map(|kind| (kind.name.as_str(), &kind.template));
        std::iter::once(("default", &self.provers)).chain(more)
    }
}

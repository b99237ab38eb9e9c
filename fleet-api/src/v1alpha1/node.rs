//! `spec.node`: whose mempool it is.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::common::{PodOverlay, Quantity, Resources, Scheduling, SecretReference};

/// The nodes whose mempool is watched: running ones, or one that the operator runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.urls) != has(self.deploy)").message("exactly one of urls and deploy is set"))]
pub struct NodeSpec {
    /// JSON-RPC addresses of running nodes, for example `http://neptune-core.nodes:9797`. The upgraders use the first that
    /// answers. Excludes `deploy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(regex(pattern = r"^https?://[^\s/?#]+(/[^\s]*)?$"), length(max = 512)))]
    pub urls: Option<Vec<String>>,
    /// A stock node that the operator runs. In mode `Node` each shard is such a node, otherwise there is one for all shards.
    /// Excludes `urls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<DeployedNode>,
}

/// A stock `neptune-core` or `xnt-core` that the operator runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeployedNode {
    /// Image with the node's program.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Command that starts the node. Default: `neptune-core`, or `xnt-core` on network `xnt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub command: Option<Vec<String>>,
    /// Further options of the node, after those of the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub args: Vec<String>,
    /// Further environment of the node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Addresses of peers, `host:port`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub peers: Vec<String>,
    /// Secret with the node's wallet under the key `wallet.dat`. Required in mode `Node`: a node that finds no wallet silently
    /// makes a new one, and with it goes what it earns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wallet_secret: Option<SecretReference>,
    /// Volume with the chain data, kept when the fleet is deleted: a node that has lost it synchronises anew.
    #[serde(default)]
    pub storage: NodeStorage,
    /// Resources of each node. Default: requests of 1 CPU and 4Gi memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where the pods may run.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Changes to the pods, merged over them last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodOverlay>,
}

/// A volume for each node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStorage {
    /// Size. Default: 100Gi.
    #[serde(default = "default_size")]
    pub size: Quantity,
    /// StorageClass. Default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
}

impl Default for NodeStorage {
    fn default() -> Self {
        Self { size: default_size(), class_name: None }
    }
}

fn default_size() -> Quantity {
    Quantity::text("100Gi")
}

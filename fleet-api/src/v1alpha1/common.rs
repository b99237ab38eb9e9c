//! What several parts of the specification share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The network whose transactions are upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Neptune Cash main net.
    Main,
    /// Neptune Cash test net with real proofs.
    Testnet,
    /// Neptune Cash test net with mock proofs.
    TestnetMock,
    /// A local network with mock proofs.
    Regtest,
    /// XNT main net.
    Xnt,
}

impl Network {
    /// Whether proofs are mocks there: prover pods then run the mock backend and ask for no GPU.
    pub fn is_mock(self) -> bool {
        matches!(self, Self::TestnetMock | Self::Regtest)
    }

    /// The value of `--network` of nodes and upgraders. XNT's node calls its own main net `main`.
    pub fn node_name(self) -> &'static str {
        match self {
            Self::Main | Self::Xnt => "main",
            Self::Testnet => "testnet",
            Self::TestnetMock => "testnet-mock",
            Self::Regtest => "regtest",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if *self == Self::Xnt { "xnt" } else { self.node_name() })
    }
}

/// An amount of a resource as Kubernetes writes it: `2`, `500m`, `16Gi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub IntOrString);

impl Quantity {
    /// A quantity from its text.
    pub fn text(text: &str) -> Self {
        Self(IntOrString::String(text.to_owned()))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            IntOrString::Int(number) => number.fmt(formatter),
            IntOrString::String(text) => text.fmt(formatter),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // What the API server itself uses for a quantity.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        })
    }
}

/// Compute resources of a container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler reserves, for example `cpu: 500m`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container can use at most, for example `memory: 64Gi`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Quantity>,
}

/// Where pods may run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels that a node must have. Prover pods with a GPU that name none go to nodes with `nvidia.com/gpu.present=true`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate. Prover pods with a GPU tolerate the GPU's own taint (`nvidia.com/gpu:NoSchedule`) besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "terse_list::<Toleration>")]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods, as in a pod's specification. Default: upgraders prefer nodes without another upgrader of the fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "terse::<Affinity>")]
    pub affinity: Option<Affinity>,
    /// How the pods spread over zones and nodes, as in a pod's specification.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "terse_list::<TopologySpreadConstraint>")]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The pods' PriorityClass. Default: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// The pods' RuntimeClass, for example `nvidia`. Default: the cluster's default runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
}

/// Changes to the pods that nothing else in this resource can express, merged over them last. Lists with keys (containers,
/// volumes, environment) are merged by key. The labels and the selector of the operator cannot be changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOverlay {
    /// Labels to add.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to add.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Part of a pod's specification. A part that is not one makes the fleet `Degraded` with reason `InvalidPodTemplate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub spec: Option<serde_json::Value>,
}

/// A Secret in the fleet's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "nullable": true, "x-kubernetes-preserve-unknown-fields": true })
}

/// The schema of a type of Kubernetes without its descriptions, which would be most of the definition's size. `kubectl explain
/// pod.spec` has them.
fn terse<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    if let Some(object) = schema.as_object_mut() {
        object.values_mut().for_each(drop_descriptions);
        object.remove("description");
        object.insert("nullable".to_owned(), true.into());
    }
    schema
}

fn terse_list<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut items = T::json_schema(generator);
    if let Some(object) = items.as_object_mut() {
        object.values_mut().for_each(drop_descriptions);
        object.remove("description");
    }
    json_schema!({ "type": "array", "maxItems": 32, "items": items })
}

fn drop_descriptions(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            // A property may itself be called `description`; a schema's own is a string.
            map.retain(|key, value| key != "description" || !value.is_string());
            map.values_mut().for_each(drop_descriptions);
        }
        serde_json::Value::Array(list) => list.iter_mut().for_each(drop_descriptions),
        _ => {}
    }
}

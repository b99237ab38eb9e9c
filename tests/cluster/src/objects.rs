//! What a cluster for tests has in it: the definition, namespaces, simulated nodes, small fleets.

use std::time::Duration;

use anyhow::{Context, Result};
use fleet_api::UpgraderFleet;
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Api, Client, CustomResourceExt};
use serde_json::{Value, json};

/// The definition as it is shipped.
const DEFINITION: &str = include_str!("../../../crds/upgraderfleets.yaml");

/// Applies the definition and waits until it is established.
///
/// # Errors
/// What the server says.
pub async fn definition(client: &Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definition: Value = serde_yaml_ng::from_str(DEFINITION)?;
    crds.patch(UpgraderFleet::crd_name(), &PatchParams::apply("test"), &Patch::Apply(&definition)).await?;
    let established = await_condition(crds, UpgraderFleet::crd_name(), conditions::is_crd_established());
    tokio::time::timeout(Duration::from_secs(30), established).await.context("the definition is not established")??;
    Ok(())
}

/// A simulated node.
///
/// # Errors
/// What the server says.
pub async fn node(client: &Client, name: &str, gpus: u32) -> Result<()> {
    let mut amounts = json!({ "cpu": "320", "memory": "2560Gi", "pods": "1100" });
    let mut body = json!({ "metadata": { "labels": {} }, "spec": {} });
    if gpus > 0 {
        amounts["nvidia.com/gpu"] = gpus.to_string().into();
        body["metadata"]["labels"]["nvidia.com/gpu.present"] = "true".into();
        body["spec"]["taints"] = json!([{ "key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule" }]);
    }
    make_node(client, name, body, &amounts).await
}

/// A simulated node that takes only pods which ask for its pool.
///
/// # Errors
/// What the server says.
pub async fn node_of_pool(client: &Client, name: &str, pool: &str) -> Result<()> {
    let body = json!({
        "metadata": { "labels": { "pool": pool } },
        "spec": { "taints": [{ "key": "pool", "value": pool, "effect": "NoSchedule" }] },
    });
    make_node(client, name, body, &json!({ "cpu": "320", "memory": "2560Gi", "pods": "1100" })).await
}

async fn make_node(client: &Client, name: &str, mut node: Value, amounts: &Value) -> Result<()> {
    node["metadata"]["name"] = name.into();
    node["metadata"]["annotations"] = json!({ "kwok.x-k8s.io/node": "fake" });
    node["metadata"]["labels"]["kubernetes.io/hostname"] = name.into();
    node["status"] = json!({ "allocatable": amounts, "capacity": amounts });
    let node: Node = serde_json::from_value(node)?;
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await?;
    Ok(())
}

/// A namespace.
///
/// # Errors
/// What the server says.
pub async fn namespace(client: &Client, name: &str) -> Result<()> {
    let namespace =
        Namespace { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..Namespace::default() };
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    Ok(())
}

/// A small fleet on a network with mock proofs.
pub fn spec(shards: i32) -> Value {
    json!({
        "network": "regtest",
        "node": { "urls": ["http://node:9797"] },
        "upgraders": { "shards": shards },
        "provers": { "replicas": 1, "resources": { "requests": { "cpu": "100m" } } },
    })
}

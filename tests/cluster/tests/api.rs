//! Tier `api`: what a real API server makes of the definition.

mod support;

use anyhow::Result;
use cluster::Tier;
use cluster::objects::namespace;
use fleet_api::UpgraderFleet;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use support::cluster;

fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("upgrader-fleet.dev", "v1alpha1", "UpgraderFleet"))
}

fn body(name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet", "metadata": { "name": name }, "spec": spec })
}

async fn create(api: &Api<DynamicObject>, name: &str, spec: &Value) -> Result<DynamicObject, String> {
    let object: DynamicObject = serde_json::from_value(body(name, spec)).expect("an object");
    api.create(&PostParams::default(), &object).await.map_err(|error| error.to_string())
}

/// The smallest manifest with one change.
fn with(path: &str, value: Value) -> Value {
    let mut spec = json!({ "network": "main", "node": { "urls": ["http://node:9797"] } });
    let mut here = &mut spec;
    for part in path.split('/').skip(1) {
        here = &mut here[part];
    }
    *here = value;
    spec
}

#[tokio::test]
async fn the_smallest_manifest_is_taken_and_filled_in_as_serde_does() -> Result<()> {
    let Some(cluster) = cluster(Tier::Api).await else { return Ok(()) };
    let client = cluster.client().await?;
    namespace(&client, "defaults").await?;
    let api = Api::namespaced_with(client.clone(), "defaults", &resource());
    let spec = with("/suspend", json!(false));
    let made = create(&api, "small", &spec).await.expect("taken");
    let ours: fleet_api::UpgraderFleetSpec = serde_json::from_value(spec)?;
    assert_eq!(made.data["spec"], serde_json::to_value(&ours)?, "the server's defaults are serde's");
    let typed: Api<UpgraderFleet> = Api::namespaced(client, "defaults");
    assert_eq!(typed.get("small").await?.spec, ours);
    Ok(())
}

#[tokio::test]
async fn twenty_bad_manifests_are_refused_and_told_why() -> Result<()> {
    let Some(cluster) = cluster(Tier::Api).await else { return Ok(()) };
    let client = cluster.client().await?;
    namespace(&client, "bad").await?;
    let api = Api::namespaced_with(client, "bad", &resource());
    let cases = [
        (with("/network", json!("moon")), "spec.network: Unsupported value: \"moon\""),
        (json!({ "network": "main" }), "spec.node: Required value"),
        (with("/node", json!({})), "exactly one of urls and deploy is set"),
        (with("/node/urls", json!(["node:9797"])), "spec.node.urls[0]"),
        (with("/node/deploy", json!({ "image": "x" })), "exactly one of urls and deploy is set"),
        (with("/upgraders/shards", json!(0)), "should be greater than or equal to 1"),
        (with("/upgraders/shards", json!(129)), "should be less than or equal to 128"),
        (with("/upgraders", json!({ "shards": 2, "classes": ["1:0"] })), "shards and classes exclude each other"),
        (with("/upgraders/classes", json!(["3:0", "3:1", "3:2"])), "spec.upgraders.classes[0]"),
        (with("/upgraders/classes", json!(["2:0", "2:2"])), "in each class D:R, R is less than D"),
        (with("/upgraders/classes", json!(["2:0", "4:1"])), "classes do not cover each transaction exactly once"),
        (with("/upgraders/classes", json!(["2:0", "4:0", "4:2"])), "classes overlap"),
        (with("/upgraders/classes", json!(["2:0", "2:0"])), "Duplicate value"),
        (with("/upgraders/gobbling", json!({ "fraction": 1.5 })), "spec.upgraders.gobbling.fraction"),
        (with("/upgraders/gobbling", json!({ "minFee": "much" })), "spec.upgraders.gobbling.minFee"),
        (with("/network", json!("xnt")), "network xnt needs upgraders.mode Node"),
        (with("/upgraders/mode", json!("Node")), "upgraders.mode Node needs node.deploy"),
        (
            json!({ "network": "xnt", "node": { "deploy": { "image": "x" } }, "upgraders": { "mode": "Node" } }),
            "needs node.deploy.walletSecret",
        ),
        (
            with("/provers/gpu", json!({ "count": 1, "claimTemplateName": "g" })),
            "exactly one of count and claimTemplateName is set",
        ),
        (with("/provers", json!({ "backend": "Cpu", "gpu": { "count": 1 } })), "gpu is for backend Gpu only"),
        (with("/provers/autoscaling", json!({ "min": 3, "max": 2 })), "min is not larger than max"),
        (with("/provers/backend", json!("Mock")), "backend Mock is for networks regtest and testnet-mock only"),
        (with("/provers/resources", json!({ "limits": { "memory": "lots" } })), "spec.provers.resources.limits.memory"),
        (with("/allowedServiceAccounts", json!(["wallet", "system:*"])), "spec.allowedServiceAccounts[1]"),
        (
            with("/additionalProvers", json!([{ "name": "default", "template": {} }])),
            "the name default is that of spec.provers",
        ),
    ];
    for (index, (spec, message)) in cases.iter().enumerate() {
        let refused = create(&api, &format!("bad-{index}"), spec).await.expect_err(message);
        assert!(refused.contains(message), "{spec}\nexpected: {message}\ngot: {refused}");
    }
    let long = create(&api, &"x".repeat(37), &with("/suspend", json!(false))).await.expect_err("too long");
    assert!(long.contains("the name of a fleet has at most 36 characters"), "{long}");
    Ok(())
}

#[tokio::test]
async fn what_is_immutable_stays_and_the_rest_can_change() -> Result<()> {
    let Some(cluster) = cluster(Tier::Api).await else { return Ok(()) };
    let client = cluster.client().await?;
    namespace(&client, "immutable").await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client, "immutable", &resource());
    create(&api, "fleet", &with("/upgraders/shards", json!(3))).await.expect("taken");
    let patch = |spec: Value| {
        let api = api.clone();
        async move {
            api.patch("fleet", &PatchParams::default(), &Patch::Merge(json!({ "spec": spec })))
                .await
                .map_err(|error| error.to_string())
        }
    };
    assert!(patch(json!({ "network": "testnet" })).await.expect_err("immutable").contains("network is immutable"));
    let mode = json!({ "upgraders": { "mode": "Node" }, "node": { "urls": null, "deploy": { "image": "x", "walletSecret": { "name": "w" } } } });
    assert!(patch(mode).await.expect_err("immutable").contains("mode is immutable"));
    patch(json!({ "upgraders": { "shards": 128 } })).await.expect("may change");
    let classes = fleet_api::shard::plan(128)?;
    patch(json!({ "upgraders": { "shards": null, "classes": classes } }))
        .await
        .expect("128 classes are within the server's budget");
    Ok(())
}

#[tokio::test]
async fn kubectl_shows_scales_and_explains() -> Result<()> {
    let Some(cluster) = cluster(Tier::Api).await else { return Ok(()) };
    let client = cluster.client().await?;
    namespace(&client, "kubectl").await?;
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "kubectl", &resource());
    create(&api, "prod", &with("/upgraders/shards", json!(4))).await.expect("taken");
    let status = json!({ "status": {
        "readyShards": "3/4", "coverage": "192/256", "readyProvers": "2/2", "queue": 7, "replicas": 2, "selector": "a=b",
        "conditions": [{ "type": "Ready", "status": "False", "reason": "Uncovered", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    }});
    api.patch_status("prod", &PatchParams::default(), &Patch::Merge(status)).await?;
    let kubectl = |arguments: &[&str]| {
        let (ok, text) = cluster.kubectl(&[&["-n", "kubectl"], arguments].concat()).expect("kubectl runs");
        assert!(ok, "{text}");
        text
    };
    let table = kubectl(&["get", "uf"]);
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "READY", "NETWORK", "SHARDS", "COVERAGE", "PROVERS", "QUEUE", "AGE"]);
    assert_eq!(words[1][..7], ["prod", "False", "main", "3/4", "192/256", "2/2", "7"]);
    assert!(kubectl(&["get", "upgrader-fleet", "-o", "name"]).contains("upgraderfleet.upgrader-fleet.dev/prod"));
    kubectl(&["scale", "uf/prod", "--replicas=5"]);
    assert_eq!(api.get("prod").await?.data["spec"]["provers"]["replicas"], 5);
    let explained = kubectl(&["explain", "uf.spec.upgraders.gobbling"]);
    assert!(explained.contains("Default: 0.6") && explained.contains("Least gobbled fee in coins"), "{explained}");
    // Two managers of one list of conditions do not overwrite each other's.
    let other = json!({ "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet", "status": { "conditions": [
        { "type": "Audited", "status": "True", "reason": "X", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
    let merged = api.patch_status("prod", &PatchParams::apply("auditor"), &Patch::Apply(other)).await?;
    assert_eq!(merged.data["status"]["conditions"].as_array().map(Vec::len), Some(2));
    Ok(())
}

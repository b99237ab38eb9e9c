//! Upgraders that stop working for other reasons than their own: their node is lost, or the chain has new rules.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::objects::{node_of_pool, spec};
use cluster::wait::until;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::uids;
use crate::support::{Stage, condition, is_ready, message};

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

async fn is_node_ready(nodes: &Api<Node>, name: &str) -> Result<bool> {
    let status = nodes.get(name).await?.status.unwrap_or_default();
    Ok(status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// Whether Kubernetes itself keeps pods off the node, as it does with one that has just come.
fn is_kept_free(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.into_iter().any(|taint| taint.key.starts_with("node.kubernetes.io/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_node_is_noticed_by_asking_its_upgraders_before_kubernetes_does() -> Result<()> {
    let Some(stage) = Stage::new("lost-node").await else { return Ok(()) };
    let nodes: Api<Node> = Api::all(stage.client.clone());
    for name in ["lost-0", "lost-1"] {
        node_of_pool(&stage.client, name, "lost").await?;
    }
    // All shards would go to the first one if it were alone for a moment.
    for name in ["lost-0", "lost-1"] {
        until("node that takes pods", Duration::from_secs(30), || async {
            let takes = is_node_ready(&nodes, name).await? && !is_kept_free(&nodes.get(name).await?);
            Ok(if takes { Ok(()) } else { Err(name.to_owned()) })
        })
        .await?;
    }
    let mut spec = spec(4);
    spec["upgraders"]["scheduling"] = json!({
        "nodeSelector": { "pool": "lost" },
        "tolerations": [{ "key": "pool", "operator": "Equal", "value": "lost", "effect": "NoSchedule" }],
    });
    stage.apply("prod", spec).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let pods = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/shard")).await?;
    let there: Vec<String> = pods.iter().filter(|pod| node_of(pod) == Some("lost-0")).map(ResourceExt::name_any).collect();
    ensure!(!there.is_empty() && there.len() < 4, "the shards keep apart: {there:?}");

    // The node is gone without a word: its upgraders do not answer, nobody renews its lease, and its pods stay as they were.
    let leave = json!({ "metadata": { "annotations": { "kwok.x-k8s.io/node": null } } });
    nodes.patch("lost-0", &PatchParams::default(), &Patch::Merge(leave)).await?;
    for pod in &there {
        stage.pods.silence(pod, true);
    }
    let began = Instant::now();
    stage.until("prod", "uncovered fleet", |status| condition(status, "Covered").0 == "False").await?;
    stage.until("prod", "covered fleet", |status| condition(status, "Covered").0 == "True").await?;
    let took = began.elapsed();
    println!("{} shards of the lost node taken over after {:.1} s", there.len(), took.as_secs_f64());
    ensure!(took <= Duration::from_secs(45), "{took:?}");
    ensure!(
        is_node_ready(&nodes, "lost-0").await?,
        "Kubernetes was faster: this shows nothing of the operator's own questions"
    );
    let substitutes = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/role=substitute")).await?;
    ensure!(substitutes.items.len() == there.len(), "{} substitutes", substitutes.items.len());

    // Then Kubernetes notices, too, and moves the shards; their substitutes go.
    let lost = json!({ "status": { "conditions": [{
        "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "lost",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }] } });
    nodes.patch_status("lost-0", &PatchParams::default(), &Patch::Strategic(lost)).await?;
    stage
        .until("prod", "settled fleet", |status| is_ready(status) && status.shards.iter().all(|shard| !shard.substituted))
        .await?;
    ensure!(!is_node_ready(&nodes, "lost-0").await?, "the node came back");
    let pods = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/shard")).await?;
    let alive = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let homes: Vec<_> = pods.iter().filter(alive).map(|pod| node_of(pod).unwrap_or_default().to_owned()).collect();
    ensure!(homes.iter().all(|node| node != "lost-0"), "{homes:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_cut_off_from_all_pods_believes_the_kubelets() -> Result<()> {
    let Some(stage) = Stage::new("cut-off").await else { return Ok(()) };
    let mut spec = spec(4);
    spec["upgraders"]["failover"] = json!({ "takeoverAfterSeconds": 5 });
    stage.apply("prod", spec).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let before = uids(&stage).await?;
    let homes: HashSet<_> =
        stage.pods().list(&ListParams::default()).await?.iter().filter_map(node_of).map(str::to_owned).collect();
    ensure!(homes.len() > 1, "one node can be lost: {homes:?}");

    let cut_off = async || stage.operator.metric("upgrader_fleet_operator_cut_off").await;
    stage.pods.cut(true);
    until("an operator that knows", Duration::from_secs(30), || async {
        Ok(if cut_off().await? > 0.5 { Ok(()) } else { Err("it hears somebody".to_owned()) })
    })
    .await?;
    // Five rounds of three seconds each, in which all would be lost and taken over.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(uids(&stage).await?, before, "substitutes for pods that are well");
    ensure!(is_ready(&stage.status("prod").await?));

    // What one node's loss looks like is still seen, once somebody is heard.
    stage.pods.cut(false);
    let pod = stage.shard_pods("prod", "d4-r2", "primary").await?.first().map(ResourceExt::name_any).context("a pod")?;
    stage.pods.silence(&pod, true);
    stage.until("prod", "uncovered fleet", |status| condition(status, "Covered").0 == "False").await?;
    ensure!(cut_off().await? < 0.5);
    stage.until("prod", "covered fleet", |status| condition(status, "Covered").0 == "True").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_the_image_does_not_know_are_a_condition_and_no_failure() -> Result<()> {
    let Some(stage) = Stage::new("rules").await else { return Ok(()) };
    let mut spec = spec(2);
    spec["upgraders"]["failover"] = json!({ "takeoverAfterSeconds": 5 });
    stage.apply("prod", spec.clone()).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let before = uids(&stage).await?;

    // As real upgraders: the probe fails, so the kubelet finds them not ready, and their answer says why.
    let pods = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/shard")).await?;
    let unready =
        json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "reason": "ContainersNotReady" }] } });
    for pod in pods.iter().map(ResourceExt::name_any) {
        stage.pods.outdate(&pod);
        stage.pods().patch_status(&pod, &PatchParams::default(), &Patch::Strategic(&unready)).await?;
    }
    let status = stage
        .until("prod", "condition", |status| {
            condition(status, "Degraded") == ("True", "RulesNotSupported") && message(status, "Degraded").starts_with("2 of 2")
        })
        .await?;
    assert_eq!((condition(&status, "Covered").0, condition(&status, "Ready").0), ("False", "False"));
    // Three times as long as a takeover would take: a substitute would have the same image.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(uids(&stage).await?, before, "something was done about what only a release can mend");
    assert_eq!(condition(&stage.status("prod").await?, "Degraded"), ("True", "RulesNotSupported"));
    ensure!(stage.operator.metric("upgrader_fleet_reconcile_errors_total").await? == 0.0, "it counts as a failure");

    // The release: all shards get it at once, for none of them has anything to lose.
    spec["upgraders"]["image"] = "upgrader:2".into();
    stage.apply("prod", spec).await?;
    let status = stage.until("prod", "ready fleet", is_ready).await?;
    assert_eq!(condition(&status, "Degraded"), ("False", "AsWanted"));
    until("no pod of before", Duration::from_secs(30), || async {
        let left = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/shard")).await?;
        let old = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() != Some("upgrader:2"));
        let count = left.iter().filter(old).count();
        Ok(if count == 0 { Ok(()) } else { Err(count.to_string()) })
    })
    .await
    .context("the old image")?;
    Ok(())
}

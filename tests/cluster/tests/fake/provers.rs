//! Prover pods and the GPUs that they need.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::objects::node_of_pool;
use cluster::objects::spec;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::support::{Stage, condition, is_ready, message};

#[tokio::test(flavor = "multi_thread")]
async fn more_provers_than_gpus_are_reported_and_not_hidden() -> Result<()> {
    let Some(stage) = Stage::new("gpus").await else { return Ok(()) };
    let mut spec = spec(1);
    spec["network"] = "main".into();
    spec["provers"]["replicas"] = 18.into(); // 4 nodes with 4 GPUs
    stage.apply("prod", spec.clone()).await?;
    let status = stage
        .until("prod", "report of the two", |status| status.provers.first().is_some_and(|kind| kind.unschedulable == 2))
        .await?;
    assert_eq!(condition(&status, "ProversAvailable"), ("True", "Unschedulable"));
    let message = message(&status, "ProversAvailable");
    assert!(message.contains("Insufficient nvidia.com/gpu"), "{message}");
    assert_eq!(condition(&status, "Ready").0, "False");
    let (ok, text) = stage.cluster.kubectl(&["-n", &stage.namespace, "scale", "uf/prod", "--replicas=3"])?;
    ensure!(ok, "{text}");
    let status = stage
        .until("prod", "three provers", |status| is_ready(status) && status.ready_provers.as_deref() == Some("3/3"))
        .await?;
    assert_eq!(status.replicas, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn provers_follow_the_queue_and_the_busy_ones_go_last() -> Result<()> {
    let Some(stage) = Stage::new("scaling").await else { return Ok(()) };
    let mut spec = spec(1);
    spec["provers"]["autoscaling"] = json!({ "min": 1, "max": 4, "targetSeconds": 100, "scaleDownAfterSeconds": 0 });
    stage.apply("prod", spec).await?;
    stage.until("prod", "one prover", |status| status.ready_provers.as_deref() == Some("1/1")).await?;
    stage.pods.load("prod-prover", 1, 5, 350.0);
    stage.until("prod", "four provers", |status| status.ready_provers.as_deref() == Some("4/4")).await?;
    let pods = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/provers=default")).await?;
    let busy = pods.items.last().map(ResourceExt::name_any).context("a pod")?;
    stage.pods.load("prod-prover", 0, 0, 0.0);
    stage.pods.load(&busy, 1, 0, 0.0);
    stage.until("prod", "one prover again", |status| status.ready_provers.as_deref() == Some("1/1")).await?;
    let left = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/provers=default")).await?;
    let names: Vec<_> =
        left.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect();
    assert_eq!(names, [busy]);
    Ok(())
}

fn is_up(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_of_a_node_takes_provers_one_by_one() -> Result<()> {
    let Some(stage) = Stage::new("drain").await else { return Ok(()) };
    for node in ["drain-0", "drain-1"] {
        node_of_pool(&stage.client, node, "drain").await?;
    }
    let mut spec = spec(4);
    let scheduling = json!({ "nodeSelector": { "pool": "drain" }, "tolerations": [{ "key": "pool", "operator": "Exists" }] });
    spec["upgraders"]["scheduling"] = scheduling.clone();
    spec["provers"]["scheduling"] = scheduling;
    spec["provers"]["replicas"] = 4.into();
    stage.apply("prod", spec).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let provers = ListParams::default().labels("upgrader-fleet.dev/provers=default");
    let least = Arc::new(AtomicUsize::new(usize::MAX));
    let (pods, list, seen) = (stage.pods(), provers.clone(), Arc::clone(&least));
    let sampling = tokio::spawn(async move {
        loop {
            if let Ok(all) = pods.list(&list).await {
                seen.fetch_min(all.iter().filter(|pod| is_up(pod)).count(), Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let cluster = stage.cluster;
    let drain = ["drain", "drain-0", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s"];
    let (ok, text) = tokio::task::spawn_blocking(move || cluster.kubectl(&drain)).await??;
    ensure!(ok, "{text}");
    stage.until("prod", "ready fleet on the other node", is_ready).await?;
    sampling.abort();
    let left = stage.pods().list(&ListParams::default().fields("spec.nodeName=drain-0")).await?;
    ensure!(left.items.iter().all(|pod| pod.metadata.deletion_timestamp.is_some()), "pods are left on the drained node");
    ensure!(text.contains("evicting pod drain/prod-prover"), "no prover was on the node, so nothing was tried: {text}");
    let least = least.load(Ordering::SeqCst);
    ensure!(least >= 3, "{} of 4 provers were gone at once", 4 - least);
    Ok(())
}

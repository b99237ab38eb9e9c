//! A fleet from its creation to its deletion.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::objects::spec;
use cluster::wait::until;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::support::coverage::{expected, shards_of};
use crate::support::{Stage, condition, is_ready};

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_created_suspended_resumed_and_deleted_with_all_it_had() -> Result<()> {
    let Some(stage) = Stage::new("life").await else { return Ok(()) };
    stage.apply("prod", spec(4)).await?;
    let status = stage.until("prod", "ready fleet", is_ready).await?;
    assert_eq!((status.ready_shards.as_deref(), status.coverage.as_deref()), (Some("4/4"), Some("256/256")));
    assert_eq!(shards_of(&stage.workloads("prod").await?, "prod"), expected(4));
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let secret = secrets.get("prod-token").await?;
    assert_eq!(
        secret.data.as_ref().map(|data| data.keys().map(String::as_str).collect::<Vec<_>>()),
        Some(vec!["fleet-secret", "token", "tokens"])
    );

    let mut suspended = spec(4);
    suspended["suspend"] = true.into();
    stage.apply("prod", suspended).await?;
    stage
        .until("prod", "suspended fleet", |status| {
            condition(status, "Ready") == ("False", "Suspended") && status.coverage.as_deref() == Some("0/256")
        })
        .await?;
    assert!(stage.workloads("prod").await?.values().all(|replicas| *replicas == 0));
    assert_eq!(secrets.get("prod-token").await?.data, secret.data, "resuming needs the same secrets");
    stage.apply("prod", spec(4)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;

    stage.fleets().delete("prod", &DeleteParams::default()).await?;
    until("nothing left", Duration::from_mins(1), || async {
        let parameters = ListParams::default().labels("upgrader-fleet.dev/fleet=prod");
        let deployments = stage.deployments().list(&parameters).await?.items.len();
        let pods = stage.pods().list(&parameters).await?.items.len();
        let services = Api::<Service>::namespaced(stage.client.clone(), &stage.namespace).list(&parameters).await?.items.len();
        let accounts =
            Api::<ServiceAccount>::namespaced(stage.client.clone(), &stage.namespace).list(&parameters).await?.items.len();
        let secrets = secrets.list(&parameters).await?.items.len();
        let left = [deployments, pods, services, accounts, secrets];
        Ok(if left == [0; 5] { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_at_rest_costs_no_write() -> Result<()> {
    let Some(stage) = Stage::new("rest").await else { return Ok(()) };
    stage.apply("prod", spec(8)).await?;
    // The length of the queue comes when it is due: that is news, too.
    stage.until("prod", "ready fleet and its queue", |status| is_ready(status) && status.queue == Some(0)).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = stage.operator.metric("upgrader_fleet_api_writes_total").await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!((stage.operator.metric("upgrader_fleet_api_writes_total").await? - before).abs() < 0.5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_secret_is_made_again_before_pods_have_waited_for_two_minutes() -> Result<()> {
    let Some(stage) = Stage::new("secret").await else { return Ok(()) };
    let mut spec = spec(2);
    spec["upgraders"]["failover"] = json!({ "enabled": false });
    stage.apply("prod", spec).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let before = secrets.get("prod-token").await?;
    secrets.delete("prod-token", &DeleteParams::default()).await?;
    // Pods that run do not notice; one that has to start waits for the Secret, as this one seems to. Simulated ones do not.
    let pod = stage.shard_pods("prod", "d2-r1", "primary").await?.first().map(ResourceExt::name_any).context("a pod")?;
    let creating = json!({ "status": { "phase": "Pending", "conditions": [{ "type": "Ready", "status": "False" }] } });
    stage.pods().patch_status(&pod, &PatchParams::default(), &Patch::Strategic(creating)).await?;
    until("a Secret again", Duration::from_mins(2), || async {
        Ok(if secrets.get_opt("prod-token").await?.is_some() { Ok(()) } else { Err("none".to_owned()) })
    })
    .await?;
    let after = secrets.get("prod-token").await?;
    ensure!(
        after.uid() != before.uid() && after.data.as_ref().is_some_and(|data| data.contains_key("fleet-secret")),
        "{after:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_changes_are_undone() -> Result<()> {
    let Some(stage) = Stage::new("drift").await else { return Ok(()) };
    stage.apply("prod", spec(2)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    stage.deployments().delete("prod-d2-r1", &DeleteParams::default()).await?;
    let (ok, text) = stage.cluster.kubectl(&["-n", &stage.namespace, "scale", "deployment/prod-prover", "--replicas=3"])?;
    ensure!(ok, "{text}");
    until("one prover", Duration::from_mins(1), || async {
        let workloads = stage.workloads("prod").await?;
        Ok(if workloads.get("prod-prover") == Some(&1) && workloads.contains_key("prod-d2-r1") {
            Ok(())
        } else {
            Err(format!("{workloads:?}"))
        })
    })
    .await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_the_same_name_gets_secrets_of_its_own() -> Result<()> {
    let Some(stage) = Stage::new("again").await else { return Ok(()) };
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    stage.apply("prod", spec(2)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let old = secrets.get("prod-token").await?;
    let hold = |finalizers: &[&str]| Patch::Merge(json!({ "metadata": { "finalizers": finalizers } }));
    secrets.patch("prod-token", &PatchParams::default(), &hold(&["test/hold"])).await?;
    stage.fleets().delete("prod", &DeleteParams::default()).await?;
    // The old one's Secret takes its time to go.
    let uid = stage.apply("prod", spec(2)).await?.uid().unwrap_or_default();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(secrets.get("prod-token").await?.uid(), old.uid());
    secrets.patch("prod-token", &PatchParams::default(), &hold(&[])).await?;
    until("secrets of the new fleet", Duration::from_mins(1), || async {
        let found = secrets.get("prod-token").await?;
        let is_new = found.owner_references().iter().any(|owner| owner.uid == uid) && found.data != old.data;
        Ok(if is_new { Ok(()) } else { Err(format!("{:?}", found.metadata)) })
    })
    .await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_of_a_deleted_fleet_go_with_it() -> Result<()> {
    let Some(stage) = Stage::new("forgotten").await else { return Ok(()) };
    stage.apply("prod", spec(1)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    ensure!(stage.operator.get("/metrics").await?.1.contains("fleet=\"prod\""));
    stage.fleets().delete("prod", &DeleteParams::default()).await?;
    until("no line of the fleet", Duration::from_secs(30), || async {
        let (_, text) = stage.operator.get("/metrics").await?;
        Ok(text.lines().find(|line| line.contains("fleet=\"prod\"")).map_or(Ok(()), |line| Err(line.to_owned())))
    })
    .await?;
    Ok(())
}

//! What a cluster can refuse.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster::account::{self, Scope};
use cluster::objects::spec;
use cluster::wait::until;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::support::{Stage, condition, is_ready, message};

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_quota_is_said_and_recovered_from() -> Result<()> {
    let Some(stage) = Stage::new("quota").await else { return Ok(()) };
    let quota: ResourceQuota =
        serde_json::from_value(json!({ "metadata": { "name": "pods" }, "spec": { "hard": { "pods": "2" } } }))?;
    let quotas: Api<ResourceQuota> = Api::namespaced(stage.client.clone(), &stage.namespace);
    quotas.create(&PostParams::default(), &quota).await?;
    stage.apply("prod", spec(4)).await?;
    let status = stage.until("prod", "word of the quota", |status| condition(status, "Degraded").0 == "True").await?;
    assert_eq!(condition(&status, "Degraded").1, "PodsRefused");
    quotas.delete("pods", &DeleteParams::default()).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_said_and_recovered_from() -> Result<()> {
    let Some(stage) = Stage::new("forbidden").await else { return Ok(()) };
    let all = account::rules()?;
    let mut some = all.clone();
    for rule in some.iter_mut().filter(|rule| rule["resources"][0] == "services") {
        rule["verbs"] = json!(["list", "watch"]);
    }
    ensure!(some != all);
    account::grant(&stage.client, &stage.namespace, Scope::Namespace, &some).await?;
    let review: SubjectAccessReview = serde_json::from_value(json!({ "spec": {
        "user": account::user(&stage.namespace),
        "resourceAttributes": { "namespace": stage.namespace, "verb": "patch", "resource": "services" },
    } }))?;
    let reviews: Api<SubjectAccessReview> = Api::all(stage.client.clone());
    until("loss of the right", Duration::from_secs(30), || async {
        let answer = reviews.create(&PostParams::default(), &review).await?;
        Ok(if answer.status.is_some_and(|status| !status.allowed) { Ok(()) } else { Err("it has it".to_owned()) })
    })
    .await?;
    stage.apply("prod", spec(2)).await?;
    let status = stage.until("prod", "word of it", |status| condition(status, "Degraded").0 == "True").await?;
    assert_eq!((condition(&status, "Degraded").1, condition(&status, "Ready").0), ("Forbidden", "False"));
    let message = message(&status, "Degraded");
    ensure!(message.contains("services") && message.contains("forbidden"), "{message}");
    // One failure does not keep the rest from being done.
    assert_eq!(stage.workloads("prod").await?.len(), 3);
    account::grant(&stage.client, &stage.namespace, Scope::Namespace, &all).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_overlay_that_is_none_is_said_and_changes_nothing() -> Result<()> {
    let Some(stage) = Stage::new("overlay").await else { return Ok(()) };
    stage.apply("prod", spec(2)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let mut bad = spec(4);
    bad["upgraders"]["podTemplate"] = json!({ "spec": { "containers": "many" } });
    stage.apply("prod", bad).await?;
    let status = stage.until("prod", "word of it", |status| condition(status, "Degraded").0 == "True").await?;
    assert_eq!(condition(&status, "Degraded").1, "InvalidPodTemplate");
    assert_eq!((condition(&status, "Covered").0, status.coverage.as_deref()), ("True", Some("256/256")));
    stage.apply("prod", spec(4)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    Ok(())
}

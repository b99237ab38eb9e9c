//! Tier `api`: the API server goes away and comes back. A task of the test plays the controllers. The cluster is this file's own.

mod support;

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster::objects::spec;
use cluster::wait::until;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt};
use nix::sys::signal::Signal;
use support::coverage::{Auditor, expected, shards_of};
use support::{Stage, is_ready, is_ready_with, tail, uids};

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_comes_back_finds_the_operator_at_work() -> Result<()> {
    // A Lease that outlives the restart: with less the operator ends, as it should, and its pod's next container goes on.
    let Some(mut stage) = Stage::with_played_controllers("restart", &["--lease-seconds=120"]).await else { return Ok(()) };
    let auditor = Auditor::start(stage.pods());
    stage.apply("prod", spec(2)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let before = uids(&stage).await?;
    stage.cluster.restart_api_server().await?;
    stage.apply("prod", spec(5)).await?;
    stage.until("prod", "resized fleet", is_ready_with(5)).await?;
    assert_eq!(shards_of(&stage.workloads("prod").await?, "prod"), expected(5));
    let after = uids(&stage).await?;
    for survivor in before.keys().filter(|name| after.contains_key(*name)) {
        assert_eq!(before[survivor].0, after[survivor].0, "{survivor} is another");
    }

    // While the operator sees nothing, a workload is deleted, what it has seen last is compacted away, and the API server's own
    // memory of changes goes with a restart: its watches go on from a version that is gone, and must list anew.
    stage.operator.signal(Signal::SIGSTOP)?;
    let lost = stage.deployments().get("prod-d4-r2").await?;
    stage.deployments().delete("prod-d4-r2", &DeleteParams::default()).await?;
    until("no pod of it", Duration::from_secs(30), || async {
        let left = stage.shard_pods("prod", "d4-r2", "primary").await?.len();
        Ok(if left == 0 { Ok(()) } else { Err(left.to_string()) })
    })
    .await?;
    // Before its watch ends, too: afterwards the pod may be there again.
    until("the auditor to see that", Duration::from_secs(30), || async {
        let audit = auditor.verdict();
        Ok(if audit.least == Some(192) { Ok(()) } else { Err(format!("{audit:?}")) })
    })
    .await?;
    let maps: Api<ConfigMap> = Api::namespaced(stage.client.clone(), &stage.namespace);
    for number in 0..10 {
        let map = serde_json::from_value(serde_json::json!({ "metadata": { "name": format!("noise-{number}") } }))?;
        maps.create(&PostParams::default(), &map).await?;
    }
    stage.cluster.compact().await?;
    stage.cluster.restart_api_server().await?;
    stage.operator.signal(Signal::SIGCONT)?;
    until("the workload again", Duration::from_mins(2), || async {
        let found = stage.deployments().get_opt("prod-d4-r2").await?;
        Ok(if found.is_some_and(|found| found.uid() != lost.uid()) { Ok(()) } else { Err("it is not there".to_owned()) })
    })
    .await?;
    stage.until("prod", "ready fleet", is_ready_with(5)).await?;
    ensure!(stage.operator.log().contains("a watch expired"), "nobody said 410:\n{}", tail(&stage.operator.log()));
    ensure!(stage.operator.ended()?.is_none(), "it was another operator that did it");
    let audit = auditor.verdict();
    // What the test itself deleted, and nothing else.
    ensure!(audit.least == Some(192), "coverage fell: {audit:?}");
    Ok(())
}

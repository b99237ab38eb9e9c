//! Shards come, go, die and change.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::objects::spec;
use cluster::wait::until;
use fleet_api::ResidueClass;
use fleet_api::v1alpha1::ShardPhase;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};

use crate::support::coverage::{Auditor, expected, shards_of};
use crate::support::{Stage, condition, is_ready, is_ready_with, uids};

#[tokio::test(flavor = "multi_thread")]
async fn resizes_never_uncover_a_transaction() -> Result<()> {
    let Some(stage) = Stage::new("resize").await else { return Ok(()) };
    let auditor = Auditor::start(stage.pods());
    stage.apply("prod", spec(1)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    for shards in [3, 8, 2, 5] {
        let before = stage.workloads("prod").await?;
        let earlier = uids(&stage).await?;
        stage.apply("prod", spec(shards)).await?;
        stage.until("prod", "resized fleet", is_ready_with(shards)).await?;
        let after = stage.workloads("prod").await?;
        assert_eq!(shards_of(&after, "prod"), expected(i64::from(shards)));
        let later = uids(&stage).await?;
        for survivor in before.keys().filter(|name| after.contains_key(*name)) {
            assert_eq!(earlier[survivor], later[survivor], "{survivor} was in both and is another now");
        }
    }
    auditor.assert_never_uncovered();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_shard_is_taken_over_within_45_seconds_and_given_back() -> Result<()> {
    let Some(stage) = Stage::new("takeover").await else { return Ok(()) };
    stage.apply("prod", spec(4)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let pod = stage.shard_pods("prod", "d4-r2", "primary").await?.first().map(ResourceExt::name_any).context("a pod")?;
    let others = uids(&stage).await?;
    stage.pods.silence(&pod, true);
    let began = Instant::now();
    stage.until("prod", "uncovered fleet", |status| status.coverage.as_deref() == Some("192/256")).await?;
    stage.until("prod", "covered fleet", |status| status.coverage.as_deref() == Some("256/256")).await?;
    let took = began.elapsed();
    println!("taken over after {:.1} s", took.as_secs_f64());
    ensure!(took <= Duration::from_secs(45), "{took:?}");
    assert_eq!(stage.shard_pods("prod", "d4-r2", "substitute").await?.len(), 1);
    stage.pods.silence(&pod, false);
    stage
        .until("prod", "settled fleet", |status| is_ready(status) && status.shards.iter().all(|shard| !shard.substituted))
        .await?;
    until("no substitute", Duration::from_secs(30), || async {
        let left = stage.shard_pods("prod", "d4-r2", "substitute").await?.len();
        Ok(if left == 0 { Ok(()) } else { Err(left.to_string()) })
    })
    .await?;
    assert_eq!(uids(&stage).await?, others, "nobody else was touched");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_image_stops_at_the_first_shard_and_uncovers_nothing() -> Result<()> {
    let Some(stage) = Stage::new("image").await else { return Ok(()) };
    let auditor = Auditor::start(stage.pods());
    stage.apply("prod", spec(4)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let mut bad = spec(4);
    bad["upgraders"]["image"] = "broken:1".into();
    stage.apply("prod", bad).await?;
    let with_image = async |image: &str| {
        let list = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/shard")).await?;
        let has = |pod: &Pod| pod.spec.as_ref().is_some_and(|spec| spec.containers[0].image.as_deref() == Some(image));
        anyhow::Ok(list.iter().filter(|pod| has(pod)).count())
    };
    until("a pod with the bad image", Duration::from_secs(30), || async {
        Ok(if with_image("broken:1").await? == 1 { Ok(()) } else { Err("none".to_owned()) })
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(with_image("broken:1").await?, 1, "it spread");
    let mut good = spec(4);
    good["upgraders"]["image"] = "upgrader:2".into();
    stage.apply("prod", good).await?;
    until("all on the good image", Duration::from_mins(2), || async {
        let count = with_image("upgrader:2").await?;
        Ok(if count == 4 && with_image("broken:1").await? == 0 { Ok(()) } else { Err(count.to_string()) })
    })
    .await?;
    auditor.assert_never_uncovered();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_never_gets_ready_keeps_the_one_that_it_should_replace() -> Result<()> {
    let Some(stage) = Stage::new("stuck").await else { return Ok(()) };
    let auditor = Auditor::start(stage.pods());
    stage.apply("stuck", spec(2)).await?;
    stage.until("stuck", "ready fleet", is_ready).await?;
    // The simulated kubelet never lets d4-r3 of this fleet get ready.
    stage.apply("stuck", spec(4)).await?;
    let waits = |status: &fleet_api::UpgraderFleetStatus| {
        status.ready_shards.as_deref() == Some("3/4") && status.shards.len() == 5 && condition(status, "Resharding").0 == "True"
    };
    let status = stage.until("stuck", "resize that waits", waits).await?;
    let phase = |slug: &str| status.shards.iter().find(|shard| shard.class.slug() == slug).map(|shard| shard.phase);
    assert_eq!((phase("d4-r3"), phase("d2-r1")), (Some(ShardPhase::Starting), Some(ShardPhase::Retiring)));
    assert_eq!((condition(&status, "Covered").0, condition(&status, "Ready")), ("True", ("False", "Resharding")));
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(waits(&stage.status("stuck").await?), "it went on without the shard");
    // And back: the new ones go, the old one has never been touched.
    stage.apply("stuck", spec(2)).await?;
    stage.until("stuck", "fleet as before", is_ready_with(2)).await?;
    assert_eq!(shards_of(&stage.workloads("stuck").await?, "stuck"), expected(2));
    auditor.assert_never_uncovered();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deaths_during_a_resize_cost_what_died_and_no_more() -> Result<()> {
    let Some(stage) = Stage::new("deaths").await else { return Ok(()) };
    let auditor = Auditor::start(stage.pods());
    stage.apply("prod", spec(4)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let settled = async |shards: i32| {
        let status = stage.status("prod").await?;
        anyhow::Ok(is_ready_with(shards)(&status))
    };
    let mut deaths: usize = 0;
    for shards in [8, 3] {
        stage.apply("prod", spec(shards)).await?;
        // One pod at a time, of whatever shard is there: its Deployment starts another.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            let pods = stage.pods().list(&ListParams::default().labels("upgrader-fleet.dev/shard")).await?;
            if let Some(pod) = pods.items.get(deaths % pods.items.len().max(1)) {
                let slug = pod.labels().get("upgrader-fleet.dev/shard").context("a shard")?;
                auditor.dies(ResidueClass::from_slug(slug).context("a class")?);
                match stage.pods().delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await {
                    Err(kube::Error::Api(gone)) if gone.code == 404 => {} // the resize was faster
                    killed => drop(killed?),
                }
                deaths += 1;
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        stage.until("prod", "resized fleet", is_ready_with(shards)).await?;
        ensure!(settled(shards).await?, "it did not stay so");
        assert_eq!(shards_of(&stage.workloads("prod").await?, "prod"), expected(i64::from(shards)));
    }
    ensure!(deaths > 10, "only {deaths} deaths");
    auditor.assert_only_deaths_uncovered();
    Ok(())
}

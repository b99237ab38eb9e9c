//! Tier `api`: the operator on a real API server. There are no controllers; a task of the test plays them.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::wait::until;
use fleet_api::ResidueClass;
use fleet_api::shard::Coverage;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use nix::sys::signal::Signal;
use support::{Stage, is_ready, spec};
use tokio::task::JoinHandle;

/// Watches pods and computes the coverage at each event.
struct Auditor {
    worst: Arc<Mutex<Audit>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default, Clone)]
struct Audit {
    covered_once: bool,
    /// The least coverage after the first full one.
    least: Option<u16>,
    events: usize,
}

impl Auditor {
    fn start(pods: Api<Pod>) -> Self {
        let worst = Arc::new(Mutex::new(Audit::default()));
        let shared = Arc::clone(&worst);
        let task = tokio::spawn(async move {
            let mut ready: BTreeMap<String, ResidueClass> = BTreeMap::new();
            let mut stream =
                std::pin::pin!(watcher(pods, watcher::Config::default().labels("upgrader-fleet.dev/shard")).default_backoff());
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => match owner_of(&pod) {
                        Some(class) => drop(ready.insert(pod.name_any(), class)),
                        None => drop(ready.remove(&pod.name_any())),
                    },
                    Ok(watcher::Event::Delete(pod)) => drop(ready.remove(&pod.name_any())),
                    _ => continue,
                }
                let covered = ready.values().copied().collect::<Coverage>().covered.count();
                if let Ok(mut audit) = shared.lock() {
                    audit.events += 1;
                    audit.covered_once |= covered == 256;
                    if audit.covered_once {
                        audit.least = Some(audit.least.map_or(covered, |least| least.min(covered)));
                    }
                }
            }
        });
        Self { worst, task }
    }

    fn verdict(&self) -> Audit {
        self.worst.lock().map(|audit| audit.clone()).unwrap_or_default()
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The class that a pod upgrades now.
fn owner_of(pod: &Pod) -> Option<ResidueClass> {
    let ready = pod.status.as_ref()?.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    let class = ResidueClass::from_slug(pod.labels().get("upgrader-fleet.dev/shard")?)?;
    (ready && pod.metadata.deletion_timestamp.is_none()).then_some(class)
}

fn shards_of(workloads: &BTreeMap<String, i32>, fleet: &str) -> BTreeSet<String> {
    workloads.keys().filter_map(|name| name.strip_prefix(&format!("{fleet}-d"))).map(|rest| format!("d{rest}")).collect()
}

fn expected(shards: i64) -> BTreeSet<String> {
    fleet_api::shard::plan(shards).expect("in range").into_iter().map(ResidueClass::slug).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn resizes_never_uncover_a_transaction() -> Result<()> {
    let Some(stage) = Stage::with_played_controllers("resize").await else { return Ok(()) };
    let auditor = Auditor::start(stage.pods());
    stage.apply("prod", spec(1)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    for shards in [3, 8, 2, 5] {
        let before = stage.workloads("prod").await?;
        let uids = uids(&stage).await?;
        stage.apply("prod", spec(shards)).await?;
        stage
            .until("prod", "resized fleet", |status| {
                is_ready(status) && status.ready_shards.as_deref() == Some(&format!("{shards}/{shards}"))
            })
            .await?;
        let after = stage.workloads("prod").await?;
        assert_eq!(shards_of(&after, "prod"), expected(i64::from(shards)));
        let later = self::uids(&stage).await?;
        for survivor in before.keys().filter(|name| after.contains_key(*name)) {
            assert_eq!(uids[survivor], later[survivor], "{survivor} was in both and is another now");
        }
    }
    let audit = auditor.verdict();
    ensure!(audit.covered_once && audit.least == Some(256), "coverage fell: {audit:?}");
    println!("coverage sampled at {} events, least {:?}", audit.events, audit.least);
    Ok(())
}

/// Uid and generation of each Deployment: neither changes when nobody touches it.
async fn uids(stage: &Stage) -> Result<BTreeMap<String, (String, Option<i64>)>> {
    let list = stage.deployments().list(&ListParams::default()).await?;
    Ok(list
        .into_iter()
        .map(|one: Deployment| (one.name_any(), (one.uid().unwrap_or_default(), one.metadata.generation)))
        .collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_shard_is_taken_over_within_45_seconds_and_given_back() -> Result<()> {
    let Some(stage) = Stage::with_played_controllers("takeover").await else { return Ok(()) };
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
async fn of_two_operators_one_writes_also_when_it_is_stopped_and_goes_on() -> Result<()> {
    let Some(mut stage) = Stage::with_played_controllers("leaders").await else { return Ok(()) };
    stage.apply("prod", spec(2)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let second = cluster::Operator::start(stage.cluster, "leaders-second", &stage.options(&[]))?;
    second.ready().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(second.metric("upgrader_fleet_operator_leader").await? < 0.5, "two leaders");
    stage.operator.signal(Signal::SIGSTOP)?;
    until("the second to lead", Duration::from_secs(30), || async {
        let leads = second.metric("upgrader_fleet_operator_leader").await?;
        Ok(if leads > 0.5 { Ok(()) } else { Err("it does not".to_owned()) })
    })
    .await?;
    stage.apply("prod", spec(4)).await?;
    stage.until("prod", "resized fleet", |status| status.ready_shards.as_deref() == Some("4/4")).await?;
    let before = uids(&stage).await?;
    stage.operator.signal(Signal::SIGCONT)?;
    // The first finds that it leads no more, writes nothing and ends.
    assert_eq!(stage.operator.end(Duration::from_secs(20)).await?, Some(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(uids(&stage).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_crashes_after_any_write_loses_nothing() -> Result<()> {
    let Some(mut stage) = Stage::with_played_controllers("crashes").await else { return Ok(()) };
    stage.apply("prod", spec(2)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    stage.operator.signal(Signal::SIGTERM)?;
    assert_eq!(
        stage.operator.end(Duration::from_secs(30)).await?,
        Some(0),
        "it ends in order:\n{}",
        support::tail(&stage.operator.log())
    );
    let auditor = Auditor::start(stage.pods());
    let mut target = 2;
    for writes in 0..12 {
        // To and fro, so that each crash falls into a change.
        target = if target == 2 { 5 } else { 2 };
        let before = uids(&stage).await?;
        stage.apply("prod", spec(target)).await?;
        let mut crashing =
            cluster::Operator::start(stage.cluster, "crashes", &stage.options(&[&format!("--abort-after-writes={writes}")]))?;
        // Few writes: it may come to rest before.
        let _ = crashing.end(Duration::from_secs(8)).await;
        drop(crashing);
        stage.operator = cluster::Operator::start(stage.cluster, "crashes", &stage.options(&[]))?;
        stage
            .until("prod", "resized fleet", |status| {
                is_ready(status) && status.ready_shards.as_deref() == Some(&format!("{target}/{target}"))
            })
            .await?;
        let after = uids(&stage).await?;
        for survivor in before.keys().filter(|name| after.contains_key(*name)) {
            assert_eq!(before[survivor].0, after[survivor].0, "{survivor} was deleted on the way");
        }
        assert_eq!(shards_of(&stage.workloads("prod").await?, "prod"), expected(i64::from(target)));
        stage.operator.signal(Signal::SIGTERM)?;
        let _ = stage.operator.end(Duration::from_secs(30)).await?;
    }
    let audit = auditor.verdict();
    ensure!(audit.least == Some(256), "coverage fell: {audit:?}");
    Ok(())
}

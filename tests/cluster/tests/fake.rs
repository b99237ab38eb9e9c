//! Tier `fake`: the operator on a real control plane with simulated nodes. Each test has a namespace and an operator of its own.

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
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Secret, Service, ServiceAccount};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use nix::sys::signal::Signal;
use serde_json::json;
use support::{Stage, condition, is_ready, spec};
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
#[ignore = "needs the controllers; not seen green yet"]
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
#[ignore = "needs the controllers; not seen green yet"]
async fn resizes_never_uncover_a_transaction() -> Result<()> {
    let Some(stage) = Stage::new("resize").await else { return Ok(()) };
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
#[ignore = "needs the controllers; not seen green yet"]
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
#[ignore = "needs the controllers; not seen green yet"]
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
    let audit = auditor.verdict();
    ensure!(audit.least == Some(256), "coverage fell: {audit:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the controllers; not seen green yet"]
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
    let message = &status.conditions.iter().find(|one| one.type_ == "ProversAvailable").context("it")?.message;
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
#[ignore = "needs the controllers; not seen green yet"]
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

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the controllers; not seen green yet"]
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
#[ignore = "needs the controllers; not seen green yet"]
async fn a_fleet_at_rest_costs_no_write() -> Result<()> {
    let Some(stage) = Stage::new("rest").await else { return Ok(()) };
    stage.apply("prod", spec(8)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = stage.operator.metric("upgrader_fleet_api_writes_total").await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!((stage.operator.metric("upgrader_fleet_api_writes_total").await? - before).abs() < 0.5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the controllers; not seen green yet"]
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
#[ignore = "needs the controllers; not seen green yet"]
async fn of_two_operators_one_writes_also_when_it_is_stopped_and_goes_on() -> Result<()> {
    let Some(mut stage) = Stage::new("leaders").await else { return Ok(()) };
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
#[ignore = "needs the controllers; not seen green yet"]
async fn an_operator_that_crashes_after_any_write_loses_nothing() -> Result<()> {
    let Some(mut stage) = Stage::new("crashes").await else { return Ok(()) };
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

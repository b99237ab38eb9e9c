//! What the tests of both tiers share.
#![allow(dead_code, reason = "each test uses what it needs")]

pub mod coverage;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use cluster::account::{self, Scope};
use cluster::{Cluster, FakePods, Operator, OperatorOptions, Tier, objects};
use fleet_api::{UpgraderFleet, UpgraderFleetStatus};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

static CLUSTER: OnceCell<Option<Cluster>> = OnceCell::const_new();

/// The cluster that all tests of one file share, with the definition applied; nothing where it cannot be built.
pub async fn cluster(tier: Tier) -> Option<&'static Cluster> {
    let start = || async {
        let cluster = Cluster::start(tier).await?;
        if let Some(cluster) = &cluster {
            prepare(cluster, tier).await?;
        }
        anyhow::Ok(cluster)
    };
    CLUSTER.get_or_try_init(start).await.expect("a cluster").as_ref()
}

async fn prepare(cluster: &Cluster, tier: Tier) -> Result<()> {
    let client = cluster.client().await?;
    objects::definition(&client).await?;
    if tier == Tier::Fake {
        for number in 0..4 {
            objects::node(&client, &format!("gpu-{number}"), 4).await?;
        }
        for number in 0..2 {
            objects::node(&client, &format!("cpu-{number}"), 0).await?;
        }
    }
    Ok(())
}

/// A namespace, an operator that looks after it alone with the chart's rights and no others, and what the operator asks of pods.
pub struct Stage {
    pub cluster: &'static Cluster,
    pub client: Client,
    pub namespace: String,
    pub pods: FakePods,
    pub operator: Operator,
    kubeconfig: PathBuf,
}

impl Stage {
    /// A new one, unless there is no cluster.
    pub async fn new(namespace: &str) -> Option<Self> {
        let cluster = cluster(Tier::Fake).await?;
        Some(Self::on(cluster, namespace, &[]).await.expect("a stage"))
    }

    /// One on the API server alone, where a task plays the controllers: each Deployment gets its pods at once, ready.
    pub async fn with_played_controllers(namespace: &str, options: &[&str]) -> Option<Self> {
        let cluster = cluster(Tier::Api).await?;
        let stage = Self::on(cluster, namespace, options).await.expect("a stage");
        tokio::spawn(play(stage.deployments(), stage.pods()));
        Some(stage)
    }

    async fn on(cluster: &'static Cluster, namespace: &str, more: &[&str]) -> Result<Self> {
        let client = cluster.client().await?;
        objects::namespace(&client, namespace).await?;
        let kubeconfig = account::make(cluster, &client, namespace, Scope::Namespace, &account::rules()?).await?;
        let pods = FakePods::start().await?;
        let operator = Operator::start(cluster, namespace, &options(namespace, &pods, &kubeconfig, more))?;
        operator.ready().await?;
        Ok(Self { cluster, client, namespace: namespace.to_owned(), pods, operator, kubeconfig })
    }

    /// Options of another operator for the same namespace.
    pub fn options(&self, more: &[&str]) -> OperatorOptions {
        options(&self.namespace, &self.pods, &self.kubeconfig, more)
    }

    pub fn fleets(&self) -> Api<UpgraderFleet> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates or changes a fleet.
    pub async fn apply(&self, name: &str, spec: Value) -> Result<UpgraderFleet> {
        let body = json!({ "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet", "metadata": { "name": name }, "spec": spec });
        Ok(self.fleets().patch(name, &PatchParams::apply("person").force(), &Patch::Apply(&body)).await?)
    }

    pub async fn status(&self, name: &str) -> Result<UpgraderFleetStatus> {
        Ok(self.fleets().get(name).await?.status.unwrap_or_default())
    }

    /// Waits until the status is as wanted, for the current generation; returns it.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&UpgraderFleetStatus) -> bool,
    ) -> Result<UpgraderFleetStatus> {
        let fleets = self.fleets();
        let result = cluster::wait::until(what, Duration::from_mins(3), || async {
            let fleet = fleets.get(name).await?;
            let status = fleet.status.unwrap_or_default();
            let current = status.observed_generation == fleet.metadata.generation;
            Ok(if current && check(&status) { Ok(()) } else { Err(serde_json::to_string(&status)?) })
        })
        .await;
        match result {
            Ok(_) => self.status(name).await,
            Err(error) => bail!("{error:#}\noperator:\n{}", tail(&self.operator.log())),
        }
    }

    /// Names of Deployments of a fleet with their replicas.
    pub async fn workloads(&self, name: &str) -> Result<BTreeMap<String, i32>> {
        let parameters = ListParams::default().labels(&format!("upgrader-fleet.dev/fleet={name}"));
        let list = self.deployments().list(&parameters).await?;
        Ok(list.into_iter().map(|one| (one.metadata.name.unwrap_or_default(), one.spec.replicas.unwrap_or(1))).collect())
    }

    /// Pods of a shard.
    pub async fn shard_pods(&self, name: &str, slug: &str, role: &str) -> Result<Vec<Pod>> {
        let labels = format!("upgrader-fleet.dev/fleet={name},upgrader-fleet.dev/shard={slug},upgrader-fleet.dev/role={role}");
        Ok(self.pods().list(&ListParams::default().labels(&labels)).await?.items)
    }
}

fn options(namespace: &str, pods: &FakePods, kubeconfig: &Path, more: &[&str]) -> OperatorOptions {
    let mut arguments = vec![
        format!("--watch-namespace={namespace}"),
        format!("--namespace={namespace}"),
        format!("--poll-through={}", pods.through()),
        "--poll-seconds=1".to_owned(),
        "--upgrader-image=upgrader:1".to_owned(),
        "--prover-image=prover-pod:1".to_owned(),
    ];
    if !more.iter().any(|option| option.starts_with("--lease-seconds")) {
        arguments.push("--lease-seconds=3".to_owned());
    }
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    OperatorOptions { kubeconfig: Some(kubeconfig.to_owned()), arguments, quiet: false }
}

pub fn condition<'a>(status: &'a UpgraderFleetStatus, kind: &str) -> (&'a str, &'a str) {
    status.conditions.iter().find(|one| one.type_ == kind).map_or(("", ""), |one| (one.status.as_str(), one.reason.as_str()))
}

pub fn is_ready(status: &UpgraderFleetStatus) -> bool {
    condition(status, "Ready").0 == "True"
}

/// Ready with so many shards.
pub fn is_ready_with(shards: i32) -> impl Fn(&UpgraderFleetStatus) -> bool {
    move |status| is_ready(status) && status.ready_shards.as_deref() == Some(&format!("{shards}/{shards}"))
}

pub fn message<'a>(status: &'a UpgraderFleetStatus, kind: &str) -> &'a str {
    status.conditions.iter().find(|one| one.type_ == kind).map_or("", |one| one.message.as_str())
}

pub fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().rev().take(40).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Pods for Deployments, as the controllers and the kubelet would have them.
async fn play(deployments: Api<Deployment>, pods: Api<Pod>) {
    loop {
        // The API server may be away for a moment; the next turn sees to it.
        let _ = play_once(&deployments, &pods).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn play_once(deployments: &Api<Deployment>, pods: &Api<Pod>) -> Result<()> {
    let mut wanted = BTreeMap::new();
    for deployment in deployments.list(&ListParams::default()).await? {
        let (name, replicas) = (deployment.metadata.name.clone().unwrap_or_default(), deployment.spec.replicas.unwrap_or(1));
        let labels = deployment.spec.template.metadata.and_then(|meta| meta.labels);
        for number in 0..replicas {
            wanted.insert(format!("{name}-{number}"), labels.clone());
        }
        let status = json!({ "status": {
            "observedGeneration": deployment.metadata.generation, "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas,
        }});
        deployments.patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?;
    }
    let existing: Vec<String> =
        pods.list(&ListParams::default()).await?.into_iter().filter_map(|pod| pod.metadata.name).collect();
    for gone in existing.iter().filter(|name| !wanted.contains_key(*name)) {
        pods.delete(gone, &kube::api::DeleteParams::default().grace_period(0)).await?;
    }
    for (name, labels) in wanted.iter().filter(|(name, _)| !existing.contains(name)) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels },
            "spec": { "containers": [{ "name": "main", "image": "image:1" }] },
        }))?;
        pods.create(&PostParams::default(), &pod).await?;
        let ready = json!({ "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(ready)).await?;
    }
    Ok(())
}

/// Uid and generation of each Deployment: neither changes when nobody touches it.
pub async fn uids(stage: &Stage) -> Result<BTreeMap<String, (String, Option<i64>)>> {
    let list = stage.deployments().list(&ListParams::default()).await?;
    Ok(list
        .into_iter()
        .map(|one: Deployment| (one.name_any(), (one.uid().unwrap_or_default(), one.metadata.generation)))
        .collect())
}

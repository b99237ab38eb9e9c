//! A cluster with two nodes that have our images, and the programs that people have for it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::machine::Machine;
use cluster::wait::until;
use cluster::{Cluster, Node, cache};
use serde_json::{Value, json};

use crate::helm::{Helm, repository};
use crate::kept::Kept;

/// The version of this checkout, which the chart installs.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The version that the test upgrades to: the same images by another name.
pub const NEXT: &str = "9.9.9";
/// Where fleets are.
pub const FLEETS: &str = "fleets";
/// Where the chain is.
const CHAIN: &str = "chain";
/// Where releases are.
pub const RELEASES: &str = crate::helm::NAMESPACE;

/// The cluster.
pub struct Kit<'a> {
    pub cluster: &'a Cluster,
    pub nodes: Vec<Node<'a>>,
    pub helm: Helm,
    pub kept: Kept,
    began: Instant,
}

impl<'a> Kit<'a> {
    /// Nodes, images and namespaces on a cluster.
    pub async fn new(machine: &Machine, cluster: &'a Cluster, nodes: usize) -> Result<Self> {
        let began = Instant::now();
        let all = futures::future::try_join_all((0..nodes).map(|index| Node::start(cluster, index, 2))).await?;
        for node in &all {
            for name in ["operator", "upgrader", "prover-pod", "dev-node"] {
                let archive = cache().join(format!("cluster/images/{name}.tar"));
                ensure!(archive.exists(), "{} is missing: `make e2e` makes it", archive.display());
                let names = [VERSION, NEXT].map(|version| format!("ghcr.io/upgrader-fleet/{name}:{version}"));
                node.import(&archive, &format!("localhost/{name}:{VERSION}"), &names)?;
            }
        }
        let kept = Kept::start(&machine.folder().join("kept"), all.iter().map(Node::logs_of_pods).collect())?;
        let helm = Helm::find()?.context("helm")?.on(cluster.kubeconfig());
        let kit = Self { cluster, nodes: all, helm, kept, began };
        for namespace in [FLEETS, CHAIN, RELEASES] {
            let labels =
                json!({ "pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted" });
            let metadata = json!({ "name": namespace, "labels": labels });
            cluster.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }))?;
        }
        kit.say(&format!("{nodes} nodes with images"));
        Ok(kit)
    }

    /// Tells whoever watches how far it is.
    pub fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Runs kubectl, which has to succeed and to have nothing to warn of.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let (succeeded, said) = self.cluster.kubectl(arguments)?;
        if !succeeded || said.contains("Warning:") {
            bail!("kubectl {}: {said}", arguments.join(" "));
        }
        Ok(said)
    }

    /// An object, or the list of all of a kind with a label.
    pub fn get(&self, namespace: &str, arguments: &[&str]) -> Result<Value> {
        let said = self.kubectl(&[&["get", "-n", namespace, "-o", "json"], arguments].concat())?;
        serde_json::from_str(&said).with_context(|| said.clone())
    }

    /// The pods of the fleets of a component: `upgrader` or `prover`.
    pub fn pods(&self, component: &str) -> Result<Vec<Value>> {
        let label = format!("app.kubernetes.io/component={component}");
        let list = self.get(FLEETS, &["pods", "-l", &label])?;
        Ok(list["items"].as_array().context("items")?.clone())
    }

    /// Installs the chart with nothing but defaults and waits until the operator is ready.
    pub fn install(&self) -> Result<()> {
        let chart = chart();
        self.helm.run(&["install", "uf", &chart])?;
        self.kubectl(&["rollout", "status", "deployment/uf-upgrader-fleet", "-n", RELEASES, "--timeout=120s"])
            .with_context(|| self.state())?;
        self.say("helm install: the operator is ready");
        Ok(())
    }

    /// Starts the dev node in a pod on the first node; gives an address for fees.
    pub async fn dev_node(&self, environment: &[(&str, &str)]) -> Result<String> {
        let security =
            json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
        let variables: Vec<_> = environment.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        let labels = json!({ "app": "dev-node" });
        self.cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "dev-node", "namespace": CHAIN, "labels": labels },
            "spec": {
                "nodeName": self.nodes[0].name,
                "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                "containers": [{
                    "name": "dev-node", "image": format!("ghcr.io/upgrader-fleet/dev-node:{VERSION}"),
                    "args": ["--listen=0.0.0.0:9797"], "env": variables, "securityContext": security,
                    "readinessProbe": { "tcpSocket": { "port": 9797 }, "periodSeconds": 1 },
                }],
            },
        }))?;
        self.cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "dev-node", "namespace": CHAIN },
            "spec": { "selector": labels, "ports": [{ "port": 9797 }] },
        }))?;
        self.kubectl(&["wait", "--for=condition=Ready", "pod/dev-node", "-n", CHAIN, "--timeout=60s"])?;
        let said =
            || self.chain_log().map(|lines| lines.iter().find_map(|line| Some(line.split_once("go to: ")?.1.to_owned())));
        until("address for fees", Duration::from_secs(30), || async {
            said()?.map_or(Ok(Err("no".to_owned())), |_| Ok(Ok(())))
        })
        .await?;
        said()?.context("an address")
    }

    /// The lines of the dev node.
    pub fn chain_log(&self) -> Result<Vec<String>> {
        Ok(self.kept.lines("dev-node")?.into_values().flatten().collect())
    }

    /// Waits until a fleet's status is as wanted, for its current generation.
    pub async fn until_fleet(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Result<Duration> {
        until(what, Duration::from_mins(3), || async {
            let fleet = self.get(FLEETS, &[&format!("upgraderfleet/{name}")])?;
            let current = fleet["status"]["observedGeneration"] == fleet["metadata"]["generation"];
            Ok(if current && check(&fleet["status"]) { Ok(()) } else { Err(fleet["status"].to_string()) })
        })
        .await
        .with_context(|| self.state())
    }

    /// What a person would look at when something does not get ready.
    pub fn state(&self) -> String {
        let look =
            |arguments: &[&str]| self.cluster.kubectl(arguments).map_or_else(|error| format!("{error:#}"), |(_, said)| said);
        let pods = look(&["get", "pods", "-A", "-o", "wide"]);
        let events = look(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        let events: Vec<_> = events.lines().rev().take(30).collect();
        let operator = look(&["logs", "-n", RELEASES, "deployment/uf-upgrader-fleet", "--tail=20"]);
        format!("{pods}\n{}\n{operator}", events.join("\n"))
    }
}

/// The chart as it lies in the repository.
pub fn chart() -> String {
    repository("charts/upgrader-fleet").display().to_string()
}

/// One of the programs that lie beside this test.
pub fn ours(name: &str) -> Result<PathBuf> {
    cluster::binary(name)
}

/// Whether a condition of a status has this value.
pub fn condition(status: &Value, kind: &str) -> bool {
    status["conditions"].as_array().into_iter().flatten().any(|one| one["type"] == kind && one["status"] == "True")
}

/// Ready with so many shards.
pub fn is_ready_with(shards: usize) -> impl Fn(&Value) -> bool {
    move |status| condition(status, "Ready") && status["readyShards"] == format!("{shards}/{shards}")
}

/// Runs an asynchronous body.
pub fn block_on<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(body)
}

/// Names of objects in a list.
pub fn names(objects: &[Value]) -> Vec<String> {
    objects.iter().filter_map(|one| one["metadata"]["name"].as_str()).map(str::to_owned).collect()
}

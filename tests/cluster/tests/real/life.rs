//! The life of a fleet in pods, while transactions arrive and blocks are mined.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::Cluster;
use cluster::machine::{Machine, alone};
use cluster::wait::until;
use fleet_api::ResidueClass;
use kube::Api;
use serde_json::{Value, json};

use crate::coverage::Auditor;
use crate::helm::documents;
use crate::kept::Proofs;
use crate::kit::{FLEETS, Kit, NEXT, RELEASES, block_on, chart, is_ready_with, names};
use crate::monitoring::{self, Prometheus};

/// Transactions that the dev node sends: one each three seconds, as long as things happen to the fleet.
const TRANSACTIONS: usize = 60;

#[test]
fn nothing_is_lost_whatever_happens_to_the_fleet() -> Result<()> {
    alone("life::nothing_is_lost_whatever_happens_to_the_fleet", |machine| block_on(life(machine)))
}

async fn life(machine: &Machine) -> Result<()> {
    let cluster = Cluster::on_machine(machine).await?;
    let kit = Kit::new(machine, &cluster, 2).await?;
    monitoring::definitions(&kit)?;
    kit.install()?;
    kit.helm.run(&["test", "uf", "--timeout=60s"]).with_context(|| kit.state())?;
    kit.say("helm test has passed");
    let chart = chart();
    // Monitoring is not a default: few clusters have its definitions.
    let monitored = [
        "--set=monitoring.serviceMonitor.enabled=true,monitoring.serviceMonitor.interval=5s,monitoring.dashboards.enabled=true",
    ];
    kit.helm.run(&[&["upgrade", "uf", &chart], &monitored[..]].concat())?;

    let sent = TRANSACTIONS.to_string();
    let environment =
        [("DEV_NODE_TRANSACTIONS", sent.as_str()), ("DEV_NODE_ARRIVALS", "20"), ("DEV_NODE_BLOCK_INTERVAL", "15")];
    let address = kit.dev_node(&environment).await?;
    fleet(&kit, 4, &address)?;
    let took = kit.until_fleet("main", "ready fleet", is_ready_with(4)).await?;
    kit.say(&format!(
        "four shards are ready after {:.1} s\n{}",
        took.as_secs_f64(),
        kit.kubectl(&["get", "uf", "-n", FLEETS])?
    ));
    let prometheus = Prometheus::start(&kit, &machine.folder().join("prometheus")).await?;
    mined(&kit, 3).await?;

    kill_an_upgrader(&kit).await?;
    let mut killed = Vec::new();
    // A proof may end between the look and the kill: then another one has to die.
    for attempt in 0.. {
        let (pod, lost) = kill_a_prover(&kit).await?;
        killed.push(pod);
        if lost > 0 {
            break;
        }
        ensure!(attempt < 5, "no prover died in the middle of a proof: {killed:?}");
    }
    mined(&kit, 9).await?;

    // Nobody dies from here to the drain: what is covered stays covered.
    let auditor = Auditor::start(Api::namespaced(cluster.client().await?, FLEETS));
    fleet(&kit, 8, &address)?;
    let took = kit.until_fleet("main", "eight shards", is_ready_with(8)).await?;
    kit.say(&format!("eight shards are ready after {:.1} s", took.as_secs_f64()));

    upgrade(&kit, &chart, &monitored).await?;
    auditor.assert_never_uncovered();
    drain(&kit, &auditor).await?;

    let took = mined(&kit, TRANSACTIONS).await?;
    kit.say(&format!("all {TRANSACTIONS} transactions are mined, the last ones after {:.1} s more", took.as_secs_f64()));
    let pods = ["upgrader", "prover"].map(|component| kit.pods(component));
    let [upgraders, provers] = pods;
    let pods: BTreeSet<_> = names(&upgraders?).into_iter().chain(names(&provers?)).collect();
    prometheus.scrapes(pods).await?;
    let shown = monitoring::dashboards(&kit, &prometheus).await?;
    kit.say(&format!("{shown} expressions of the dashboards have samples"));
    kit.say(&format!("cluster and fleet take {:.2} GiB of memory", memory()? as f64 / 1_073_741_824.0));
    drop(prometheus);
    account(&kit, &killed)?;
    uninstall(&kit, &chart).await
}

/// Creates or changes the fleet.
fn fleet(kit: &Kit<'_>, shards: u32, address: &str) -> Result<()> {
    // Each proof's claim is in the log of the upgrader that received it, at this level, and whom it was asked of.
    let log = json!({ "containers": [{ "name": "upgrader", "env": [
        { "name": "RUST_LOG", "value": "info,upgrader=debug,prover_api=debug" },
        // Long enough that deaths come in the middle of proofs.
        { "name": "UPGRADER_MOCK_PROOF_TIME", "value": "2s" },
    ] }] });
    let small = json!({ "cpu": "20m", "memory": "32Mi" });
    kit.cluster.apply(&json!({
        "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet",
        "metadata": { "name": "main", "namespace": FLEETS },
        "spec": {
            "network": "regtest",
            "node": { "urls": ["http://dev-node.chain.svc:9797"] },
            "upgraders": { "shards": shards, "receivingAddress": address, "resources": { "requests": small }, "podTemplate": { "spec": log } },
            // Mock proofs need no GPU; the pods take one all the same, as real ones would.
            "provers": { "replicas": 3, "drainSeconds": 60, "resources": { "requests": small, "limits": { "nvidia.com/gpu": "1" } } },
            "monitoring": { "serviceMonitor": { "enabled": true, "intervalSeconds": 5 } },
        },
    }))
}

/// Waits until so many transactions are in blocks.
async fn mined(kit: &Kit<'_>, count: usize) -> Result<Duration> {
    until("mined transactions", Duration::from_mins(5), || async {
        let lines = kit.chain_log()?;
        let mined = lines.iter().filter(|line| line.starts_with("mined ")).count();
        let last = lines.last().cloned().unwrap_or_default();
        Ok(if mined >= count { Ok(()) } else { Err(format!("{mined} of {count}; {last}")) })
    })
    .await
    .with_context(|| kit.state())
}

/// Waits for a ready pod that has work, by this metric; gives it.
async fn busy(kit: &Kit<'_>, component: &str, metric: &str, port: u16) -> Result<Value> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let find = async || -> Result<Option<Value>> {
        for pod in kit.pods(component)? {
            let Some(address) = pod["status"]["podIP"].as_str() else { continue };
            // One that is going may not answer any more.
            let Ok(answer) = client.get(format!("http://{address}:{port}/metrics")).send().await else { continue };
            let text = answer.text().await?;
            let value = text.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse::<f64>().ok());
            if value.with_context(|| format!("no {metric}: {text}"))? > 0.0 {
                return Ok(Some(pod));
            }
        }
        Ok(None)
    };
    let began = Instant::now();
    while began.elapsed() < Duration::from_mins(1) {
        if let Some(pod) = find().await? {
            return Ok(pod);
        }
    }
    bail!("no {component} has work")
}

/// Kills the pod of a shard that is upgrading something, at once and for good.
async fn kill_an_upgrader(kit: &Kit<'_>) -> Result<()> {
    let pod = busy(kit, "upgrader", "upgrader_proofs_in_progress", 8081).await?;
    let pod = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
    kit.cluster.kubectl(&["delete", "pod", &pod, "-n", FLEETS, "--grace-period=0", "--force"])?;
    kit.say(&format!("killed {pod}"));
    let took = kit.until_fleet("main", "all shards again", is_ready_with(4)).await?;
    ensure!(!names(&kit.pods("upgrader")?).contains(&pod), "{pod} is still there");
    kit.say(&format!("all shards are ready {:.1} s later", took.as_secs_f64()));
    Ok(())
}

/// Kills the process of a prover pod; the kubelet starts it again. Gives the pod's name and how many proofs it was making.
async fn kill_a_prover(kit: &Kit<'_>) -> Result<(String, usize)> {
    let pod = busy(kit, "prover", "prover_pod_running_jobs", 8080).await?;
    let node = kit.nodes.iter().find(|node| pod["spec"]["nodeName"] == node.name).context("a node")?;
    let container = &pod["status"]["containerStatuses"][0];
    let restarts = container["restartCount"].as_i64().context("a count")?;
    node.kill(container["containerID"].as_str().context("an id")?)?;
    let name = pod["metadata"]["name"].as_str().context("a name")?.to_owned();
    // Its last lines; the next container takes longer to begin.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let lost = Proofs::read(&kit.kept)?.unfinished.get(&name).map_or(0, BTreeMap::len);
    kit.say(&format!("SIGKILL to {name}, which was making {lost} proofs"));
    until("restarted prover", Duration::from_mins(1), || async {
        let pod = kit.get(FLEETS, &["pod", &name])?;
        let status = &pod["status"]["containerStatuses"][0];
        Ok(if status["restartCount"] == restarts + 1 && status["ready"] == true { Ok(()) } else { Err(status.to_string()) })
    })
    .await?;
    Ok((name, lost))
}

/// Upgrades the release to other images and waits until nothing runs the old ones.
async fn upgrade(kit: &Kit<'_>, chart: &str, values: &[&str]) -> Result<()> {
    let images = format!("--set=image.tag={NEXT},fleetImages.upgrader.tag={NEXT},fleetImages.proverPod.tag={NEXT}");
    kit.helm.run(&[&["upgrade", "uf", chart, &images], values].concat())?;
    kit.kubectl(&["rollout", "status", "deployment/uf-upgrader-fleet", "-n", RELEASES, "--timeout=120s"])?;
    let old = |pods: Vec<Value>| {
        let is_old = |pod: &Value| !pod["spec"]["containers"][0]["image"].as_str().is_some_and(|image| image.ends_with(NEXT));
        pods.into_iter().filter(is_old).collect::<Vec<_>>()
    };
    let took = until("new images", Duration::from_mins(5), || async {
        let left = [old(kit.pods("upgrader")?), old(kit.pods("prover")?)].concat();
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{:?}", names(&left))) })
    })
    .await
    .with_context(|| kit.state())?;
    kit.until_fleet("main", "fleet of new images", is_ready_with(8)).await?;
    kit.say(&format!("helm upgrade: all pods run the new images after {:.1} s", took.as_secs_f64()));
    Ok(())
}

/// Drains the node without the chain and gives it back.
async fn drain(kit: &Kit<'_>, auditor: &Auditor) -> Result<()> {
    let name = kit.nodes[1].name;
    let on_it = |pods: Vec<Value>| pods.into_iter().filter(|pod| pod["spec"]["nodeName"] == name).collect::<Vec<_>>();
    let evicted = on_it(kit.pods("upgrader")?);
    ensure!(!evicted.is_empty(), "the drained node has no upgrader");
    let before = names(&[evicted.clone(), on_it(kit.pods("prover")?)].concat());
    // A shard has one pod, and an eviction ends it before its successor is there: what it had is uncovered meanwhile, and no more.
    for pod in &evicted {
        let slug = pod["metadata"]["labels"]["upgrader-fleet.dev/shard"].as_str().context("a shard")?;
        auditor.dies(ResidueClass::from_slug(slug).context("a class")?);
    }
    let began = Instant::now();
    // Evictions that a budget refuses are warned of and tried again.
    let (drained, said) =
        kit.cluster.kubectl(&["drain", name, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"])?;
    ensure!(drained, "{said}\n{}", kit.state());
    let after = names(&[on_it(kit.pods("upgrader")?), on_it(kit.pods("prover")?)].concat());
    ensure!(after.is_empty(), "left on the drained node: {after:?}");
    kit.until_fleet("main", "all shards elsewhere", |status| status["readyShards"] == "8/8" && status["coverage"] == "256/256")
        .await?;
    // Two of three: the other node has no GPU more, and that is said.
    kit.until_fleet("main", "a prover without a GPU", |status| status["readyProvers"] == "2/3").await?;
    auditor.assert_only_deaths_uncovered();
    kit.say(&format!("drained {name} of {} pods in {:.1} s", before.len(), began.elapsed().as_secs_f64()));
    kit.kubectl(&["uncordon", name])?;
    kit.until_fleet("main", "all provers again", |status| status["readyProvers"] == "3/3").await?;
    Ok(())
}

/// Memory of all processes of the machine, shared pages divided among those that share them.
fn memory() -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir("/proc")? {
        // A process may be gone; folders of other things have no such file.
        let Ok(text) = std::fs::read_to_string(entry?.path().join("smaps_rollup")) else { continue };
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix("kB"));
        sum += line.map_or(Ok(0), |kibibytes| kibibytes.trim().parse::<u64>())? * 1024;
    }
    ensure!(sum > 0, "no process says what it takes");
    Ok(sum)
}

/// Each transaction is in a block, once, and no claim was proven again while a pod had its proof or was making it.
fn account(kit: &Kit<'_>, killed: &[String]) -> Result<()> {
    let log = kit.chain_log()?;
    let ids = |verb: &str| {
        log.iter().filter_map(|line| line.strip_prefix(verb)?.split(' ').next()).map(str::to_owned).collect::<Vec<_>>()
    };
    let (sent, mined) = (ids("sent "), ids("mined "));
    let distinct: BTreeSet<_> = mined.iter().collect();
    ensure!(sent.len() == TRANSACTIONS && mined.len() == TRANSACTIONS, "{} sent, {} mined", sent.len(), mined.len());
    ensure!(distinct == sent.iter().collect(), "what was mined is not what was sent");
    let proofs = Proofs::read(&kit.kept)?;
    kit.say(&format!(
        "{} proofs of {} claims, {} received by upgraders, {} upgrades",
        proofs.total(),
        proofs.made.len(),
        proofs.received.len(),
        proofs.upgrades
    ));
    ensure!(proofs.received.len() >= TRANSACTIONS, "the logs are not complete: {} claims", proofs.received.len());
    let unmade: Vec<_> = proofs.received.iter().filter(|claim| !proofs.made.contains_key(*claim)).collect();
    ensure!(unmade.is_empty(), "received, and made by nobody: {unmade:?}");
    let twice = proofs.twice(killed);
    let again = proofs.total() - proofs.made.len();
    kit.say(&format!("{again} proofs were made again, of claims that pods had proven which were gone"));
    ensure!(twice.is_empty(), "proven again while a pod had it:\n{}\nkilled were {killed:?}", twice.join("\n"));
    // Nobody fell over by itself, and the operator was refused nothing.
    for container in ["operator", "upgrader", "prover", "dev-node"] {
        let lines = kit.kept.lines(container)?;
        ensure!(!lines.is_empty(), "no log of {container}");
        let bad =
            lines.values().flatten().find(|line| line.contains("panicked at") || line.to_lowercase().contains("forbidden"));
        ensure!(bad.is_none(), "{container}: {bad:?}");
    }
    for pod in [kit.pods("upgrader")?, kit.pods("prover")?].concat() {
        let container = &pod["status"]["containerStatuses"][0];
        ensure!(container["restartCount"] == 0, "{}: {container}", pod["metadata"]["name"]);
    }
    Ok(())
}

/// Removes the fleet and the release: nothing is left but the definition, which the chart keeps.
async fn uninstall(kit: &Kit<'_>, chart: &str) -> Result<()> {
    kit.kubectl(&["delete", "uf", "main", "-n", FLEETS])?;
    let kinds = "all,secrets,configmaps,serviceaccounts,roles,rolebindings,poddisruptionbudgets,leases,servicemonitors,networkpolicies,persistentvolumeclaims";
    let left = |namespace: &'static str| -> Result<Vec<String>> {
        let said = kit.kubectl(&["get", kinds, "-n", namespace, "-o", "name"])?;
        // What every namespace has.
        Ok(said
            .lines()
            .filter(|line| !["configmap/kube-root-ca.crt", "serviceaccount/default"].contains(line))
            .map(str::to_owned)
            .collect())
    };
    let gone = async |namespace: &'static str| {
        until("empty namespace", Duration::from_mins(2), || async {
            let left = left(namespace)?;
            Ok(if left.is_empty() { Ok(()) } else { Err(left.join(" ")) })
        })
        .await
        .with_context(|| format!("namespace {namespace}"))
    };
    gone(FLEETS).await?;
    let render = kit.helm.run(&["template", "uf", chart, "--api-versions=monitoring.coreos.com/v1"])?;
    let global: Vec<_> = documents(&render)?
        .into_iter()
        .filter(|(_, one)| one["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster")))
        .collect();
    ensure!(!global.is_empty(), "the release has nothing of the whole cluster");
    kit.helm.run(&["uninstall", "uf", "--wait"])?;
    gone(RELEASES).await?;
    let all = kit.kubectl(&["get", "clusterroles,clusterrolebindings,crds", "-o", "name"])?;
    let ours: Vec<_> = all.lines().filter(|line| line.contains("upgrader")).collect();
    ensure!(ours == ["customresourcedefinition.apiextensions.k8s.io/upgraderfleets.upgrader-fleet.dev"], "{ours:?}");
    kit.say("helm uninstall left the definition and nothing else");
    Ok(())
}

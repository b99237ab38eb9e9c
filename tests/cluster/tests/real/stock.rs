//! Mode `Node`: the published neptune-core in a pod for each shard, with a volume, a wallet, and its proofs made over TLS.

use std::collections::BTreeSet;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::machine::{Machine, alone};
use cluster::wait::until;
use cluster::{Cluster, cache};
use prover_api::{ProverJob, proof};
use serde_json::{Value, json};
use triton_vm::prelude::*;

use crate::kit::{FLEETS, Kit, block_on, is_ready_with, names};

/// The image of the stock node, which is nobody's but this test's.
const IMAGE: &str = "localhost/neptune-core:stock";
/// User and group of pods.
const USER: u32 = 65_532;

#[test]
fn stock_nodes_keep_wallet_and_volume_and_have_their_proofs_made_over_tls() -> Result<()> {
    if !program("neptune-core").exists() {
        eprintln!("SKIPPED: {} is missing; `make real-node` builds it, for most of an hour", program("neptune-core").display());
        return Ok(());
    }
    alone("stock::stock_nodes_keep_wallet_and_volume_and_have_their_proofs_made_over_tls", |machine| block_on(nodes(machine)))
}

fn program(name: &str) -> PathBuf {
    cache().join("tools/bin").join(name)
}

async fn nodes(machine: &Machine) -> Result<()> {
    let cluster = Cluster::on_machine(machine).await?;
    let kit = Kit::new(machine, &cluster, 1).await?;
    let archive = image(machine.folder())?;
    kit.nodes[0].import(&archive, IMAGE, &[])?;
    kit.install()?;

    let unsound = fleet(&kit, None);
    ensure!(unsound.is_err_and(|error| error.to_string().contains("walletSecret")), "a fleet without a wallet was taken");
    let volumes = (0..2).map(|number| volume(&kit, machine.folder(), number)).collect::<Result<Vec<_>>>()?;
    let wallet = wallet(machine.folder())?;
    // Without its Secret no node starts, and with it goes none that would make a wallet of its own.
    fleet(&kit, Some("wallet"))?;
    until("pods that wait", Duration::from_mins(1), || async {
        let pods = kit.pods("upgrader")?;
        Ok(if pods.len() == 2 { Ok(()) } else { Err(format!("{:?}", names(&pods))) })
    })
    .await
    .with_context(|| kit.state())?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    for pod in kit.pods("upgrader")? {
        ensure!(pod["status"]["phase"] == "Pending", "started without a wallet: {}", pod["status"]);
    }
    kit.kubectl(&[
        "create",
        "secret",
        "generic",
        "wallet",
        "-n",
        FLEETS,
        &format!("--from-file=wallet.dat={}", wallet.display()),
    ])?;

    let took = kit.until_fleet("stock", "ready stock nodes", is_ready_with(2)).await?;
    kit.say(&format!("two stock nodes are ready after {:.1} s", took.as_secs_f64()));
    let pods = kit.pods("upgrader")?;
    ensure!(names(&pods).into_iter().collect::<BTreeSet<_>>() == ["stock-d2-r0-0", "stock-d2-r1-0"].map(str::to_owned).into());
    let filters: BTreeSet<String> = pods.iter().filter_map(filter).collect();
    ensure!(filters == ["2:0", "2:1"].map(str::to_owned).into(), "{filters:?}");
    let given = std::fs::read(&wallet)?;
    for volume in &volumes {
        let there = std::fs::read(volume.join("main/wallet/wallet.dat")).with_context(|| listing(volume))?;
        ensure!(there == given, "the node has made a wallet of its own");
    }

    for pod in names(&pods) {
        proves(&kit, &pod)?;
    }
    let address = kit.pods("prover")?[0]["status"]["podIP"].as_str().context("an address")?.to_owned();
    let plain = reqwest::Client::builder().no_proxy().build()?.get(format!("http://{address}:8080/readyz")).send().await;
    ensure!(!plain.is_ok_and(|answer| answer.status().is_success()), "jobs with spending secrets could go in the clear");

    // The fleet goes; chain and wallet stay, and a fleet of the same name has them again.
    let claims = || Ok::<_, anyhow::Error>(names(kit.get(FLEETS, &["pvc"])?["items"].as_array().context("items")?));
    let before = claims()?;
    ensure!(before.len() == 2, "{before:?}");
    kit.kubectl(&["delete", "uf", "stock", "-n", FLEETS])?;
    until("no pod of the fleet", Duration::from_mins(3), || async {
        let left = kit.pods("upgrader")?.len() + kit.pods("prover")?.len();
        Ok(if left == 0 { Ok(()) } else { Err(left.to_string()) })
    })
    .await?;
    ensure!(claims()? == before, "the volumes went with the fleet");
    fleet(&kit, Some("wallet"))?;
    kit.until_fleet("stock", "the same nodes again", is_ready_with(2)).await?;
    ensure!(claims()? == before, "{:?}", claims()?);
    kit.say("deleted and made again: the same volumes, the same wallet");
    Ok(())
}

/// Creates the fleet.
fn fleet(kit: &Kit<'_>, wallet: Option<&str>) -> Result<()> {
    let small = json!({ "requests": { "cpu": "50m", "memory": "64Mi" } });
    let mut deploy = json!({ "image": IMAGE, "storage": { "size": "1Gi" }, "resources": small });
    if let Some(name) = wallet {
        deploy["walletSecret"] = json!({ "name": name });
    }
    kit.cluster.apply(&json!({
        "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet",
        "metadata": { "name": "stock", "namespace": FLEETS },
        "spec": {
            "network": "main",
            "node": { "deploy": deploy },
            "upgraders": { "mode": "Node", "shards": 2 },
            "provers": { "replicas": 1, "backend": "Cpu", "drainSeconds": 30,
                         "resources": { "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "memory": "4Gi" } } },
        },
    }))
}

/// The image of neptune-core: its programs and the libraries that they are linked with here, where they were compiled.
fn image(folder: &Path) -> Result<PathBuf> {
    let context = folder.join("stock-image");
    let root = context.join("rootfs");
    for name in ["neptune-core", "neptune-cli"] {
        std::fs::create_dir_all(&context)?;
        std::fs::copy(program(name), context.join(name))?;
    }
    let linked = Command::new("ldd").arg(program("neptune-core")).output().context("ldd")?;
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    for library in linked.split_whitespace().filter(|word| word.starts_with('/')) {
        let target = root.join(library.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().context("a folder")?)?;
        std::fs::copy(library, target)?;
    }
    std::fs::create_dir_all(root.join("etc"))?;
    std::fs::write(root.join("etc/passwd"), format!("node:x:{USER}:{USER}:node:/tmp:/sbin/nologin\n"))?;
    let dockerfile = folder.join("stock.Dockerfile");
    let text = "FROM scratch\nCOPY rootfs/ /\nCOPY neptune-core neptune-cli /usr/local/bin/\nENV PATH=/usr/local/bin\n\
                USER 65532:65532\nENTRYPOINT [\"/usr/local/bin/neptune-core\"]\n";
    std::fs::write(&dockerfile, text)?;
    let archive = folder.join("neptune-core.tar");
    let script = cluster::package().join("../../scripts/oci.py");
    let made = Command::new("python3").arg(script).args([&dockerfile, &context]).arg(IMAGE).arg(&archive).output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(archive)
}

/// A wallet as neptune-cli makes it.
fn wallet(folder: &Path) -> Result<PathBuf> {
    let home = folder.join("wallet");
    std::fs::create_dir_all(&home)?;
    let made = Command::new(program("neptune-cli"))
        .args(["--data-dir", &home.display().to_string(), "generate-wallet", "--network", "main"])
        .env("HOME", &home)
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let path = home.join("main/wallet/wallet.dat");
    ensure!(path.exists(), "{}\n{}", String::from_utf8_lossy(&made.stdout), listing(&home));
    Ok(path)
}

/// A folder of the node as a volume that a claim can have; there is nobody who provides volumes here.
fn volume(kit: &Kit<'_>, folder: &Path, number: usize) -> Result<PathBuf> {
    let path = folder.join(format!("volume-{number}"));
    std::fs::create_dir_all(&path)?;
    chown(&path, Some(USER), Some(USER))?;
    kit.cluster.apply(&json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": format!("stock-{number}") },
        "spec": {
            "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": { "path": path.display().to_string(), "type": "Directory" },
        },
    }))?;
    Ok(path)
}

/// The shard that a pod was told.
fn filter(pod: &Value) -> Option<String> {
    let mut args = pod["spec"]["containers"][0]["args"].as_array()?.iter().filter_map(Value::as_str);
    args.find_map(|argument| argument.strip_prefix("--tx-upgrade-filter=")).map(str::to_owned)
}

/// Starts the proxy inside of the node's container, as the node does: the same program, environment and files. The proof has to be one.
fn proves(kit: &Kit<'_>, pod: &str) -> Result<()> {
    let program = triton_program!(read_io 1 push 2 mul write_io 1 halt);
    let input = pod.bytes().map(u64::from).sum::<u64>();
    let claim = Claim::about_program(&program).with_input(bfe_vec![input]).with_output(bfe_vec![2 * input]);
    let job = ProverJob::new(program, claim, NonDeterminism::default());
    let file = kit.cluster.folder().join(format!("{pod}.job"));
    std::fs::write(&file, job.to_json()?)?;
    let began = Instant::now();
    let run = |options: &[&str]| -> Result<std::process::Output> {
        let proxy = ["exec", "-i", pod, "-n", FLEETS, "-c", "node", "--", "/opt/upgrader-fleet/prover-proxy"];
        Ok(Command::new(kit.cluster.program("kubectl"))
            .arg("--kubeconfig")
            .arg(kit.cluster.kubeconfig())
            .args(proxy)
            .args(options)
            .stdin(Stdio::from(std::fs::File::open(&file)?))
            .output()?)
    };
    let ended = run(&["--patience=60s"])?;
    let log = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "{log}\n{}", kit.state());
    ensure!(proof::verify(&job.claim, &ended.stdout).is_ok(), "{} bytes that are no proof: {log}", ended.stdout.len());
    kit.say(&format!("{pod} has a proof from a prover pod, over TLS, in {:.1} s", began.elapsed().as_secs_f64()));
    // The same pod by an address that its certificate does not name gets nothing.
    let address = kit.pods("prover")?[0]["status"]["podIP"].as_str().context("an address")?.to_owned();
    let ended = run(&["--patience=2s", &format!("--endpoints=https://{address}:8080")])?;
    let log = String::from_utf8_lossy(&ended.stderr);
    ensure!(!ended.status.success() && ended.stdout.is_empty() && log.to_lowercase().contains("certificate"), "{log}");
    Ok(())
}

/// What lies in a folder.
fn listing(folder: &Path) -> String {
    let found = Command::new("find").arg(folder).output();
    found.map_or_else(|error| error.to_string(), |found| String::from_utf8_lossy(&found.stdout).into_owned())
}

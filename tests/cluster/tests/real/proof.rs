//! A real proof from a pod.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cluster::Cluster;
use cluster::machine::{Machine, alone};
use cluster::wait::until;
use serde_json::json;

use crate::kit::{FLEETS, Kit, block_on, chart, ours};

/// A leaf of 2^8 rows or a little more: counts down from the public input and answers with twice the start.
const PROGRAM: &str = "read_io 1 dup 0 push 2 mul write_io 1 call down pop 1 halt\n\
    down: dup 0 push 0 eq skiz return push -1 add recurse\n";

#[test]
fn a_pod_on_the_cpu_proves_a_leaf_that_verifies() -> Result<()> {
    alone("proof::a_pod_on_the_cpu_proves_a_leaf_that_verifies", |machine| block_on(proves(machine)))
}

async fn proves(machine: &Machine) -> Result<()> {
    let cluster = Cluster::on_machine(machine).await?;
    let kit = Kit::new(machine, &cluster, 1).await?;
    kit.install()?;
    // Provers may ask the API server whose a token is.
    kit.helm.run(&["upgrade", "uf", &chart(), "--set", &format!("tokenReview.namespaces={{{FLEETS}}}")])?;
    kit.cluster.apply(&json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "stranger", "namespace": FLEETS },
    }))?;
    // No node answers there: the upgrader waits, and the pod proves for whoever has its token.
    cluster.apply(&json!({
        "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet",
        "metadata": { "name": "cpu", "namespace": FLEETS },
        "spec": {
            "network": "main",
            "allowedServiceAccounts": ["cpu"],
            "node": { "urls": ["http://nowhere.chain.svc:9797"] },
            "upgraders": { "shards": 1, "resources": { "requests": { "cpu": "20m", "memory": "32Mi" } } },
            "provers": { "replicas": 1, "backend": "Cpu", "drainSeconds": 30,
                         "resources": { "requests": { "cpu": "500m", "memory": "1Gi" }, "limits": { "memory": "4Gi" } } },
        },
    }))?;
    let ready = kit.until_fleet("cpu", "prover on the CPU", |status| status["readyProvers"] == "1/1").await?;
    kit.say(&format!("a pod has proven its self-test and is ready after {:.1} s", ready.as_secs_f64()));
    let address = kit.pods("prover")?[0]["status"]["podIP"].as_str().context("an address")?.to_owned();
    let url = format!("http://{address}:8080");

    let folder = machine.folder().join("proofs");
    std::fs::create_dir_all(&folder)?;
    let (program, token) = (folder.join("leaf.tasm"), folder.join("token"));
    std::fs::write(&program, PROGRAM)?;
    let prove = |token: &str| -> Result<(bool, String)> {
        let mut command = Command::new(ours("fleet")?);
        command.arg("prove").arg(&program).args(["--input", "60", "--pods", &url, "--deadline", "2m", "--output"]).arg(&folder);
        if !token.is_empty() {
            command.args(["--token-file", token]);
        }
        let output = command.output()?;
        Ok((
            output.status.success(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        ))
    };
    // Nobody is served without the token of the fleet.
    let (served, said) = prove("")?;
    ensure!(!served && said.contains("401"), "{said}");

    let encoded =
        kit.kubectl(&["get", "secret", "cpu-token", "-n", FLEETS, "-o", "go-template={{.data.token | base64decode}}"])?;
    std::fs::write(&token, encoded)?;
    let began = Instant::now();
    let (served, said) = prove(&token.display().to_string())?;
    ensure!(served, "{said}");
    kit.say(&format!(
        "a leaf was proven in {:.1} s: {}",
        began.elapsed().as_secs_f64(),
        said.lines().last().unwrap_or_default()
    ));
    // The token that the kubelet has put into the upgrader's pod opens the provers, because the API server says whose it is.
    let account = projected(&kit).await?;
    let (served, said) = prove(&account.display().to_string())?;
    ensure!(served, "with the account's token: {said}\n{}", kit.state());
    kit.say("the provers take the token that the kubelet projects into the upgrader's pod");
    let audience = "--audience=upgrader-fleet.dev/provers";
    let of_stranger = kit.kubectl(&["create", "token", "stranger", "-n", FLEETS, audience])?;
    std::fs::write(folder.join("stranger"), of_stranger)?;
    let (served, said) = prove(&folder.join("stranger").display().to_string())?;
    ensure!(!served && said.contains("401"), "an account that nobody has allowed: {said}");

    let checked = Command::new(ours("fleet")?).arg("verify").arg(&folder).output()?;
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(checked.status.success() && said.contains("leaf"), "{said}{}", String::from_utf8_lossy(&checked.stderr));
    // And the verifier looks: a changed proof is none.
    let proof = folder.join("leaf.proof");
    let mut bytes = std::fs::read(&proof)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&proof, bytes)?;
    ensure!(
        !Command::new(ours("fleet")?).arg("verify").arg(&folder).output()?.status.success(),
        "a changed proof was accepted"
    );
    Ok(())
}

/// The token of the upgrader's account, where the kubelet keeps it for the pod's container.
async fn projected(kit: &Kit<'_>) -> Result<PathBuf> {
    let pods = kit.pods("upgrader")?;
    let [pod] = &pods[..] else { bail!("{} upgraders", pods.len()) };
    let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array().context("mounts")?;
    ensure!(mounts.iter().any(|mount| mount["name"] == "account"), "{mounts:?}");
    let token = kit.nodes[0].projected(pod["metadata"]["uid"].as_str().context("a uid")?, "account").join("token");
    until("projected token", Duration::from_mins(1), || async {
        Ok(if token.exists() { Ok(()) } else { Err(format!("no {}", token.display())) })
    })
    .await?;
    Ok(token)
}

//! Tier `api`: what a person sees of a fleet with the command `fleet`, through a real API server. The fleet's status and its pods
//! are written by the test; what an upgrader answers, the API server fetches from an address of this machine.

mod support;

use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::Path;
use axum::routing::get;
use cluster::objects::{namespace, spec};
use cluster::{Cluster, Tier, binary};
use fleet_api::{CoverageMask, UpgraderFleet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use support::cluster;

const NAMESPACE: &str = "person";

/// An address of this machine that is not loopback, to which the API server would not go. Nothing is sent.
fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9")?;
    Ok(socket.local_addr()?.ip())
}

async fn pod(client: &Client, name: &str, shard: &str, address: IpAddr, port: u16) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let body: Pod = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": {
            "upgrader-fleet.dev/fleet": "prod", "upgrader-fleet.dev/shard": shard, "upgrader-fleet.dev/role": "primary",
            "app.kubernetes.io/component": "upgrader",
        } },
        "spec": {
            "nodeName": "somewhere",
            "containers": [{ "name": "upgrader", "image": "image:1", "ports": [{ "name": "http", "containerPort": port }] }],
        },
    }))?;
    pods.create(&PostParams::default(), &body).await?;
    let status = json!({ "status": {
        "phase": "Running", "podIP": address.to_string(), "podIPs": [{ "ip": address.to_string() }],
        "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// A fleet of two shards, of which one is ready.
async fn fleet(client: &Client) -> Result<()> {
    let fleets: Api<UpgraderFleet> = Api::namespaced(client.clone(), NAMESPACE);
    let body = json!({
        "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet", "metadata": { "name": "prod" }, "spec": spec(2),
    });
    let made = fleets.patch("prod", &PatchParams::apply("person"), &Patch::Apply(&body)).await?;
    let covered = CoverageMask::of_class("2:0".parse()?);
    let since = "2026-01-01T00:00:00Z";
    let status = json!({ "status": {
        "observedGeneration": made.metadata.generation, "readyShards": "1/2", "readyProvers": "0/1", "queue": 3, "overlapping": 0,
        "replicas": 0, "coverage": "128/256", "coverageMask": covered.to_string(),
        "shards": [
            { "class": "2:0", "phase": "Ready", "weight": 128, "pod": "up-even", "since": since },
            { "class": "2:1", "phase": "Starting", "weight": 128, "since": since },
        ],
        "provers": [{ "name": "default", "desired": 1, "ready": 0, "unschedulable": 1 }],
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "Uncovered", "message": "128 of 256", "observedGeneration": 1,
            "lastTransitionTime": since,
        }],
    } });
    fleets.patch_status("prod", &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

async fn type_in(cluster: &Cluster, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("fleet")?);
    command.args(arguments).env("KUBECONFIG", cluster.kubeconfig());
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_is_drawn_and_its_upgraders_explain_through_the_api_server() -> Result<()> {
    let Some(cluster) = cluster(Tier::Api).await else { return Ok(()) };
    let client = cluster.client().await?;
    namespace(&client, NAMESPACE).await?;
    fleet(&client).await?;

    let address = own_address()?;
    let listener = tokio::net::TcpListener::bind((address, 0)).await?;
    let port = listener.local_addr()?.port();
    let explain = async |Path(txid): Path<String>| {
        axum::Json(json!({
            "txid": txid, "shard": "2:0", "owner": "2:0", "in_this_shard": true, "in_mempool": true, "state": "planned",
            "position": 4, "planned": "raise", "history": [],
        }))
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/explain/{txid}", get(explain))).await });
    pod(&client, "up-even", "d2-r0", address, port).await?;

    let drawn = type_in(cluster, &["status", "-n", NAMESPACE, "prod", "-o", "wide"]).await?;
    let said = text(&drawn);
    ensure!(drawn.status.code() == Some(1), "a fleet that is not ready is something found wrong: {said}");
    for part in [
        "prod in person on regtest: shards 1/2, coverage 128/256, provers 0/1, queue 3",
        "nobody upgrades 2:1",
        "Uncovered",
        "somewhere",
    ] {
        ensure!(said.contains(part), "{part} is not in\n{said}");
    }
    let json: Value =
        serde_json::from_slice(&type_in(cluster, &["status", "-n", NAMESPACE, "prod", "-o", "json"]).await?.stdout)?;
    assert_eq!((&json["uncovered"], &json["pods"][0]["state"]), (&json!(["2:1"]), &json!("ready")));

    // An even last byte is in the shard that is there.
    let (even, odd) = ("0".repeat(78) + "2a", "0".repeat(78) + "2b");
    let told = type_in(cluster, &["explain", &even, "-n", NAMESPACE, "prod"]).await?;
    let said = text(&told);
    ensure!(told.status.success(), "{said}");
    for part in ["pod          up-even on somewhere, of shard 2:0", &even, "planned      raise, 4 before it"] {
        ensure!(said.contains(part), "{part} is not in\n{said}");
    }
    let json: Value =
        serde_json::from_slice(&type_in(cluster, &["explain", &even, "-n", NAMESPACE, "prod", "--json"]).await?.stdout)?;
    assert_eq!((&json["pod"], &json["txid"], &json["state"]), (&json!("up-even"), &json!(even), &json!("planned")));
    let told = type_in(cluster, &["explain", &odd, "-n", NAMESPACE, "prod"]).await?;
    ensure!(!told.status.success() && text(&told).contains("no pod of this fleet upgrades"), "{}", text(&told));

    let none = type_in(cluster, &["status", "-n", NAMESPACE, "test"]).await?;
    ensure!(!none.status.success() && text(&none).contains("there is no UpgraderFleet test"), "{}", text(&none));
    let nameless = type_in(cluster, &["status", "-n", NAMESPACE]).await?;
    ensure!(text(&nameless).contains("which fleet of the cluster?"), "{}", text(&nameless));

    // Who may see pods and not ask them is told which right is missing.
    let rules = vec![
        json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["list"] }),
        json!({ "apiGroups": ["upgrader-fleet.dev"], "resources": ["upgraderfleets"], "verbs": ["get"] }),
    ];
    let scope = cluster::account::Scope::Namespace;
    let kubeconfig = cluster::account::make(cluster, &client, NAMESPACE, scope, &rules).await?;
    let path = kubeconfig.to_str().context("a path")?;
    let looked = type_in(cluster, &["status", "-n", NAMESPACE, "prod", "--kubeconfig", path]).await?;
    ensure!(text(&looked).starts_with("prod in person"), "{}", text(&looked));
    let refused = type_in(cluster, &["explain", &even, "-n", NAMESPACE, "prod", "--kubeconfig", path]).await?;
    ensure!(!refused.status.success() && text(&refused).contains("get pods/proxy"), "{}", text(&refused));
    Ok(())
}

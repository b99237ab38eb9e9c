//! The chart on a real API server: what it takes of each render, and the life of a release.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cluster::wait::until;
use cluster::{Cluster, Operator, OperatorOptions, Tier, binary};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::helm::{Helm, NAMESPACE, SETS, documents, read, repository, text};

/// The namespace of the set `namespaced`.
const TENANT: &str = "tenant";
const PATIENCE: Duration = Duration::from_mins(1);

static CLUSTER: OnceCell<Option<Cluster>> = OnceCell::const_new();

/// The cluster that the tests of renders share. It has what a release finds: namespaces and definitions. Nothing without Go.
async fn cluster() -> Result<Option<&'static Cluster>> {
    let start = || async {
        let cluster = Cluster::start(Tier::Api).await?;
        if let Some(cluster) = &cluster {
            // Small enough for the annotation of a client-side apply.
            kubectl(cluster, &["apply", "-f", &path("crds")])?;
            // Those of Prometheus' operator itself, from its Go module.
            let folder = cluster.program("helm").parent().and_then(Path::parent).context("a cache")?.join("definitions");
            for name in ["servicemonitors", "prometheusrules"] {
                let file = folder.join(format!("monitoring.coreos.com_{name}.yaml"));
                kubectl(cluster, &["apply", "--server-side", "-f", &file.display().to_string()])?;
                let crd = format!("crd/{name}.monitoring.coreos.com");
                kubectl(cluster, &["wait", "--for=condition=established", "--timeout=30s", &crd])?;
            }
            kubectl(
                cluster,
                &["wait", "--for=condition=established", "--timeout=30s", "crd/upgraderfleets.upgrader-fleet.dev"],
            )?;
            for namespace in [NAMESPACE, TENANT, "elsewhere"] {
                kubectl(cluster, &["create", "namespace", namespace])?;
                let label = "pod-security.kubernetes.io/enforce=restricted";
                kubectl(cluster, &["label", "namespace", namespace, label, "pod-security.kubernetes.io/warn=restricted"])?;
            }
        }
        anyhow::Ok(cluster)
    };
    Ok(CLUSTER.get_or_try_init(start).await?.as_ref())
}

fn path(path: &str) -> String {
    repository(path).display().to_string()
}

/// Runs kubectl, which has to succeed and to have nothing to warn of.
fn kubectl(cluster: &Cluster, arguments: &[&str]) -> Result<String> {
    let (succeeded, said) = cluster.kubectl(arguments)?;
    if !succeeded || said.contains("Warning:") {
        bail!("kubectl {}: {said}", arguments.join(" "));
    }
    Ok(said)
}

fn get(cluster: &Cluster, namespace: &str, what: &str) -> Result<Value> {
    Ok(serde_json::from_str(&kubectl(cluster, &["get", "-n", namespace, what, "-o", "json"])?)?)
}

/// Gives a manifest to the server, which checks it as it would for good, admission included.
fn dry_run(cluster: &Cluster, name: &str, manifest: &str) -> Result<String> {
    let file = cluster.folder().join(format!("{name}.yaml"));
    std::fs::write(&file, manifest)?;
    kubectl(cluster, &["apply", "--dry-run=server", "-f", &file.display().to_string()])
}

#[tokio::test]
async fn the_api_server_takes_each_render() -> Result<()> {
    let Some(helm) = Helm::find()? else { return Ok(()) };
    let Some(cluster) = cluster().await? else { return Ok(()) };
    for set in SETS {
        let render = helm.render(set)?;
        let said = dry_run(cluster, set, &render)?;
        let taken = said.lines().filter(|line| line.ends_with("(server dry run)")).count();
        ensure!(taken == documents(&render)?.len(), "{set}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn the_api_server_would_refuse_a_bad_render() -> Result<()> {
    let Some(helm) = Helm::find()? else { return Ok(()) };
    let Some(cluster) = cluster().await? else { return Ok(()) };
    let render = helm.render("everything")?;
    let faults = [
        ("interval: 1m", "interval: soon", "spec.endpoints[0].interval"),
        ("severity: critical", "severity: [critical]", "spec.groups[0].rules[0].labels.severity"),
        (
            "containerPort: 8080",
            "containerport: 8080",
            "unknown field \"spec.template.spec.containers[0].ports[0].containerport\"",
        ),
        ("policyTypes: [Ingress]", "policyTypes: [Incoming]", "spec.policyTypes"),
        // Pod Security: the pod of `helm test` is refused, the Deployment warned of.
        ("capabilities: {drop: [ALL]}", "capabilities: {}", "violates PodSecurity \"restricted:latest\""),
    ];
    for (index, (good, bad, said)) in faults.into_iter().enumerate() {
        ensure!(render.contains(good), "the render has no {good}");
        let error = match dry_run(cluster, &format!("bad-{index}"), &render.replace(good, bad)) {
            Ok(taken) => bail!("{bad} was taken: {taken}"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(error.contains(said), "{bad}\nexpected: {said}\ngot: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn the_plain_manifest_and_the_example_are_taken() -> Result<()> {
    let Some(cluster) = Cluster::start(Tier::Api).await? else { return Ok(()) };
    // As in the README, on a cluster that has nothing yet.
    let manifest = path("deploy/install.yaml");
    kubectl(&cluster, &["apply", "--server-side", "-f", &manifest])?;
    kubectl(&cluster, &["wait", "--for=condition=established", "--timeout=30s", "crd/upgraderfleets.upgrader-fleet.dev"])?;
    kubectl(&cluster, &["diff", "--server-side", "-f", &manifest]).context("a second time changes something")?;
    let deployment = get(&cluster, NAMESPACE, "deployment/upgrader-fleet")?;
    ensure!(deployment["spec"]["replicas"] == 1, "{deployment}");

    let chart: Value = serde_yaml_ng::from_str(&read("charts/upgrader-fleet/Chart.yaml")?)?;
    let examples = chart["annotations"]["artifacthub.io/crdsExamples"].as_str().context("examples")?;
    let examples: Vec<Value> = serde_yaml_ng::from_str(examples)?;
    ensure!(!examples.is_empty(), "no example");
    for example in examples {
        dry_run(&cluster, "example", &serde_yaml_ng::to_string(&example)?)?;
    }
    Ok(())
}

/// The operator as the release runs it: its arguments, its account's rights and nothing else.
async fn operator(cluster: &Cluster, name: &str, account: &str) -> Result<Operator> {
    let deployment = get(cluster, NAMESPACE, &format!("deployment/{name}"))?;
    let pod = &deployment["spec"]["template"]["spec"];
    ensure!(pod["serviceAccountName"] == account, "{pod}");
    let token = kubectl(cluster, &["create", "token", account, "-n", NAMESPACE])?;
    let given = pod["containers"][0]["args"].as_array().context("arguments")?.iter().filter_map(Value::as_str);
    // `run` and the address are the harness's; the namespace comes from the pod's environment.
    let mut arguments: Vec<_> =
        given.filter(|argument| *argument != "run" && !argument.starts_with("--listen=")).map(str::to_owned).collect();
    ensure!(arguments.len() >= 8, "{arguments:?}");
    arguments.push(format!("--namespace={NAMESPACE}"));
    let kubeconfig = Some(cluster.kubeconfig_with_token(account, token.trim())?);
    let operator = Operator::start(cluster, name, &OperatorOptions { kubeconfig, arguments, quiet: false })?;
    operator.ready().await.with_context(|| operator.log())?;
    Ok(operator)
}

/// Waits until there is a shard's Deployment, which the operator makes, and returns its image.
async fn image_of_a_shard(cluster: &Cluster, namespace: &str) -> Result<String> {
    let labels = "app.kubernetes.io/component=upgrader";
    let list = || -> Result<Value> {
        let said = kubectl(cluster, &["get", "deployments", "-n", namespace, "-l", labels, "-o", "json"])?;
        Ok(serde_json::from_str(&said)?)
    };
    until("shard", PATIENCE, || async {
        let found = list()?["items"].as_array().is_some_and(|items| !items.is_empty());
        Ok(if found { Ok(()) } else { Err("none".to_owned()) })
    })
    .await?;
    let list = list()?;
    let image = &list["items"][0]["spec"]["template"]["spec"]["containers"][0]["image"];
    Ok(image.as_str().context("an image")?.to_owned())
}

/// Creates a fleet.
fn fleet(cluster: &Cluster, namespace: &str, more: &str) -> Result<String> {
    let manifest = format!(
        "apiVersion: upgrader-fleet.dev/v1alpha1\nkind: UpgraderFleet\nmetadata: {{name: main, namespace: {namespace}}}\n\
         spec: {{network: regtest, node: {{urls: [\"http://node:9797\"]}}, provers: {{replicas: 1}}{more}}}\n"
    );
    let file = cluster.folder().join(format!("fleet-{namespace}.yaml"));
    std::fs::write(&file, manifest)?;
    kubectl(cluster, &["apply", "-f", &file.display().to_string()])
}

#[tokio::test]
async fn a_tenants_operator_needs_no_right_outside_of_its_namespace() -> Result<()> {
    let Some(helm) = Helm::find()? else { return Ok(()) };
    let Some(cluster) = cluster().await? else { return Ok(()) };
    let render = helm.render("namespaced")?;
    ensure!(!render.contains("kind: ClusterRole"), "a right in the whole cluster");
    let file = cluster.folder().join("tenant-release.yaml");
    // A release is without the pod of `helm test`.
    let release: Vec<_> =
        documents(&render)?.into_iter().filter(|(_, object)| object["kind"] != "Pod").map(|(text, _)| text).collect();
    std::fs::write(&file, release.join("\n---\n"))?;
    kubectl(cluster, &["create", "serviceaccount", "tenant-operator", "-n", NAMESPACE])?;
    kubectl(cluster, &["apply", "-f", &file.display().to_string()])?;
    let operator = operator(cluster, "uf-upgrader-fleet", "tenant-operator").await?;
    fleet(cluster, "elsewhere", "")?;
    fleet(cluster, TENANT, "")?;
    let image = image_of_a_shard(cluster, TENANT).await?;
    ensure!(image == format!("ghcr.io/upgrader-fleet/upgrader:{}", env!("CARGO_PKG_VERSION")), "{image}");
    ensure!(operator.metric("upgrader_fleet_reconcile_errors_total").await? == 0.0, "{}", operator.log());
    let others = kubectl(cluster, &["get", "deployments", "-n", "elsewhere", "-o", "name"])?;
    ensure!(others.lines().all(|line| !line.starts_with("deployment")), "{others}");
    Ok(())
}

/// A copy of the chart as an earlier release may have been: its definition lacks a field, and it has no Lease.
fn earlier_chart(folder: &Path) -> Result<PathBuf> {
    let chart = folder.join("upgrader-fleet");
    let copied = Command::new("cp").arg("-r").arg(repository("charts/upgrader-fleet")).arg(&chart).status()?;
    ensure!(copied.success(), "cp");
    let file = chart.join("files/upgraderfleets.yaml");
    let mut definition: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(&file)?)?;
    let fields = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    let removed = definition.pointer_mut(fields).and_then(Value::as_object_mut).and_then(|fields| fields.remove("suspend"));
    ensure!(removed.is_some(), "there is no suspend any more: take another field");
    std::fs::write(&file, serde_yaml_ng::to_string(&definition)?)?;
    std::fs::remove_file(chart.join("templates/lease.yaml"))?;
    let about = chart.join("Chart.yaml");
    let text = std::fs::read_to_string(&about)?.replace("\nversion: ", "\nversion: 0.0.1-before-");
    std::fs::write(about, text)?;
    Ok(chart)
}

/// Runs `helm test` and plays the kubelet for its pod: runs what the pod would run, against the operator at this address.
async fn helm_test(helm: &Helm, cluster: &Cluster, address: &str) -> Result<bool> {
    let pod = "pod/uf-upgrader-fleet-test";
    let child =
        helm.command(&["test", "uf", "--timeout=60s"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("helm")?;
    until("pod of helm test", PATIENCE, || async {
        Ok(get(cluster, NAMESPACE, pod).map(|_| ()).map_err(|error| format!("{error:#}")))
    })
    .await?;
    let pod_spec = get(cluster, NAMESPACE, pod)?;
    let arguments = pod_spec["spec"]["containers"][0]["args"].as_array().context("arguments")?.iter();
    // The cluster's DNS is not there.
    let service = format!("http://uf-upgrader-fleet.{NAMESPACE}:8080/");
    let arguments: Vec<_> =
        arguments.filter_map(Value::as_str).map(|argument| argument.replace(&service, &format!("http://{address}/"))).collect();
    ensure!(arguments.iter().any(|argument| argument.contains(address)), "{arguments:?}");
    let checked = Command::new(binary("operator")?).args(&arguments).output()?;
    let phase = if checked.status.success() { "Succeeded" } else { "Failed" };
    let status = format!("{{\"status\":{{\"phase\":\"{phase}\"}}}}");
    kubectl(cluster, &["patch", "-n", NAMESPACE, pod, "--subresource=status", "--type=merge", "-p", &status])?;
    let output = child.wait_with_output()?;
    match text(&output) {
        Ok(said) => {
            ensure!(said.contains("Phase:          Succeeded"), "{said}");
            Ok(true)
        }
        Err(error) if format!("{error:#}").contains("Phase:          Failed") => Ok(false),
        Err(error) => Err(error),
    }
}

#[tokio::test]
async fn a_release_is_installed_upgraded_tested_and_removed() -> Result<()> {
    let Some(helm) = Helm::find()? else { return Ok(()) };
    let Some(cluster) = Cluster::start(Tier::Api).await? else { return Ok(()) };
    let helm = helm.on(cluster.kubeconfig());
    let folder = tempfile::tempdir()?;
    let earlier = earlier_chart(folder.path())?.display().to_string();
    let chart = path("charts/upgrader-fleet");

    let notes = helm.run(&["install", "uf", &earlier, "--create-namespace"])?;
    for line in ["helm test uf -n upgrader-fleet", "kubectl get uf", "rollout status deployment/uf-upgrader-fleet"] {
        ensure!(notes.contains(line), "the notes lack {line}: {notes}");
    }
    // And its example can be pasted: the end of a here-document stands at the start of a line.
    let example = notes.split_once("<<Y\n").and_then(|(_, rest)| rest.split_once("\nY\n")).context(notes.clone())?.0;
    dry_run(&cluster, "notes", example)?;
    kubectl(&cluster, &["create", "namespace", TENANT])?;
    fleet(&cluster, TENANT, "")?;
    let refused = fleet(&cluster, TENANT, ", suspend: true").err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(refused.contains("unknown field \"spec.suspend\""), "{refused}");

    helm.run(&["upgrade", "uf", &chart])?;
    // The definition has been upgraded, too; the server may take a moment until it serves it.
    until("new field", PATIENCE, || async {
        Ok(fleet(&cluster, TENANT, ", suspend: true").map(|_| ()).map_err(|error| format!("{error:#}")))
    })
    .await?;
    fleet(&cluster, TENANT, ", suspend: false")?;

    let operator = operator(&cluster, "uf-upgrader-fleet", "uf-upgrader-fleet").await?;
    image_of_a_shard(&cluster, TENANT).await?;
    let lease = get(&cluster, NAMESPACE, "lease/uf-upgrader-fleet")?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    ensure!(holder.starts_with("uf-upgrader-fleet_"), "{lease}");
    let log = operator.log();
    let address =
        log.split_once("\"address\":\"").and_then(|(_, rest)| rest.split_once('"')).context(log.clone())?.0.to_owned();
    ensure!(helm_test(&helm, &cluster, &address).await?, "helm test failed on an operator that is ready");
    drop(operator);
    ensure!(!helm_test(&helm, &cluster, &address).await?, "helm test passed without an operator");

    // What costs money or cannot be made again stays.
    helm.run(&["uninstall", "uf"])?;
    for gone in ["deployment/uf-upgrader-fleet", "lease/uf-upgrader-fleet"] {
        let (found, said) = cluster.kubectl(&["get", "-n", NAMESPACE, gone])?;
        ensure!(!found && said.contains("NotFound"), "{said}");
    }
    get(&cluster, TENANT, "upgraderfleet/main").context("the fleet is gone")?;
    // A Lease that an operator made, as those of earlier releases did, is no release's and in nobody's way.
    let file = folder.path().join("lease.yaml");
    let lease =
        "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: uf-upgrader-fleet, namespace: upgrader-fleet}\n";
    std::fs::write(&file, lease)?;
    kubectl(&cluster, &["create", "-f", &file.display().to_string()])?;
    helm.run(&["install", "uf", &chart]).context("the definition that was kept is in the way")?;

    // Also when the definition is taken out of the release: the fleets are still there.
    helm.run(&["upgrade", "uf", &chart, "--set=crds.enabled=false"])?;
    get(&cluster, TENANT, "upgraderfleet/main").context("the fleet is gone")?;
    helm.run(&["upgrade", "uf", &chart]).context("the definition that was kept is in the way")?;

    // Unless the user wanted it gone.
    helm.run(&["upgrade", "uf", &chart, "--set=crds.keep=false"])?;
    helm.run(&["uninstall", "uf"])?;
    until("end of the definition", PATIENCE, || async {
        let (found, said) = cluster.kubectl(&["get", "crd/upgraderfleets.upgrader-fleet.dev"])?;
        Ok(if found { Err(said) } else { Ok(()) })
    })
    .await?;
    Ok(())
}

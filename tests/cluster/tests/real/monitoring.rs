//! A real Prometheus that scrapes what the ServiceMonitors say, and what the dashboards get from it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::wait::until;
use cluster::{Guarded, cache};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::kit::{FLEETS, Kit, RELEASES, names};

/// The label of an EndpointSlice that names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Where it listens.
const ADDRESS: &str = "127.0.0.1:9090";

/// Prometheus.
pub struct Prometheus {
    _process: Guarded,
    discovery: JoinHandle<()>,
    client: reqwest::Client,
}

/// Defines what Prometheus' operator defines, without it: the objects are read here.
pub fn definitions(kit: &Kit<'_>) -> Result<()> {
    for name in ["servicemonitors", "prometheusrules"] {
        let file = cache().join(format!("cluster/definitions/monitoring.coreos.com_{name}.yaml"));
        kit.kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
        kit.kubectl(&["wait", "--for=condition=established", "--timeout=30s", &format!("crd/{name}.monitoring.coreos.com")])?;
    }
    Ok(())
}

impl Prometheus {
    /// Starts it with a scrape job for each endpoint of each ServiceMonitor, as Prometheus' operator would write it.
    pub async fn start(kit: &Kit<'_>, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let targets = folder.join("targets.json");
        let discovery = tokio::spawn(discover(kit.cluster.client().await?, targets.clone()));
        let mut jobs = Vec::new();
        for namespace in [RELEASES, FLEETS] {
            let monitors = kit.get(namespace, &["servicemonitors"])?;
            for monitor in monitors["items"].as_array().context("items")? {
                let endpoints = monitor["spec"]["endpoints"].as_array().context("endpoints")?;
                jobs.extend(endpoints.iter().map(|endpoint| job(&targets, namespace, monitor, endpoint)));
            }
        }
        ensure!(jobs.len() >= 2, "too few ServiceMonitors: {jobs:?}");
        let config = json!({ "scrape_configs": jobs });
        let file = folder.join("prometheus.yaml");
        std::fs::write(&file, serde_yaml_ng::to_string(&config)?)?;
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.join("data").display()),
            format!("--web.listen-address={ADDRESS}"),
        ];
        let process = Guarded::start(&kit.cluster.program("prometheus"), &arguments, &[], &folder.join("log"))?;
        let prometheus = Self { _process: process, discovery, client: reqwest::Client::builder().no_proxy().build()? };
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        until("Prometheus", Duration::from_mins(1), || async {
            Ok(prometheus.query("up").await.map(drop).map_err(|error| format!("{error:#}")))
        })
        .await
        .with_context(log)?;
        Ok(prometheus)
    }

    /// The samples of an expression now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let mut url = reqwest::Url::parse(&format!("http://{ADDRESS}/api/v1/query"))?;
        url.query_pairs_mut().append_pair("query", expression);
        let answer: Value = serde_json::from_str(&self.client.get(url).send().await?.text().await?)?;
        ensure!(answer["status"] == "success", "{expression}: {answer}");
        Ok(answer["data"]["result"].as_array().context("a result")?.clone())
    }

    /// Waits until all pods that there are have been scraped without a fault.
    pub async fn scrapes(&self, pods: BTreeSet<String>) -> Result<Duration> {
        until("scraped pods", Duration::from_mins(1), || async {
            let up = self.query("up == 1").await?;
            let found: BTreeSet<_> = up.iter().filter_map(|one| one["metric"]["pod"].as_str()).map(str::to_owned).collect();
            let missing: Vec<_> = pods.difference(&found).collect();
            Ok(if missing.is_empty() { Ok(()) } else { Err(format!("not scraped: {missing:?}")) })
        })
        .await
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.discovery.abort();
    }
}

/// A label's name in Prometheus.
fn plain(label: &str) -> String {
    label.replace(['.', '/', '-'], "_")
}

/// Writes what Prometheus' own discovery of Kubernetes would find, by the same names: Debian's build comes without it.
async fn discover(client: Client, file: PathBuf) {
    loop {
        // The API server is asked again in a moment.
        if let Ok(targets) = targets(&client).await {
            let new = file.with_extension("new");
            if std::fs::write(&new, Value::from(targets).to_string()).is_ok() {
                drop(std::fs::rename(&new, &file));
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn targets(client: &Client) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for namespace in [RELEASES, FLEETS] {
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
        let services = Api::<Service>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
        let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&ListParams::default()).await?;
        for slice in &slices {
            let Some(service) = services.iter().find(|one| slice.labels().get(SERVICE_LABEL) == Some(&one.name_any())) else {
                continue;
            };
            for (endpoint, port) in
                slice.endpoints.iter().flatten().flat_map(|one| slice.ports.iter().flatten().map(move |port| (one, port)))
            {
                let name = endpoint.target_ref.as_ref().and_then(|target| target.name.clone());
                let Some(pod) = pods.iter().find(|pod| Some(pod.name_any()) == name) else { continue };
                let Some(number) = port.port else { continue };
                let container =
                    pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|container| container.name.clone());
                let mut labels = json!({
                    "__meta_kubernetes_namespace": namespace,
                    "__meta_kubernetes_service_name": service.name_any(),
                    "__meta_kubernetes_endpointslice_port_name": port.name,
                    "__meta_kubernetes_pod_name": pod.name_any(),
                    "__meta_kubernetes_pod_container_name": container,
                });
                for (kind, all) in [("service", service.labels()), ("pod", pod.labels())] {
                    for (label, value) in all {
                        labels[format!("__meta_kubernetes_{kind}_label_{}", plain(label))] = value.clone().into();
                    }
                }
                let addresses: Vec<_> = endpoint.addresses.iter().map(|address| format!("{address}:{number}")).collect();
                found.push(json!({ "targets": addresses, "labels": labels }));
            }
        }
    }
    Ok(found)
}

/// A scrape job, with the labels that Prometheus' operator gives.
fn job(targets: &Path, namespace: &str, monitor: &Value, endpoint: &Value) -> Value {
    let mut relabel: Vec<Value> = monitor["spec"]["selector"]["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(label, value)| {
            let source = format!("__meta_kubernetes_service_label_{}", plain(label));
            json!({ "action": "keep", "source_labels": [source], "regex": value })
        })
        .collect();
    relabel.push(
        json!({ "action": "keep", "source_labels": ["__meta_kubernetes_endpointslice_port_name"], "regex": endpoint["port"] }),
    );
    for (source, target) in
        [("namespace", "namespace"), ("service_name", "service"), ("pod_name", "pod"), ("pod_container_name", "container")]
    {
        relabel.push(json!({ "source_labels": [format!("__meta_kubernetes_{source}")], "target_label": target }));
    }
    for label in monitor["spec"]["podTargetLabels"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let source = format!("__meta_kubernetes_pod_label_{}", plain(label));
        relabel.push(json!({ "source_labels": [source], "target_label": plain(label), "regex": "(.+)" }));
    }
    json!({
        "job_name": format!("{namespace}/{}/{}", monitor["metadata"]["name"].as_str().unwrap_or_default(), endpoint["port"]),
        "scrape_interval": endpoint["interval"],
        "scrape_timeout": endpoint["interval"],
        "metrics_path": endpoint["path"],
        "honor_labels": endpoint["honorLabels"].as_bool().unwrap_or_default(),
        "file_sd_configs": [{ "files": [targets.display().to_string()], "refresh_interval": "5s" }],
        "relabel_configs": relabel,
    })
}

/// Asks each expression of each dashboard that the release brings; gives how many had samples.
pub async fn dashboards(kit: &Kit<'_>, prometheus: &Prometheus) -> Result<usize> {
    let maps = kit.get(RELEASES, &["configmaps", "-l", "grafana_dashboard=1"])?;
    let maps = maps["items"].as_array().context("items")?;
    ensure!(maps.len() == 3, "dashboards: {:?}", names(maps));
    let (mut answered, mut empty) = (0, String::new());
    for text in maps.iter().filter_map(|map| map["data"].as_object()).flat_map(|data| data.values()).filter_map(Value::as_str) {
        let dashboard: Value = serde_json::from_str(text)?;
        for panel in dashboard["panels"].as_array().context("panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let expression = target["expr"].as_str().context("an expression")?;
                // As Grafana fills it in when somebody chooses the fleet.
                let filled = expression.replace("$namespace", FLEETS).replace("$fleet", "main");
                let samples = prometheus.query(&filled).await?;
                let shown = samples.iter().any(|one| one["value"][1].as_str().is_some_and(|value| value != "NaN"));
                if shown {
                    answered += 1;
                } else {
                    writeln!(empty, "{}, {}: {filled}", dashboard["title"], panel["title"])?;
                }
            }
        }
    }
    ensure!(empty.is_empty(), "no samples of\n{empty}");
    Ok(answered)
}

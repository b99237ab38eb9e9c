//! A fleet in a Kubernetes cluster, seen from outside: its resource, its pods, and what its upgraders say through the API server.

mod draw;
mod view;

pub use draw::render;
pub use view::{Owner, View, owners, view};

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use fleet_api::UpgraderFleet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::Value;

/// How long the API server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which cluster and which namespace.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Namespace of the fleet; by default that of the kubeconfig's context
    #[arg(short, long)]
    namespace: Option<String>,
    /// The kubeconfig to use instead of $KUBECONFIG, ~/.kube/config or the pod's own account
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it
    #[arg(long)]
    context: Option<String>,
}

impl ClusterArgs {
    /// Whether anything of a cluster is named.
    pub fn is_named(&self) -> bool {
        self.namespace.is_some() || self.kubeconfig.is_some() || self.context.is_some()
    }

    /// A way to a fleet of this name. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// No kubeconfig, or one that is none.
    pub async fn connect(&self, name: &str) -> anyhow::Result<Remote> {
        // Fails only when the program has chosen a provider already: then that one it is.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await?
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await.context("no kubeconfig, and this is no pod of a cluster")?,
        };
        config.read_timeout = Some(PATIENCE);
        config.connect_timeout = Some(PATIENCE);
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        Ok(Remote { client: Client::try_from(config)?, namespace, name: name.to_owned() })
    }
}

/// A fleet of a cluster.
pub struct Remote {
    client: Client,
    namespace: String,
    name: String,
}

impl Remote {
    /// The resource and its pods.
    ///
    /// # Errors
    ///
    /// No such fleet, or the API server says no.
    pub async fn look(&self) -> anyhow::Result<(UpgraderFleet, Vec<Pod>)> {
        let Self { client, namespace, name } = self;
        let fleets: Api<UpgraderFleet> = Api::namespaced(client.clone(), namespace);
        let found = fleets.get_opt(name).await;
        let found = found.with_context(|| format!("cannot read the UpgraderFleet {name} of namespace {namespace}"))?;
        let Some(fleet) = found else {
            bail!("there is no UpgraderFleet {name} in namespace {namespace}; `kubectl get uf -A` lists them")
        };
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let list = pods.list(&ListParams::default().labels(&format!("upgrader-fleet.dev/fleet={name}"))).await;
        Ok((fleet, list.with_context(|| format!("cannot list the pods of namespace {namespace}"))?.items))
    }

    /// What an upgrader says about a transaction, through the API server: nothing else has to reach the pod.
    ///
    /// # Errors
    ///
    /// The pod does not answer, answers something else, or the right `get pods/proxy` is missing.
    pub async fn explain(&self, owner: &Owner, txid: &str) -> anyhow::Result<Value> {
        let Owner { pod, port, .. } = owner;
        let path = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy/explain/{txid}", self.namespace);
        let request = http::Request::get(path).body(Vec::new())?;
        let answer = self.client.request::<Value>(request).await;
        answer
            .with_context(|| format!("no answer from pod {pod} through the API server (it takes the right to get pods/proxy)"))
    }
}

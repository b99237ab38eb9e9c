//! helm, and the chart as it lies in the repository.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use cluster::Programs;
use serde_json::Value;

/// Sets of values in the chart's `ci/`, from nothing set to everything.
pub const SETS: [&str; 5] = ["defaults", "monitored", "everything", "namespaced", "airgapped"];
/// The namespace of releases.
pub const NAMESPACE: &str = "upgrader-fleet";
/// The version that renders are for, whatever helm was built with.
const KUBERNETES: &str = "--kube-version=1.37";

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    cluster::package().join("../..").join(path)
}

/// The text of a file of the repository.
pub fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(repository(path)).with_context(|| path.to_owned())
}

/// The file with a set of values.
pub fn values_file(set: &str) -> String {
    repository(&format!("charts/upgrader-fleet/ci/{set}-values.yaml")).display().to_string()
}

/// A helm that knows nothing of the person whose machine this is.
pub struct Helm {
    program: PathBuf,
    /// Its caches and settings.
    home: tempfile::TempDir,
    kubeconfig: Option<PathBuf>,
}

impl Helm {
    /// One. Nothing where it cannot be built.
    pub fn find() -> Result<Option<Self>> {
        let Some(programs) = Programs::find(&["helm"])? else { return Ok(None) };
        Ok(Some(Self { program: programs.path("helm"), home: tempfile::tempdir()?, kubeconfig: None }))
    }

    /// The same, for a cluster.
    pub fn on(self, kubeconfig: PathBuf) -> Self {
        Self { kubeconfig: Some(kubeconfig), ..self }
    }

    /// A command that has not been started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // No file: helm must not find the cluster of whoever runs this.
        let none = self.home.path().join("none");
        command.args(arguments).env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&none)).env("HELM_NAMESPACE", NAMESPACE);
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
            command.env(name, self.home.path().join(folder));
        }
        command
    }

    /// Runs it: its standard output, or its error.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("helm")?;
        text(&output).map_err(|error| error.context(format!("helm {}", arguments.join(" "))))
    }

    /// Renders the chart as a release of this name.
    pub fn template_as(&self, release: &str, arguments: &[&str]) -> Result<String> {
        let chart = repository("charts/upgrader-fleet").display().to_string();
        self.run(&[&["template", release, &chart, KUBERNETES][..], arguments].concat())
    }

    /// Renders the chart.
    pub fn template(&self, arguments: &[&str]) -> Result<String> {
        self.template_as("uf", arguments)
    }

    /// Renders the chart with a set of values, for a cluster that has Prometheus' operator.
    pub fn render(&self, set: &str) -> Result<String> {
        self.template(&["--api-versions=monitoring.coreos.com/v1", "--values", &values_file(set)])
    }
}

/// What a program said on its standard output when all went well; else what it said on both.
pub fn text(output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

/// The documents of a render, each with its object.
pub fn documents(render: &str) -> Result<Vec<(String, Value)>> {
    let mut documents = Vec::new();
    for text in render.split("\n---\n") {
        let object: Value = serde_yaml_ng::from_str(text).with_context(|| text.to_owned())?;
        if !object.is_null() {
            ensure!(object["kind"].is_string() && object["metadata"]["name"].is_string(), "no object: {text}");
            documents.push((text.to_owned(), object));
        }
    }
    Ok(documents)
}

/// The only object of a kind.
pub fn the<'a>(documents: &'a [(String, Value)], kind: &str) -> Result<&'a Value> {
    let mut found = documents.iter().map(|(_, object)| object).filter(|object| object["kind"] == kind);
    let first = found.next().with_context(|| format!("no {kind}"))?;
    ensure!(found.next().is_none(), "several {kind}");
    Ok(first)
}

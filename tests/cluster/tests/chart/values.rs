//! What `values.schema.json` refuses, and that it, the values and their description go together.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::helm::{Helm, read};

/// What is set, and what is said.
const REFUSED: [(&str, &str); 35] = [
    ("replicas=9", "at '/replicas': maximum: got 9, want 5"),
    ("replicas=\"2\"", "at '/replicas': got string, want integer"),
    ("replica=2", "at '': additional properties 'replica' not allowed"),
    ("operator=null", "missing property 'operator'"),
    ("image.repository=\"\"", "at '/image/repository': '' does not match pattern"),
    // A version without quotes.
    ("image.tag=1.0", "at '/image/tag': got number, want string"),
    ("image.digest=\"1111\"", "at '/image/digest': '1111' does not match pattern"),
    ("image.pullPolicy=\"Sometimes\"", "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"),
    ("imagePullSecrets=[\"registry\"]", "at '/imagePullSecrets/0': got string, want object"),
    ("fleetImages.upgrader=\"upgrader:1\"", "at '/fleetImages/upgrader': got string, want object"),
    (
        "fleetImages.upgrader.repository=\"upgrader:1\"",
        "at '/fleetImages/upgrader/repository': 'upgrader:1' does not match pattern",
    ),
    (
        "fleetImages.proverPod.pullPolicy=\"Always\"",
        "at '/fleetImages/proverPod': additional properties 'pullPolicy' not allowed",
    ),
    ("crds.enabled=\"yes\"", "at '/crds/enabled': got string, want boolean"),
    ("watchNamespace=\"Tenant\"", "at '/watchNamespace': 'Tenant' does not match pattern"),
    ("watchNamespace=[\"a\",\"b\"]", "at '/watchNamespace': got array, want string"),
    ("serviceAccount.create=false", "at '/serviceAccount/name': minLength: got 0, want 1"),
    ("serviceAccount.annotations={\"a\":1}", "at '/serviceAccount/annotations/a': got number, want string"),
    ("tokenReview.namespaces=[\"*\"]", "at '/tokenReview/namespaces/0': '*' does not match pattern"),
    ("operator.pollSeconds=301", "at '/operator/pollSeconds': maximum: got 301, want 300"),
    ("operator.leaseSeconds=2", "at '/operator/leaseSeconds': minimum: got 2, want 3"),
    ("operator.concurrency=0", "at '/operator/concurrency': minimum: got 0, want 1"),
    ("operator.tokenDays=0.5", "at '/operator/tokenDays': got number, want integer"),
    ("operator.log=\"\"", "at '/operator/log': minLength: got 0, want 1"),
    ("resources.request={\"cpu\":1}", "at '/resources': additional properties 'request' not allowed"),
    ("nodeSelector={\"gpu\":true}", "at '/nodeSelector/gpu': got boolean, want string"),
    ("tolerations=[{\"key\":\"gpu\",\"effect\":\"Never\"}]", "at '/tolerations/0/effect': value must be one of"),
    ("affinity={\"nodeaffinity\":{}}", "at '/affinity': additional properties 'nodeaffinity' not allowed"),
    ("topologySpreadConstraints=[{\"maxSkew\":1}]", "missing properties 'topologyKey', 'whenUnsatisfiable'"),
    // The Deployment would not find its pods any more.
    ("podLabels={\"app.kubernetes.io/name\":\"mine\"}", "at '/podLabels/app.kubernetes.io~1name': false schema"),
    ("commonLabels={\"cost centre\":\"1\"}", "at '/commonLabels': additional properties 'cost centre' not allowed"),
    ("commonLabels={\"team\":\"-\"}", "at '/commonLabels/team': '-' does not match pattern"),
    ("monitoring.serviceMonitor.interval=\"30\"", "at '/monitoring/serviceMonitor/interval': '30' does not match pattern"),
    ("monitoring.rules.label={}", "at '/monitoring/rules': additional properties 'label' not allowed"),
    ("networkPolicy.monitoringNamespaces=\"monitoring\"", "at '/networkPolicy/monitoringNamespaces': got string, want array"),
    ("fullnameOverride=\"Fleet\"", "at '/fullnameOverride': 'Fleet' does not match pattern"),
];

#[test]
fn bad_values_are_refused_and_told_why() -> Result<()> {
    let Some(helm) = Helm::find()? else { return Ok(()) };
    for (set, said) in REFUSED {
        let error = match helm.template(&["--set-json", set]) {
            Ok(_) => anyhow::bail!("{set} was taken"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(error.contains("values don't meet the specifications of the schema"), "{set}: not the schema, but {error}");
        ensure!(error.contains(said), "{set}\nexpected: {said}\ngot: {error}");
    }
    Ok(())
}

#[test]
fn what_the_cluster_lacks_is_said_before_anything_is_installed() -> Result<()> {
    let Some(helm) = Helm::find()? else { return Ok(()) };
    for what in ["serviceMonitor", "rules"] {
        let set = format!("monitoring.{what}.enabled=true");
        let error = helm.template(&["--set", &set]).err().map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(error.contains(&format!("monitoring.{what}.enabled needs the definitions of Prometheus' operator")), "{error}");
    }
    let error = helm.template(&["--kube-version=1.32"]).err().map(|error| format!("{error:#}")).unwrap_or_default();
    ensure!(error.contains("chart requires kubeVersion: >=1.33.0-0"), "{error}");
    Ok(())
}

/// Paths of the values, as in `a.b.c`. An empty map is a value: the user fills it.
fn paths(value: &Value, here: &str, into: &mut BTreeSet<String>) {
    match value.as_object().filter(|map| !map.is_empty()) {
        Some(map) => map.iter().for_each(|(name, value)| {
            let path = if here.is_empty() { name.clone() } else { format!("{here}.{name}") };
            paths(value, &path, into);
        }),
        None => {
            into.insert(here.to_owned());
        }
    }
}

#[test]
fn each_value_has_a_default_and_a_description() -> Result<()> {
    let schema: Value = serde_json::from_str(&read("charts/upgrader-fleet/values.schema.json")?)?;
    let values: Value = serde_yaml_ng::from_str(&read("charts/upgrader-fleet/values.yaml")?)?;
    let known: BTreeSet<&String> = schema["properties"].as_object().into_iter().flat_map(|map| map.keys()).collect();
    let given: BTreeSet<&String> = values.as_object().into_iter().flat_map(|map| map.keys()).collect();
    // Helm's own, which each chart may be given.
    let without: Vec<_> = known.difference(&given).filter(|name| *name != &"global").collect();
    ensure!(without.is_empty() && known.len() > 15, "values.yaml lacks {without:?}");

    let readme = read("charts/upgrader-fleet/README.md")?;
    let described: BTreeSet<&str> = readme.split('`').skip(1).step_by(2).collect();
    let mut all = BTreeSet::new();
    paths(&values, "", &mut all);
    for path in all {
        // A map may be described as a whole.
        let whole = path.rmatch_indices('.').map(|(end, _)| &path[..end]);
        let found = std::iter::once(path.as_str()).chain(whole).any(|name| described.contains(name));
        ensure!(found, "README.md of the chart does not describe {path}");
    }
    Ok(())
}

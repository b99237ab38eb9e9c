//! Tier `api`: the operator asks for what the chart grants, for no more, and for all of it. The API server's audit log is the
//! witness. A task of the test plays the controllers.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::account;
use cluster::objects::spec;
use cluster::wait::until;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{conditions, wait::await_condition};
use kube::{Api, ResourceExt};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Stage, condition, is_ready, is_ready_with};

/// Group, resource with subresource, verb.
type Right = (String, String, String);

fn granted() -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for rule in account::rules()? {
        let list = |key: &str| -> Vec<String> {
            rule[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        for group in list("apiGroups") {
            for resource in list("resources") {
                rights.extend(list("verbs").into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    Ok(rights)
}

/// What was asked for, and what was refused for want of a right.
fn used(events: &[Value]) -> (BTreeSet<Right>, Vec<String>) {
    let (mut rights, mut refused) = (BTreeSet::new(), Vec::new());
    for event in events {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (resource, sub) = (text("/objectRef/resource"), text("/objectRef/subresource"));
        if event["annotations"]["authorization.k8s.io/decision"] == "forbid" {
            refused.push(format!("{} {}", text("/verb"), text("/requestURI")));
        }
        if resource.is_empty() {
            continue; // discovery, which everybody may
        }
        let resource = if sub.is_empty() { resource.to_owned() } else { format!("{resource}/{sub}") };
        let right = |verb: &str| (text("/objectRef/apiGroup").to_owned(), resource.clone(), verb.to_owned());
        rights.insert(right(text("/verb")));
        // Server-side apply of what is not there needs the right to create it, too.
        if text("/verb") == "patch" && event["responseStatus"]["code"] == 201 {
            rights.insert(right("create"));
        }
    }
    (rights, refused)
}

/// The kinds of Prometheus' operator, as far as the API server has to know them.
async fn monitoring(client: &kube::Client) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (kind, plural) in [("ServiceMonitor", "servicemonitors"), ("PrometheusRule", "prometheusrules")] {
        let name = format!("{plural}.monitoring.coreos.com");
        let crd: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": {
                "group": "monitoring.coreos.com", "scope": "Namespaced",
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List") },
                "versions": [{ "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } }],
            },
        }))?;
        crds.create(&PostParams::default(), &crd).await?;
        let established = await_condition(crds.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established).await.context("not established")??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_uses_all_of_its_rights_and_asks_for_no_more() -> Result<()> {
    let Some(cluster) = support::cluster(cluster::Tier::Api).await else { return Ok(()) };
    monitoring(&cluster.client().await?).await?;
    let Some(mut stage) = Stage::with_played_controllers("rights", &[]).await else { return Ok(()) };

    // All that a fleet can have, then none of it.
    let mut whole = spec(2);
    whole["provers"]["replicas"] = 3.into();
    whole["networkPolicy"] = json!({ "enabled": true });
    whole["monitoring"] =
        json!({ "serviceMonitor": { "enabled": true }, "rules": { "enabled": true }, "dashboard": { "enabled": true } });
    whole["node"] = json!({ "deploy": { "image": "node:1" } });
    stage.apply("prod", whole).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    stage.pods.load("prod-prover", 1, 0, 10.0);
    until("load", Duration::from_secs(30), || async {
        Ok(if stage.status("prod").await?.queue == Some(3) { Ok(()) } else { Err("none".to_owned()) })
    })
    .await?;
    stage.apply("prod", spec(1)).await?;
    stage.until("prod", "smaller fleet", is_ready_with(1)).await?;

    // The same event again.
    let mut suspended = spec(1);
    suspended["suspend"] = true.into();
    for _ in 0..2 {
        stage.apply("prod", suspended.clone()).await?;
        stage.until("prod", "suspended fleet", |status| condition(status, "Ready").1 == "Suspended").await?;
        stage.apply("prod", spec(1)).await?;
        stage.until("prod", "ready fleet", is_ready).await?;
    }

    // A Secret that lost a part is completed by the next operator.
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let cut = json!({ "data": { "tokens": null } });
    secrets.patch("prod-token", &PatchParams::default(), &Patch::Merge(cut)).await?;
    stage.operator.signal(Signal::SIGTERM)?;
    assert_eq!(stage.operator.end(Duration::from_secs(30)).await?, Some(0));
    stage.operator = cluster::Operator::start(stage.cluster, "rights-second", &stage.options(&[]))?;
    until("the whole Secret", Duration::from_mins(1), || async {
        let keys = secrets.get("prod-token").await?.data.unwrap_or_default();
        Ok(if keys.contains_key("tokens") { Ok(()) } else { Err(format!("{:?}", keys.keys())) })
    })
    .await?;
    let fleets = stage.fleets().list(&ListParams::default()).await?;
    ensure!(fleets.iter().all(|fleet| fleet.finalizers().is_empty()), "the operator never changes a fleet");

    let (used, refused) = used(&stage.cluster.asked_by(&account::user(&stage.namespace))?);
    assert_eq!(refused, Vec::<String>::new(), "asked for what the chart does not grant");
    let in_vain: Vec<_> = granted()?.difference(&used).cloned().collect();
    assert_eq!(in_vain, Vec::<Right>::new(), "granted and never used");
    Ok(())
}

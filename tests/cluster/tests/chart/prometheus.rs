//! Alerts and dashboards, by promtool. That they name metrics which are exported is tested where these are: `operator/tests`
//! and `tests/tests/dashboards.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use cluster::Programs;
use serde_json::{Value, json};

use crate::helm::{read, repository, text};

const ALERTS: &str = "charts/upgrader-fleet/files/alerts.yaml";
const TESTS: &str = "tests/cluster/tests/prometheus/alerts_test.yaml";
const DASHBOARDS: [&str; 3] = ["fleet", "provers", "economics"];

struct Promtool(PathBuf);

impl Promtool {
    /// Nothing, with a line on standard error, where `make cluster` cannot get it.
    fn find() -> Result<Option<Self>> {
        let Some(programs) = Programs::find(&["helm"])? else { return Ok(None) };
        let path = programs.path("promtool");
        if path.exists() {
            return Ok(Some(Self(path)));
        }
        if Command::new("apt-get").arg("--version").output().is_ok() {
            bail!("{} is missing: run `make cluster` first", path.display());
        }
        eprintln!(
            "SKIPPED: promtool is missing, and this system has no apt-get to fetch it. Install Prometheus and run `make cluster`."
        );
        Ok(None)
    }

    /// Runs it on a file.
    fn run(&self, verb: &str, file: &Path) -> Result<String> {
        text(&Command::new(&self.0).args([verb, "rules"]).arg(file).output().context("promtool")?)
    }

    /// Runs the tests with other rules than those of the repository.
    fn test(&self, rules: &Value) -> Result<String> {
        let folder = tempfile::tempdir()?;
        let mut tests: Value = serde_yaml_ng::from_str(&read(TESTS)?)?;
        tests["rule_files"] = json!(["rules.yaml"]);
        std::fs::write(folder.path().join("rules.yaml"), serde_yaml_ng::to_string(rules)?)?;
        let file = folder.path().join("tests.yaml");
        std::fs::write(&file, serde_yaml_ng::to_string(&tests)?)?;
        self.run("test", &file)
    }
}

fn alerts() -> Result<Value> {
    Ok(serde_yaml_ng::from_str(&read(ALERTS)?)?)
}

/// Names of the alerts, in their order.
fn names(alerts: &Value) -> Vec<String> {
    let rules = alerts["groups"][0]["rules"].as_array().into_iter().flatten();
    rules.filter_map(|rule| rule["alert"].as_str()).map(str::to_owned).collect()
}

#[test]
fn alerts_are_driven_to_firing_and_back() -> Result<()> {
    let Some(promtool) = Promtool::find()? else { return Ok(()) };
    promtool.run("check", &repository(ALERTS))?;
    promtool.run("test", &repository(TESTS))?;

    // Of each alert, the file has a time before, one while it fires and one after.
    let tests: Value = serde_yaml_ng::from_str(&read(TESTS)?)?;
    let steps: Vec<&Value> = tests["tests"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|test| test["alert_rule_test"].as_array())
        .flatten()
        .collect();
    let alerts = alerts()?;
    for name in names(&alerts) {
        let fires = steps.iter().filter(|step| step["alertname"] == name.as_str()).map(|step| step["exp_alerts"] != json!([]));
        let mut changes: Vec<bool> = fires.collect();
        changes.dedup();
        ensure!(changes == [false, true, false], "{name} is not driven to firing and back: {changes:?}");
    }
    Ok(())
}

/// What could be wrong with an alert, and how to make it so.
type Fault = (&'static str, fn(&Value) -> (&'static str, String));

const FAULTS: [Fault; 4] = [
    ("never fires", |rule| ("expr", format!("({}) and vector(1) == 2", rule["expr"].as_str().unwrap_or_default()))),
    ("fires always", |_| ("expr", "vector(1)".to_owned())),
    ("fires at once", |_| ("for", "0m".to_owned())),
    ("fires late", |_| ("for", "2h".to_owned())),
];

#[test]
fn the_test_of_alerts_finds_what_is_wrong() -> Result<()> {
    let Some(promtool) = Promtool::find()? else { return Ok(()) };
    let alerts = alerts()?;
    promtool.test(&alerts).context("the rules as they are")?;
    let count = names(&alerts).len();
    ensure!(count >= 8, "only {count} alerts");
    for index in 0..count {
        for (fault, make) in FAULTS {
            let mut wrong = alerts.clone();
            let rule = &mut wrong["groups"][0]["rules"][index];
            let (field, value) = make(rule);
            rule[field] = json!(value);
            ensure!(
                promtool.test(&wrong).is_err(),
                "nobody notices that this {fault}: {}",
                wrong["groups"][0]["rules"][index]["alert"]
            );
        }
    }
    Ok(())
}

#[test]
fn each_alert_links_to_its_page() -> Result<()> {
    let alerts = alerts()?;
    for rule in alerts["groups"][0]["rules"].as_array().context("rules")? {
        let name = rule["alert"].as_str().context("a name")?;
        let url = rule["annotations"]["runbook_url"].as_str().context(name.to_owned())?;
        let path = url.split_once("/main/").context(url.to_owned())?.1;
        ensure!(path == format!("docs/runbooks/{name}.md") && read(path)?.starts_with(&format!("# {name}\n")), "{url}");
        ensure!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap_or_default()), "{name}");
    }
    Ok(())
}

fn dashboard(name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&read(&format!("operator/dashboards/{name}.json"))?)?)
}

/// Queries of a dashboard's panels: the panel's title and the query.
fn queries(dashboard: &Value) -> Vec<(String, Value)> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), target)).collect::<Vec<_>>()
    };
    panels.flat_map(of_panel).collect()
}

/// Rules with these expressions, for promtool to parse.
fn as_rules(expressions: &[String]) -> Result<String> {
    let rules: Vec<_> = expressions
        .iter()
        .enumerate()
        .map(|(number, expression)| json!({ "record": format!("dashboard:query:{number}"), "expr": expression }))
        .collect();
    Ok(serde_yaml_ng::to_string(&json!({ "groups": [{ "name": "dashboards", "rules": rules }] }))?)
}

#[test]
fn queries_of_dashboards_are_promql() -> Result<()> {
    let Some(promtool) = Promtool::find()? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rules.yaml");
    let mut all = Vec::new();
    for name in DASHBOARDS {
        let expressions: Vec<String> =
            queries(&dashboard(name)?).iter().filter_map(|(_, target)| target["expr"].as_str()).map(str::to_owned).collect();
        std::fs::write(&file, as_rules(&expressions)?)?;
        promtool.run("check", &file).with_context(|| name.to_owned())?;
        all.extend(expressions);
    }
    ensure!(all.len() > 25, "only {} queries", all.len());
    // And promtool would say if one were not.
    for expression in &mut all {
        expression.push(')');
        std::fs::write(&file, as_rules(std::slice::from_ref(expression))?)?;
        ensure!(promtool.run("check", &file).is_err(), "{expression} was taken");
    }
    Ok(())
}

#[test]
fn dashboards_hang_together() -> Result<()> {
    let mut uids = BTreeSet::new();
    for name in DASHBOARDS {
        let dashboard = dashboard(name)?;
        ensure!(uids.insert(dashboard["uid"].to_string()), "{name}: a uid that another one has");
        let variables = dashboard["templating"]["list"].as_array().context("variables")?;
        let defined: BTreeSet<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
        let panels = dashboard["panels"].as_array().context("panels")?;
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in panels {
            ensure!(ids.insert(panel["id"].as_u64()), "{name}: two panels with id {}", panel["id"]);
            let number = |field: &str| panel["gridPos"][field].as_u64().with_context(|| format!("{name}: {}", panel["title"]));
            for x in number("x")?..number("x")? + number("w")? {
                for y in number("y")?..number("y")? + number("h")? {
                    ensure!(x < 24 && taken.insert((x, y)), "{name}: {} lies on another panel or outside", panel["title"]);
                }
            }
        }
        for (title, target) in queries(&dashboard) {
            let expression = target["expr"].as_str().context(title.clone())?;
            let used =
                expression.split('$').skip(1).map(|rest| rest.split(|letter: char| !letter.is_ascii_alphanumeric()).next());
            for variable in used.flatten().filter(|variable| !variable.is_empty()) {
                ensure!(defined.contains(variable), "{name}: {title}: ${variable} is not defined");
            }
            // What an aggregation drops cannot be in the legend.
            let kept = expression.split_once(" by (").and_then(|(_, rest)| rest.split_once(')')).map(|(labels, _)| labels);
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            for label in legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}")).map(|(label, _)| label) {
                let there = kept.is_none_or(|labels| labels.split(',').any(|one| one.trim() == label));
                ensure!(there, "{name}: {title}: the legend's {label} is not there");
            }
        }
    }
    Ok(())
}

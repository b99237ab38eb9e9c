//! Alerts and dashboards name metrics that exist, and each alert has a page.

use std::collections::BTreeSet;
use std::path::PathBuf;

use operator::build::{ALERTS, rules};
use operator::metrics::{FleetNumbers, Metrics};

/// Names of our metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(|letter| !is_part(letter)).filter(|word| word.starts_with("upgrader_fleet_")).map(str::to_owned).collect()
}

fn exported() -> BTreeSet<String> {
    let metrics = Metrics::new().expect("sound");
    let numbers = FleetNumbers { provers: vec![("default".to_owned(), 1, 1, 0)], ..FleetNumbers::default() };
    metrics.fleet("ns", "fleet", &numbers);
    metrics.reconciled(std::time::Duration::from_millis(1), None);
    metrics.writes.with_label_values(&["apply", "Deployment"]).inc();
    let text = metrics.text().expect("text");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect()
}

/// The folder of this package, of the checkout whose tests run: a build cache that several checkouts share may hold a binary that
/// was compiled in another one.
fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

#[test]
fn alerts_and_dashboards_name_metrics_that_exist() {
    let exported = exported();
    let alerts = rules(None).to_string();
    let root = package();
    let dashboards = ["fleet", "provers"].map(|name| {
        let text = std::fs::read_to_string(root.join(format!("dashboards/{name}.json"))).expect("a dashboard");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let expressions =
            json["panels"].as_array().expect("panels").iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
        expressions.filter_map(|target| target["expr"].as_str()).collect::<Vec<_>>().join("\n")
    });
    let mut checked = 0;
    for name in dashboards.iter().chain([&alerts]).flat_map(|text| named(text)) {
        assert!(exported.contains(&name), "{name} is not exported: {exported:?}");
        checked += 1;
    }
    assert!(checked > 15, "only {checked} names were found");
}

#[test]
fn each_alert_has_a_page_that_says_what_to_do() {
    let pages = package().join("../docs/runbooks");
    for alert in ALERTS {
        let page = std::fs::read_to_string(pages.join(format!("{}.md", alert.name))).expect(alert.name);
        assert!(
            page.starts_with(&format!("# {}\n", alert.name)) && page.contains("## Causes and what to do"),
            "{}",
            alert.name
        );
    }
    let count = std::fs::read_dir(&pages).expect("a folder").count();
    assert_eq!(count, ALERTS.len(), "a page without an alert");
}

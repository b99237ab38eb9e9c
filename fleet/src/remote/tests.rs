//! A fleet that lost a shard, whose substitute starts.

use serde_json::{Value, json};

use super::super::draw::render;
use super::*;
use crate::status::Format;

fn fleet() -> UpgraderFleet {
    let covered = !CoverageMask::of_class("4:2".parse().expect("a class"));
    let shard = |class: &str, phase: &str, pod: &str, substituted: bool| json!({ "class": class, "phase": phase, "weight": 64, "pod": pod, "substituted": substituted, "since": "2026-01-01T00:00:00Z" });
    serde_json::from_value(json!({
        "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet",
        "metadata": { "name": "prod", "namespace": "proofs", "generation": 3 },
        "spec": { "network": "main", "node": { "urls": ["http://node:9797"] }, "upgraders": { "shards": 4 } },
        "status": {
            "observedGeneration": 3, "readyShards": "3/4", "readyProvers": "1/2", "queue": 5,
            "coverage": "192/256", "coverageMask": covered.to_string(), "overlapping": 0, "replicas": 2,
            "shards": [
                shard("4:0", "Ready", "up-0", false), shard("4:1", "Ready", "up-1", false),
                shard("4:2", "Unready", "up-2", true), shard("4:3", "Ready", "up-3", false),
            ],
            "provers": [{ "name": "default", "desired": 2, "ready": 1, "unschedulable": 1, "queue": 5, "queuedSeconds": 90 }],
            "conditions": [{
                "type": "Ready", "status": "False", "reason": "Uncovered", "message": "192 of 256", "observedGeneration": 3,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    }))
    .expect("a fleet")
}

fn pod(name: &str, labels: &Value, ready: bool) -> Pod {
    let mut all = json!({ "upgrader-fleet.dev/fleet": "prod" });
    for (key, value) in labels.as_object().expect("labels") {
        all[key] = value.clone();
    }
    serde_json::from_value(json!({
        "metadata": { "name": name, "labels": all, "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "nodeName": "node-a", "containers": [{ "name": "main", "ports": [{ "name": "http", "containerPort": 9000 }] }] },
        "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            "containerStatuses": [
                { "name": "main", "image": "", "imageID": "", "ready": ready, "restartCount": 2, "state": {} },
            ],
        },
    }))
    .expect("a pod")
}

fn upgrader(name: &str, shard: &str, role: &str, ready: bool) -> Pod {
    let labels = json!({ "upgrader-fleet.dev/shard": shard, "upgrader-fleet.dev/role": role, "app.kubernetes.io/component": "upgrader" });
    pod(name, &labels, ready)
}

fn pods() -> Vec<Pod> {
    let prover = json!({ "upgrader-fleet.dev/provers": "default", "app.kubernetes.io/component": "prover" });
    vec![
        pod("prover-0", &prover, true),
        upgrader("up-0", "d4-r0", "primary", true),
        upgrader("up-2", "d4-r2", "primary", false),
        upgrader("up-2-sub", "d4-r2", "substitute", true),
    ]
}

fn seen() -> View {
    view(&fleet(), &pods(), "2026-01-01T00:03:20Z".parse().expect("a time"))
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn a_fleet_is_a_line_and_tables() {
    let text = render(&seen(), Format::Table).expect("renders");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "prod in proofs on main: shards 3/4, coverage 192/256, provers 1/2, queue 5");
    assert_eq!(lines[1], "nobody upgrades 4:2");
    assert_eq!(words(lines[3]), ["SHARD", "STATE", "FOR", "POD", "NODE"]);
    assert_eq!(words(lines[4]), ["4:0", "ready", "3m", "up-0", "node-a"]);
    assert_eq!(words(lines[6]), ["4:2", "unready,", "with", "a", "substitute", "3m", "up-2", "node-a"]);
    assert_eq!(words(lines[7]), ["4:3", "ready", "3m", "up-3", "-"], "a pod that is gone has no node");
    assert_eq!(words(lines[10]), ["default", "1/2", "1", "5", "90", "s"]);
    assert_eq!(words(lines[13]), ["Ready", "False", "3m", "Uncovered", "192", "of", "256"]);
    assert_eq!(lines.len(), 14);

    let wide = render(&seen(), Format::Wide).expect("renders");
    assert!(wide.starts_with(&text));
    let rows: Vec<Vec<&str>> = wide[text.len()..].lines().skip(3).map(words).collect();
    assert_eq!(rows[0], ["up-0", "upgrader", "4:0", "ready", "node-a", "2", "3m"]);
    assert_eq!(rows[1], ["up-2", "upgrader", "4:2", "running,", "not", "ready", "node-a", "2", "3m"]);
    assert_eq!(rows[2], ["up-2-sub", "upgrader", "4:2", "(substitute)", "ready", "node-a", "2", "3m"]);
    assert_eq!(rows[3], ["prover-0", "prover", "default", "ready", "node-a", "2", "3m"]);
}

#[test]
fn json_is_for_programs() {
    let value: Value = serde_json::from_str(&render(&seen(), Format::Json).expect("renders")).expect("JSON");
    assert_eq!((&value["coverage"], &value["uncovered"], &value["ready"]), (&json!(192), &json!(["4:2"]), &json!(false)));
    assert_eq!((&value["shards"][2]["substituted"], &value["pods"][2]["name"]), (&json!(true), &json!("up-2-sub")));
}

#[test]
fn a_change_that_the_operator_has_not_seen_is_said() {
    let mut changed = fleet();
    changed.metadata.generation = Some(4);
    let text = render(&view(&changed, &[], Timestamp::UNIX_EPOCH), Format::Table).expect("renders");
    assert!(text.lines().nth(2).is_some_and(|line| line.starts_with("the operator has not looked")), "{text}");
    changed.status = None;
    let new = view(&changed, &[], Timestamp::UNIX_EPOCH);
    assert_eq!((new.coverage, new.uncovered, new.ready), (0, vec![ResidueClass::WHOLE], false));
}

#[test]
fn the_uncovered_are_few_classes() {
    let of = |classes: &[&str]| {
        let mask = classes
            .iter()
            .fold(CoverageMask::EMPTY, |mask, class| mask | class.parse::<ResidueClass>().expect("a class").mask());
        classes_of(mask).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(of(&[]), Vec::<String>::new());
    assert_eq!(of(&["8:1", "8:5", "128:0"]), ["128:0", "4:1"]);
    assert_eq!(of(&["2:0", "2:1"]), ["1:0"]);
}

#[test]
fn who_is_ready_is_asked_first_and_who_goes_not_at_all() {
    let names = |pods: &[Pod], byte| {
        owners(&fleet(), pods, byte).map(|all| all.iter().map(|owner| owner.pod.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(&pods(), 6), Ok(vec!["up-2-sub".to_owned(), "up-2".to_owned()]));
    assert_eq!(owners(&fleet(), &pods(), 6).expect("owners")[0].port, 9000);
    assert!(names(&pods(), 5).is_err_and(|text| text.contains("ends with 05")));
    // In the middle of a resize the new class knows, and the old one may.
    let mut both = vec![upgrader("old", "d2-r0", "primary", true), upgrader("new", "d4-r2", "primary", true)];
    assert_eq!(names(&both, 2), Ok(vec!["new".to_owned(), "old".to_owned()]));
    both[1].metadata.deletion_timestamp = both[1].metadata.creation_timestamp.clone();
    assert_eq!(names(&both, 2), Ok(vec!["old".to_owned()]));

    let mut nodes = fleet();
    nodes.spec.upgraders.mode = UpgraderMode::Node;
    assert!(owners(&nodes, &pods(), 0).is_err_and(|text| text.contains("4:0") && text.contains("up-0")));
}

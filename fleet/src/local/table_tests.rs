//! What is shown of a fleet with one shard too few.

use std::collections::BTreeMap;
use std::time::Instant;

use prover_api::{Capacity, Priority, QueueLength};

use super::super::record::VERSION;
use super::super::sight::{UpgraderReport, UpgraderState};
use super::*;
use crate::status::PodReport;

fn process(name: &str, role: Role, class: Option<&str>, phase: Phase) -> ProcessRecord {
    ProcessRecord {
        name: name.to_owned(),
        role,
        url: format!("http://{name}"),
        class: class.map(|class| class.parse().expect("a class")),
        device: (role == Role::Prover).then(|| "gpu 0".to_owned()),
        phase,
        pid: Some(1),
        restarts: 2,
        log: format!("/dir/logs/{name}.log").into(),
    }
}

fn fleet() -> (FleetRecord, Sight) {
    let record = FleetRecord {
        version: VERSION,
        name: "main".to_owned(),
        network: "regtest".to_owned(),
        pid: 1,
        manifest: "fleet.yaml".to_owned(),
        token_file: "/dir/token".into(),
        processes: vec![
            process("pod", Role::Prover, None, Phase::Ready),
            process("one", Role::Upgrader, Some("2:0"), Phase::Starting),
            process("two", Role::Upgrader, Some("2:1"), Phase::Resting),
        ],
    };
    let capacity = Capacity {
        idle: false,
        ready: true,
        draining: false,
        max_log2_padded_height: Some(22),
        slots: 2,
        running: 1,
        queue: BTreeMap::from([(Priority::Low, QueueLength { jobs: 3, seconds: 20.0 })]),
        body_bytes: 5,
        max_body_bytes: 10,
        proof_versions: vec![8],
        backends: vec!["gpu".to_owned()],
        mock: false,
    };
    let state = UpgraderState { ready: true, height: Some(7), trouble: None, counts: Counts::default() };
    let report = |process: &ProcessRecord, answer| UpgraderReport {
        name: process.name.clone(),
        class: process.class,
        url: process.url.clone(),
        answer,
    };
    let sight = Sight {
        asked: Instant::now(),
        ready: vec![Some(true), Some(true), None],
        upgraders: vec![
            report(&record.processes[1], UpgraderAnswer::Up(state)),
            report(&record.processes[2], UpgraderAnswer::Down { error: "refused".to_owned() }),
        ],
        pods: vec![PodReport {
            url: "http://pod".to_owned(),
            answer: Answer::Up { capacity: Box::new(capacity), devices: vec![] },
        }],
    };
    (record, sight)
}

const COUNTS: [Counts; 2] = [
    Counts { mempool: 4.0, in_progress: 1.0, upgrades: 5.0, fees_submitted: 1.2, fees_mined: 0.6 },
    Counts { mempool: 3.0, in_progress: 0.0, upgrades: 2.0, fees_submitted: 0.6, fees_mined: 0.0 },
];

#[test]
fn the_whole_is_one_line() {
    let (record, sight) = fleet();
    let summary = summary(&record, &sight, &COUNTS);
    assert_eq!(
        summary.line(),
        "main on regtest: shards 1/2, coverage 128/256, provers 1/1, proofs 1 running and 3 queued, mempool 4, upgrades 7, fees \
         1.8000 (0.6000 mined), restarts 6"
    );
    assert_eq!(summary.coverage_mask, "5".repeat(64), "the even bytes");
}

#[test]
fn each_process_has_a_row_with_what_it_says_now() {
    let (record, sight) = fleet();
    let words = |text: &str, line: usize| -> Vec<String> {
        text.lines().nth(line).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    let text = upgraders(&record, &sight, &COUNTS, 9);
    assert_eq!(words(&text, 1), ["one", "2:0", "ready", "7", "1", "5", "1.2000", "0.6000", "2"]);
    assert_eq!(words(&text, 2), ["two", "2:1", "restarting", "-", "0", "2", "0.6000", "0.0000", "2"]);
    let text = provers(&record, &sight, 9);
    assert_eq!(words(&text, 1), ["pod", "gpu", "0", "ready", "1/2", "3", "2^22", "2"]);
}

#[test]
fn of_many_only_those_that_are_not_ready_have_a_row() {
    let (record, sight) = fleet();
    let text = upgraders(&record, &sight, &COUNTS, 0);
    assert!(!text.contains("one") && text.contains("two") && text.ends_with("… and 1 more, all ready"), "{text}");
}

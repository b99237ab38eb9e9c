//! The status of a fleet from what was seen. Pure: written once a reconcile, last, and only when it says something new.

use std::collections::BTreeMap;

use fleet_api::shard::Coverage;
use fleet_api::v1alpha1::{
    ConditionType, ProverStatus, ReshardPhase, ReshardStatus, ShardPhase, ShardStatus, UpgraderFleetStatus, condition,
    set_condition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::build::prover_selector;
use crate::metrics::FleetNumbers;
use crate::observe::Observed;
use crate::plan::shards::{Health, Key, Role, Wanted};

/// What a status is made from.
pub struct Input<'a> {
    /// The fleet's name.
    pub name: &'a str,
    /// Generation of the specification.
    pub generation: i64,
    /// The wanted shards; `None` when the specification is invalid.
    pub wanted: Option<&'a Wanted>,
    /// What is there.
    pub observed: &'a Observed,
    /// Wanted pods of each kind of provers.
    pub desired: &'a BTreeMap<String, i32>,
    /// Reason and message of what needs a person.
    pub trouble: Option<(&'a str, String)>,
    /// Whether this look changed a workload.
    pub changed: bool,
    /// The status before.
    pub before: Option<&'a UpgraderFleetStatus>,
    /// The time.
    pub now: Time,
}

/// A transition that is worth an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The condition.
    pub kind: ConditionType,
    /// Whether it is good news.
    pub good: bool,
    /// One word.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The new status, what to tell people, and the numbers for Prometheus.
pub fn status(input: &Input<'_>) -> (UpgraderFleetStatus, Vec<Change>, FleetNumbers) {
    let observed = input.observed;
    let empty = UpgraderFleetStatus::default();
    let before = input.before.unwrap_or(&empty);
    let suspended = input.wanted.is_some_and(|wanted| wanted.suspend);
    let coverage: Coverage = observed
        .shards
        .iter()
        .filter(|(_, shard)| matches!(shard.workload.health, Health::Ready { .. }))
        .map(|(key, _)| key.class)
        .collect();
    let shards = shards(input, before);
    let wanted_count = input.wanted.map_or(0, |wanted| wanted.classes.len());
    let ready_shards = shards.iter().filter(|shard| shard.phase == ShardPhase::Ready).count();
    let pending = shards.iter().filter(|shard| shard.phase == ShardPhase::Starting).count();
    let retiring = shards.iter().filter(|shard| shard.phase == ShardPhase::Retiring).count();
    let missing = input.wanted.map_or(0, |wanted| {
        wanted.classes.iter().filter(|class| !observed.shards.contains_key(&Key::primary(**class))).count()
    });
    let is_reshard = retiring > 0 && !suspended;
    let reshard = is_reshard.then_some(ReshardStatus {
        phase: if pending + missing > 0 { ReshardPhase::Starting } else { ReshardPhase::Retiring },
        pending: (pending + missing) as i32,
        retiring: retiring as i32,
    });
    let provers: Vec<ProverStatus> = input
        .desired
        .iter()
        .map(|(name, desired)| {
            let found = observed.provers.get(name);
            ProverStatus {
                name: name.clone(),
                desired: *desired,
                ready: found.map_or(0, |found| found.ready),
                unschedulable: found.map_or(0, |found| found.unschedulable),
                queue: found.and_then(|found| found.queue).map(|queue| queue as i32),
                queued_seconds: found.and_then(|found| found.work_seconds).map(|seconds| seconds.round() as i32),
            }
        })
        .collect();
    let (prover_ready, prover_desired) = provers.iter().fold((0, 0), |sum, kind| (sum.0 + kind.ready, sum.1 + kind.desired));
    let queues: Vec<i32> = provers.iter().filter_map(|kind| kind.queue).collect();
    let mut status = UpgraderFleetStatus {
        observed_generation: Some(input.generation),
        conditions: before.conditions.clone(),
        ready_shards: Some(format!("{ready_shards}/{wanted_count}")),
        coverage: Some(format!("{}/256", coverage.covered.count())),
        coverage_mask: Some(coverage.covered.to_string()),
        overlapping: i32::from(coverage.overlapping.count()),
        shards,
        reshard,
        ready_provers: Some(format!("{prover_ready}/{prover_desired}")),
        queue: (!queues.is_empty()).then(|| queues.iter().sum()),
        replicas: observed.provers.get("default").map_or(0, |found| found.pods),
        selector: Some(
            prover_selector(input.name, "default")
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect::<Vec<_>>()
                .join(","),
        ),
        provers,
    };
    let verdict = Verdict {
        suspended,
        covered: coverage.covered.is_full(),
        count: coverage.covered.count(),
        ready_shards,
        wanted_shards: wanted_count,
        resharding: is_reshard,
        up_to_date: up_to_date(input),
    };
    let changes = conditions(input, &verdict, &mut status);
    let numbers = numbers(&verdict, &coverage, input, &status);
    (status, changes, numbers)
}

struct Verdict {
    suspended: bool,
    covered: bool,
    count: u16,
    ready_shards: usize,
    wanted_shards: usize,
    resharding: bool,
    /// Shards that have the wanted image and options, and whether all provers have.
    up_to_date: (usize, bool),
}

fn up_to_date(input: &Input<'_>) -> (usize, bool) {
    let Some(wanted) = input.wanted else { return (0, false) };
    let is_current = |class| {
        let shard = input.observed.shards.get(&Key::primary(class));
        shard.is_some_and(|shard| shard.workload.rolled_out && shard.workload.revision == wanted.revision)
    };
    let shards = wanted.classes.iter().filter(|class| is_current(**class)).count();
    (shards, input.observed.provers.values().all(|kind| !kind.updating))
}

fn shards(input: &Input<'_>, before: &UpgraderFleetStatus) -> Vec<ShardStatus> {
    let primaries = input.observed.shards.iter().filter(|(key, _)| key.role == Role::Primary);
    let one = |(key, shard): (&Key, &crate::observe::Shard)| {
        let wanted = input.wanted.is_none_or(|wanted| wanted.classes.contains(&key.class));
        let phase = match shard.workload.health {
            _ if !wanted => ShardPhase::Retiring,
            Health::Ready { .. } => ShardPhase::Ready,
            // A stopped shard starts anew; it is not lost.
            Health::Lost { .. } | Health::Outdated if !shard.workload.stopped => ShardPhase::Unready,
            Health::Lost { .. } | Health::Outdated | Health::Starting => ShardPhase::Starting,
        };
        let old = before.shards.iter().find(|old| old.class == key.class && old.phase == phase);
        ShardStatus {
            class: key.class,
            phase,
            weight: i32::from(key.class.weight()),
            pod: shard.pod.clone(),
            substituted: input.observed.shards.contains_key(&Key::substitute(key.class)),
            since: old.and_then(|old| old.since.clone()).or_else(|| Some(input.now.clone())),
        }
    };
    primaries.map(one).collect()
}

fn conditions(input: &Input<'_>, verdict: &Verdict, status: &mut UpgraderFleetStatus) -> Vec<Change> {
    let observed = input.observed;
    let covered = if verdict.suspended {
        (Some(false), "Suspended", "the fleet is suspended: nobody upgrades".to_owned())
    } else if verdict.covered {
        (Some(true), "AllCovered", "each transaction has a ready upgrader".to_owned())
    } else {
        let message = format!("{} of 256 values of a transaction id's last byte have a ready upgrader", verdict.count);
        (Some(false), "Uncovered", message)
    };
    let resharding = match &status.reshard {
        Some(reshard) => {
            let reason = if reshard.phase == ReshardPhase::Starting { "Starting" } else { "Retiring" };
            (Some(true), reason, format!("{} shards start, {} wait to go", reshard.pending, reshard.retiring))
        }
        None => (Some(false), "Settled", "the shards are those that are wanted".to_owned()),
    };
    let none_ready: Vec<&str> =
        status.provers.iter().filter(|kind| kind.desired > 0 && kind.ready == 0).map(|kind| kind.name.as_str()).collect();
    let unschedulable: i32 = status.provers.iter().map(|kind| kind.unschedulable).sum();
    let why = observed.provers.values().find_map(|kind| kind.reason.clone());
    let short = status.provers.iter().any(|kind| kind.ready < kind.desired);
    let provers = if verdict.suspended {
        (Some(false), "Suspended", "the fleet is suspended".to_owned())
    } else if unschedulable > 0 {
        let message = format!("{unschedulable} prover pods find no node: {}", why.unwrap_or_else(|| "no room".to_owned()));
        (Some(none_ready.is_empty()), "Unschedulable", message)
    } else if !none_ready.is_empty() {
        let more = why.map(|why| format!(": {why}")).unwrap_or_default();
        (Some(false), "NoneReady", format!("no prover pod is ready of {}{more}", none_ready.join(", ")))
    } else {
        (Some(true), "Available", format!("{} prover pods are ready", status.ready_provers.clone().unwrap_or_default()))
    };
    let failure = observed.shards.values().find_map(|shard| shard.failure.clone());
    let outdated = observed.shards.values().filter(|shard| shard.workload.health == Health::Outdated).count();
    let degraded = match (&input.trouble, failure) {
        (Some((reason, message)), _) => (Some(true), *reason, message.clone()),
        (None, Some(message)) => (Some(true), "PodsRefused", message),
        (None, None) if outdated > 0 => (
            Some(true),
            "RulesNotSupported",
            format!(
                "{outdated} of {} upgraders cannot prove under the next block's rules: give upgraders and provers the images of a \
                 release that can",
                observed.shards.len()
            ),
        ),
        (None, None) => (Some(false), "AsWanted", "nothing needs a person".to_owned()),
    };
    let complete = verdict.ready_shards == verdict.wanted_shards && verdict.wanted_shards > 0 && !short;
    let (current, provers_current) = verdict.up_to_date;
    let ready = if input.wanted.is_none() {
        (Some(false), "InvalidSpec", degraded.2.clone())
    } else if verdict.suspended {
        (Some(false), "Suspended", "the fleet is suspended".to_owned())
    } else if degraded.0 == Some(true) {
        (Some(false), "Degraded", degraded.2.clone())
    } else if !verdict.covered {
        (Some(false), "Uncovered", covered.2.clone())
    } else if complete && !verdict.resharding && (input.changed || current < verdict.wanted_shards || !provers_current) {
        let of = verdict.wanted_shards;
        (Some(false), "Updating", format!("{current} of {of} shards have the wanted image and options; all are ready"))
    } else if complete && !verdict.resharding {
        (Some(true), "AllReady", "all shards and provers are ready".to_owned())
    } else if verdict.resharding {
        (Some(false), "Resharding", resharding.2.clone())
    } else {
        let shards = status.ready_shards.clone().unwrap_or_default();
        (
            Some(false),
            "Progressing",
            format!("{shards} shards and {} provers are ready", status.ready_provers.clone().unwrap_or_default()),
        )
    };
    let all = [
        (ConditionType::Ready, ready),
        (ConditionType::Covered, covered),
        (ConditionType::Resharding, resharding),
        (ConditionType::ProversAvailable, provers),
        (ConditionType::Degraded, degraded),
    ];
    let mut changes = Vec::new();
    for (kind, (value, reason, message)) in all {
        let good = (value == Some(true)) != matches!(kind, ConditionType::Degraded | ConditionType::Resharding);
        let new = condition(kind, value, reason, message.clone(), input.generation, &input.now);
        // That a new fleet is not ready yet is no news.
        let is_news = value == Some(true) || status.conditions.iter().any(|old| old.type_ == kind.name());
        if set_condition(&mut status.conditions, new) && is_news {
            changes.push(Change { kind, good: good || kind == ConditionType::Resharding, reason: reason.to_owned(), message });
        }
    }
    changes
}

fn numbers(verdict: &Verdict, coverage: &Coverage, input: &Input<'_>, status: &UpgraderFleetStatus) -> FleetNumbers {
    FleetNumbers {
        covered: i64::from(verdict.count),
        overlapping: i64::from(coverage.overlapping.count()),
        shards_ready: verdict.ready_shards as i64,
        shards_desired: if verdict.suspended { 0 } else { verdict.wanted_shards as i64 },
        substitutes: input.observed.shards.keys().filter(|key| key.role == Role::Substitute).count() as i64,
        resharding: verdict.resharding,
        degraded: status.conditions.iter().any(|one| one.type_ == ConditionType::Degraded.name() && one.status == "True"),
        suspended: verdict.suspended,
        queued_seconds: status.provers.iter().filter_map(|kind| kind.queued_seconds).map(i64::from).sum(),
        provers: status
            .provers
            .iter()
            .map(|kind| (kind.name.clone(), i64::from(kind.desired), i64::from(kind.ready), i64::from(kind.unschedulable)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fleet_api::ResidueClass;
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::observe::{Provers, Shard};
    use crate::plan::shards::Workload;

    fn wanted(shards: i64) -> Wanted {
        let classes: BTreeSet<ResidueClass> = fleet_api::shard::plan(shards).expect("in range").into_iter().collect();
        Wanted { classes, revision: "a".to_owned(), suspend: false, max_surge: 4, max_unavailable: 1, takeover_after: Some(20) }
    }

    fn observed(shards: i64, health: Health) -> Observed {
        let shard = |class| {
            let workload = Workload { revision: "a".to_owned(), rolled_out: true, health, stopped: false };
            (Key::primary(class), Shard { workload, name: String::new(), uid: String::new(), pod: None, failure: None })
        };
        let provers = Provers { pods: 1, ready: 1, ..Provers::default() };
        Observed {
            shards: wanted(shards).classes.into_iter().map(shard).collect(),
            provers: [("default".to_owned(), provers)].into(),
            stuck: false,
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("in range"))
    }

    fn make(
        wanted: Option<&Wanted>,
        observed: &Observed,
        trouble: Option<(&str, String)>,
        before: Option<&UpgraderFleetStatus>,
        second: i64,
    ) -> (UpgraderFleetStatus, Vec<Change>, FleetNumbers) {
        let desired = [("default".to_owned(), 1)].into();
        let now = at(second);
        status(&Input {
            name: "prod",
            generation: 7,
            wanted,
            observed,
            desired: &desired,
            trouble,
            changed: false,
            before,
            now,
        })
    }

    fn says(status: &UpgraderFleetStatus, kind: ConditionType) -> String {
        let found = status.conditions.iter().find(|one| one.type_ == kind.name()).expect("all conditions are there");
        format!("{} {}", found.status, found.reason)
    }

    #[test]
    fn a_complete_fleet_is_ready_and_says_it_once() {
        let seen = observed(4, Health::Ready { seconds: 0 });
        let (first, changes, numbers) = make(Some(&wanted(4)), &seen, None, None, 1);
        assert_eq!(says(&first, ConditionType::Ready), "True AllReady");
        assert_eq!(
            (first.coverage.as_deref(), first.ready_shards.as_deref(), numbers.covered),
            (Some("256/256"), Some("4/4"), 256)
        );
        assert_eq!(changes.len(), 3, "ready, covered, provers available; not that nothing is wrong");
        let (second, changes, _) = make(Some(&wanted(4)), &seen, None, Some(&first), 100);
        assert_eq!((second, changes), (first, Vec::new()), "nothing new, so nothing is written");
    }

    #[test]
    fn a_lost_shard_is_named_and_its_time_is_kept() {
        let ready = observed(4, Health::Ready { seconds: 0 });
        let (before, _, _) = make(Some(&wanted(4)), &ready, None, None, 1);
        let mut seen = ready;
        let lost: ResidueClass = "4:2".parse().expect("a class");
        seen.shards.get_mut(&Key::primary(lost)).expect("there").workload.health = Health::Lost { seconds: 0 };
        let (first, changes, _) = make(Some(&wanted(4)), &seen, None, Some(&before), 50);
        let (second, _, _) = make(Some(&wanted(4)), &seen, None, Some(&first), 60);
        let shard = second.shards.iter().find(|shard| shard.class == lost).expect("there");
        assert_eq!((shard.phase, shard.since.clone()), (ShardPhase::Unready, Some(at(50))));
        assert_eq!(
            (says(&second, ConditionType::Covered), says(&second, ConditionType::Ready)),
            ("False Uncovered".to_owned(), "False Uncovered".to_owned())
        );
        assert!(changes.iter().any(|change| change.kind == ConditionType::Covered && !change.good));
    }

    #[test]
    fn a_resize_is_said_and_does_not_uncover() {
        let (status, _, numbers) = make(Some(&wanted(8)), &observed(4, Health::Ready { seconds: 0 }), None, None, 1);
        assert_eq!(says(&status, ConditionType::Resharding), "True Starting");
        assert_eq!(says(&status, ConditionType::Covered), "True AllCovered");
        assert_eq!(status.reshard.as_ref().map(|reshard| (reshard.pending, reshard.retiring)), Some((8, 4)));
        assert!(numbers.resharding && status.shards.iter().all(|shard| shard.phase == ShardPhase::Retiring));
    }

    #[test]
    fn an_update_is_not_ready_before_its_last_shard() {
        let mut seen = observed(4, Health::Ready { seconds: 0 });
        let key = Key::primary("4:3".parse().expect("a class"));
        seen.shards.get_mut(&key).expect("there").workload.revision = "before".to_owned();
        let (status, _, _) = make(Some(&wanted(4)), &seen, None, None, 1);
        assert_eq!(says(&status, ConditionType::Ready), "False Updating");
        let workload = &mut seen.shards.get_mut(&key).expect("there").workload;
        (workload.revision, workload.rolled_out) = ("a".to_owned(), false);
        let (status, _, _) = make(Some(&wanted(4)), &seen, None, None, 1);
        assert_eq!(says(&status, ConditionType::Ready), "False Updating");
        let mut seen = observed(4, Health::Ready { seconds: 0 });
        seen.provers.get_mut("default").expect("there").updating = true;
        let (status, _, _) = make(Some(&wanted(4)), &seen, None, None, 1);
        assert_eq!(says(&status, ConditionType::Ready), "False Updating");
    }

    #[test]
    fn what_needs_a_person_comes_first() {
        let seen = observed(4, Health::Ready { seconds: 0 });
        let (status, _, numbers) = make(None, &seen, Some(("InvalidSpec", "because".to_owned())), None, 1);
        assert_eq!(
            (says(&status, ConditionType::Ready), says(&status, ConditionType::Degraded)),
            ("False InvalidSpec".to_owned(), "True InvalidSpec".to_owned())
        );
        assert!(numbers.degraded);
        let mut suspended = wanted(4);
        suspended.suspend = true;
        let (status, _, numbers) = make(Some(&suspended), &observed(4, Health::Starting), None, None, 1);
        assert_eq!(
            (says(&status, ConditionType::Ready), numbers.suspended, numbers.shards_desired),
            ("False Suspended".to_owned(), true, 0)
        );
    }

    #[test]
    fn rules_that_no_build_here_knows_are_a_condition_and_no_failure() {
        let ready = observed(4, Health::Ready { seconds: 0 });
        let (before, _, _) = make(Some(&wanted(4)), &ready, None, None, 1);
        let (status, changes, numbers) = make(Some(&wanted(4)), &observed(4, Health::Outdated), None, Some(&before), 2);
        assert_eq!(says(&status, ConditionType::Degraded), "True RulesNotSupported");
        assert_eq!(says(&status, ConditionType::Ready), "False Degraded");
        assert!(status.shards.iter().all(|shard| shard.phase == ShardPhase::Unready));
        assert!(numbers.degraded && changes.iter().any(|change| change.reason == "RulesNotSupported" && !change.good));
        let (status, _, _) = make(Some(&wanted(4)), &ready, None, Some(&status), 3);
        assert_eq!(says(&status, ConditionType::Degraded), "False AsWanted");
    }

    #[test]
    fn pods_without_a_node_are_reported_with_the_schedulers_words() {
        let mut seen = observed(1, Health::Ready { seconds: 0 });
        let reason = Some("Insufficient nvidia.com/gpu".to_owned());
        seen.provers.insert("default".to_owned(), Provers { pods: 1, unschedulable: 1, reason, ..Provers::default() });
        let (status, _, _) = make(Some(&wanted(1)), &seen, None, None, 1);
        assert_eq!(says(&status, ConditionType::ProversAvailable), "False Unschedulable");
        assert!(status.conditions.iter().any(|one| one.message.contains("Insufficient nvidia.com/gpu")));
        assert_eq!(says(&status, ConditionType::Ready), "False Progressing");
    }
}

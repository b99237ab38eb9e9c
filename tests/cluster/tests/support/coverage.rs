//! Which transactions have a ready upgrader, by the pods alone: what the operator says of itself is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet_api::ResidueClass;
use fleet_api::shard::{Coverage, CoverageMask};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;

/// How long a death may cost the transactions of its shard: the takeover's bound.
pub const TAKEOVER: Duration = Duration::from_secs(45);

/// Watches pods and computes the coverage at each event.
pub struct Auditor {
    worst: Arc<Mutex<Audit>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default, Clone)]
pub struct Audit {
    /// Whether all was covered at some time.
    pub covered_once: bool,
    /// The least coverage after the first full one.
    pub least: Option<u16>,
    /// How often it was computed.
    pub events: usize,
    /// Classes whose pods the test has killed, and when.
    deaths: Vec<(Instant, ResidueClass)>,
    /// What was uncovered after the first full coverage although no pod of it had died lately.
    unexplained: Vec<String>,
}

impl Audit {
    fn note(&mut self, covered: CoverageMask, pods: &BTreeMap<String, Seen>) {
        let count = covered.count();
        self.events += 1;
        self.covered_once |= count == 256;
        if !self.covered_once {
            return;
        }
        self.least = Some(self.least.map_or(count, |least| least.min(count)));
        let died = |byte| self.deaths.iter().any(|(at, class)| at.elapsed() <= TAKEOVER && class.owns(byte));
        let missing: Vec<u8> = (0..=u8::MAX).filter(|byte| !covered.contains(*byte) && !died(*byte)).collect();
        if !missing.is_empty() {
            let owners = pods.iter().filter(|(_, pod)| missing.iter().any(|byte| pod.class.owns(*byte)));
            let owners: Vec<String> = owners.map(|(name, pod)| format!("\n  {name}: {}", pod.state)).collect();
            self.unexplained.push(format!("event {}: {missing:?}{}", self.events, owners.concat()));
        }
    }
}

impl Auditor {
    pub fn start(pods: Api<Pod>) -> Self {
        let worst = Arc::new(Mutex::new(Audit::default()));
        let shared = Arc::clone(&worst);
        let task = tokio::spawn(async move {
            let mut pods_seen: BTreeMap<String, Seen> = BTreeMap::new();
            // Of a new list, which is there once it is complete: pods that went in a gap of the watch are not in it.
            let mut listed: BTreeMap<String, Seen> = BTreeMap::new();
            let mut stream =
                std::pin::pin!(watcher(pods, watcher::Config::default().labels("upgrader-fleet.dev/shard")).default_backoff());
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::Init) => {
                        listed.clear();
                        continue;
                    }
                    Ok(watcher::Event::InitApply(pod)) => {
                        listed.extend(Seen::of(&pod).map(|seen| (pod.name_any(), seen)));
                        continue;
                    }
                    Ok(watcher::Event::InitDone) => pods_seen = std::mem::take(&mut listed),
                    Ok(watcher::Event::Apply(pod)) => match Seen::of(&pod) {
                        Some(seen) => drop(pods_seen.insert(pod.name_any(), seen)),
                        None => drop(pods_seen.remove(&pod.name_any())),
                    },
                    Ok(watcher::Event::Delete(pod)) => drop(pods_seen.remove(&pod.name_any())),
                    Err(_) => continue,
                }
                let ready = pods_seen.values().filter(|pod| pod.upgrades);
                let covered = ready.map(|pod| pod.class).collect::<Coverage>().covered;
                if let Ok(mut audit) = shared.lock() {
                    audit.note(covered, &pods_seen);
                }
            }
        });
        Self { worst, task }
    }

    pub fn verdict(&self) -> Audit {
        self.worst.lock().map(|audit| audit.clone()).unwrap_or_default()
    }

    /// Says that a pod of this class dies now. Only what it had may be uncovered, and only until the takeover's bound.
    pub fn dies(&self, class: ResidueClass) {
        if let Ok(mut audit) = self.worst.lock() {
            audit.deaths.push((Instant::now(), class));
        }
    }

    /// Fails unless all was covered once and since then, at each event, all but the shards of pods that had just died.
    pub fn assert_only_deaths_uncovered(&self) {
        let audit = self.verdict();
        assert!(audit.covered_once && audit.unexplained.is_empty(), "uncovered without a death: {:?}", audit.unexplained);
        println!(
            "coverage sampled at {} events with {} deaths: nothing else was ever uncovered, at worst {:?} of 256",
            audit.events,
            audit.deaths.len(),
            audit.least
        );
    }

    /// Fails unless all was covered once and at each event since.
    pub fn assert_never_uncovered(&self) {
        let audit = self.verdict();
        let first = audit.unexplained.first();
        assert!(
            audit.covered_once && audit.least == Some(256),
            "coverage fell to {:?} of 256, in {} of {} events, first at {}",
            audit.least,
            audit.unexplained.len(),
            audit.events,
            first.map_or("none", String::as_str),
        );
        println!("coverage sampled at {} events, always 256 of 256", audit.events);
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A pod as of its last event.
struct Seen {
    class: ResidueClass,
    /// Whether it upgrades its class now.
    upgrades: bool,
    /// For people.
    state: String,
}

impl Seen {
    fn of(pod: &Pod) -> Option<Self> {
        let class = ResidueClass::from_slug(pod.labels().get("upgrader-fleet.dev/shard")?)?;
        let status = pod.status.as_ref()?;
        let ready = status.conditions.iter().flatten().find(|one| one.type_ == "Ready");
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        let leaves = pod.metadata.deletion_timestamp.is_some();
        let containers = status.container_statuses.iter().flatten();
        let restarts: Vec<i32> = containers.map(|container| container.restart_count).collect();
        let state =
            format!(
                "{}{}{}, restarts {restarts:?}",
                status.phase.as_deref().unwrap_or("no phase"),
                if is_ready { ", ready" } else { ", not ready" },
                if leaves { ", being deleted" } else { "" },
            ) + &ready.map(|ready| format!(" since {:?} {:?}", ready.last_transition_time, ready.message)).unwrap_or_default();
        Some(Self { class, upgrades: is_ready && !leaves, state })
    }
}

pub fn shards_of(workloads: &BTreeMap<String, i32>, fleet: &str) -> BTreeSet<String> {
    workloads.keys().filter_map(|name| name.strip_prefix(&format!("{fleet}-d"))).map(|rest| format!("d{rest}")).collect()
}

pub fn expected(shards: i64) -> BTreeSet<String> {
    fleet_api::shard::plan(shards).expect("in range").into_iter().map(ResidueClass::slug).collect()
}

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
    fn note(&mut self, covered: CoverageMask) {
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
            self.unexplained.push(format!("event {}: {missing:?}", self.events));
        }
    }
}

impl Auditor {
    pub fn start(pods: Api<Pod>) -> Self {
        let worst = Arc::new(Mutex::new(Audit::default()));
        let shared = Arc::clone(&worst);
        let task = tokio::spawn(async move {
            let mut ready: BTreeMap<String, ResidueClass> = BTreeMap::new();
            let mut stream =
                std::pin::pin!(watcher(pods, watcher::Config::default().labels("upgrader-fleet.dev/shard")).default_backoff());
            while let Some(event) = stream.next().await {
                match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => match owner_of(&pod) {
                        Some(class) => drop(ready.insert(pod.name_any(), class)),
                        None => drop(ready.remove(&pod.name_any())),
                    },
                    Ok(watcher::Event::Delete(pod)) => drop(ready.remove(&pod.name_any())),
                    _ => continue,
                }
                let covered = ready.values().copied().collect::<Coverage>().covered;
                if let Ok(mut audit) = shared.lock() {
                    audit.note(covered);
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
        assert!(audit.covered_once && audit.least == Some(256), "coverage fell: {audit:?}");
        println!("coverage sampled at {} events, always 256 of 256", audit.events);
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The class that a pod upgrades now.
fn owner_of(pod: &Pod) -> Option<ResidueClass> {
    let ready = pod.status.as_ref()?.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
    let class = ResidueClass::from_slug(pod.labels().get("upgrader-fleet.dev/shard")?)?;
    (ready && pod.metadata.deletion_timestamp.is_none()).then_some(class)
}

pub fn shards_of(workloads: &BTreeMap<String, i32>, fleet: &str) -> BTreeSet<String> {
    workloads.keys().filter_map(|name| name.strip_prefix(&format!("{fleet}-d"))).map(|rest| format!("d{rest}")).collect()
}

pub fn expected(shards: i64) -> BTreeSet<String> {
    fleet_api::shard::plan(shards).expect("in range").into_iter().map(ResidueClass::slug).collect()
}

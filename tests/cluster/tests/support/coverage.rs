//! Which transactions have a ready upgrader, by the pods alone: what the operator says of itself is not asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use fleet_api::ResidueClass;
use fleet_api::shard::Coverage;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::task::JoinHandle;

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
                let covered = ready.values().copied().collect::<Coverage>().covered.count();
                if let Ok(mut audit) = shared.lock() {
                    audit.events += 1;
                    audit.covered_once |= covered == 256;
                    if audit.covered_once {
                        audit.least = Some(audit.least.map_or(covered, |least| least.min(covered)));
                    }
                }
            }
        });
        Self { worst, task }
    }

    pub fn verdict(&self) -> Audit {
        self.worst.lock().map(|audit| audit.clone()).unwrap_or_default()
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

//! What the API server has, kept up to date by watches. Only [`facts`](crate::facts) are kept, not the objects.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::channel::mpsc::UnboundedSender;
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::core::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::build::{FLEET_LABEL, MANAGER};
use crate::facts::{Fact, Facts, PodFacts, Workload};
use crate::kinds::Kind;
use crate::reconcile::Guarded;
use crate::shelf::{Filler, Shelf};
use crate::writer::Live;

type Meta = PartialObjectMeta<DynamicObject>;

/// All watched objects.
#[derive(Clone)]
pub struct Caches {
    /// Pods of fleets.
    pub pods: Shelf<PodFacts>,
    /// Deployments of fleets.
    pub deployments: Shelf<Workload>,
    /// StatefulSets of fleets.
    pub stateful_sets: Shelf<Workload>,
    metadata: Arc<BTreeMap<Kind, Shelf<Facts>>>,
    watches: Arc<Vec<(String, Arc<AtomicBool>)>>,
}

/// How to list: whole objects are large, and those of one page are in memory together, for each kind at the same time.
pub fn few_at_once() -> watcher::Config {
    watcher::Config::default().page_size(50)
}

/// A fleet that has to be looked at.
pub type Trigger = UnboundedSender<ObjectRef<Guarded>>;

impl Caches {
    /// Starts all watches. They go on until the token says stop; the trigger gets the fleet of each object that changes.
    pub fn start(
        client: &Client,
        namespace: Option<&str>,
        optional: &[Kind],
        trigger: &Trigger,
        stop: &CancellationToken,
    ) -> Self {
        let mut watches = Vec::new();
        let mut ready = |name: &str| {
            let flag = Arc::new(AtomicBool::new(false));
            watches.push((name.to_owned(), Arc::clone(&flag)));
            flag
        };
        let ours = few_at_once().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
        let of_fleet = few_at_once().labels(FLEET_LABEL);

        let (pods, filler) = Shelf::new();
        spawn(watcher(api::<Pod>(client, namespace), of_fleet), PodFacts::of, filler, trigger, stop, ready("pods"));
        let (deployments, filler) = Shelf::new();
        let watch = watcher(api::<Deployment>(client, namespace), ours.clone());
        spawn(watch, Workload::of_deployment, filler, trigger, stop, ready("deployments"));
        let (stateful_sets, filler) = Shelf::new();
        let watch = watcher(api::<StatefulSet>(client, namespace), ours.clone());
        spawn(watch, Workload::of_set, filler, trigger, stop, ready("statefulsets"));

        let mut metadata = BTreeMap::new();
        for kind in Kind::ALL {
            // Secrets are read by name only: a list would show all of them.
            let watched_whole = matches!(kind, Kind::Deployment | Kind::StatefulSet | Kind::Secret);
            if watched_whole || kind.is_optional() && !optional.contains(&kind) {
                continue;
            }
            let resource = kind.api_resource();
            let api: Api<Meta> = match namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let (shelf, filler) = Shelf::new();
            metadata.insert(kind, shelf);
            let read = |object: &Meta| Facts::of(&object.metadata);
            spawn(watcher(api, ours.clone()), read, filler, trigger, stop, ready(kind.plural()));
        }
        Self { pods, deployments, stateful_sets, metadata: Arc::new(metadata), watches: Arc::new(watches) }
    }

    /// The watches that have not delivered their first list.
    pub fn missing(&self) -> Vec<String> {
        self.watches.iter().filter(|(_, ready)| !ready.load(Ordering::Acquire)).map(|(name, _)| name.clone()).collect()
    }

    /// Waits until all have.
    pub async fn wait(&self) {
        while !self.missing().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    /// Whether objects of this kind are watched.
    pub fn knows(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Deployment | Kind::StatefulSet) || self.metadata.contains_key(&kind)
    }

    /// The object of this name, as far as a writer needs to know it.
    pub fn live(&self, kind: Kind, namespace: &str, name: &str) -> Option<Live> {
        match kind {
            Kind::Deployment => self.deployments.get(namespace, name).map(|found| found.facts.live.clone()),
            Kind::StatefulSet => self.stateful_sets.get(namespace, name).map(|found| found.facts.live.clone()),
            _ => self.metadata.get(&kind)?.get(namespace, name).map(|found| found.live.clone()),
        }
    }

    /// All objects of a fleet, by kind and name.
    pub fn of_fleet(&self, namespace: &str, fleet: &str, uid: &str) -> Vec<(Kind, String, Live)> {
        let mut found = Vec::new();
        let mut keep = |kind, facts: &Facts| {
            if facts.belongs(fleet, uid) {
                found.push((kind, facts.name.clone(), facts.live.clone()));
            }
        };
        self.deployments.of_fleet(namespace, fleet).iter().for_each(|object| keep(Kind::Deployment, &object.facts));
        self.stateful_sets.of_fleet(namespace, fleet).iter().for_each(|object| keep(Kind::StatefulSet, &object.facts));
        for (kind, shelf) in self.metadata.iter() {
            shelf.of_fleet(namespace, fleet).iter().for_each(|object| keep(*kind, object));
        }
        found
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn spawn<K, T, S>(
    watch: S,
    read: impl Fn(&K) -> Option<T> + Send + 'static,
    mut filler: Filler<T>,
    trigger: &Trigger,
    stop: &CancellationToken,
    ready: Arc<AtomicBool>,
) where
    K: Resource + Send + 'static,
    T: Fact,
    S: Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
{
    let (trigger, stop) = (trigger.clone(), stop.clone());
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(watch.default_backoff());
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    filler.take(&event, &read);
                    match &event {
                        Event::Apply(object) | Event::Delete(object) | Event::InitApply(object) => {
                            if let Some(fleet) = fleet_of(object.meta()) {
                                // The receiver ends with the process.
                                let _ = trigger.unbounded_send(fleet);
                            }
                        }
                        Event::InitDone => ready.store(true, Ordering::Release),
                        Event::Init => {}
                    }
                }
                // With a back-off the stream goes on by itself, from a new list where the old version has expired.
                Some(Err(watcher::Error::WatchError(status))) if status.code == 410 => debug!("a watch expired"),
                Some(Err(error)) => warn!(%error, kind = std::any::type_name::<K>(), "a watch failed"),
                None => return,
            }
        }
    });
}

/// The fleet that an object belongs to.
fn fleet_of(meta: &ObjectMeta) -> Option<ObjectRef<Guarded>> {
    let name = meta.labels.as_ref()?.get(FLEET_LABEL)?;
    Some(ObjectRef::new(name).within(meta.namespace.as_deref()?))
}

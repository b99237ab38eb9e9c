//! What the API server has, kept up to date by watches. Only what is needed is kept: of most objects the metadata.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::channel::mpsc::UnboundedSender;
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::{DynamicObject, PartialObjectMeta};
use kube::core::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::build::{FLEET_LABEL, HASH_ANNOTATION, MANAGER};
use crate::kinds::Kind;
use crate::reconcile::Guarded;
use crate::shelf::{Filler, Shelf};
use crate::writer::{Live, token};

type Meta = PartialObjectMeta<DynamicObject>;

/// All watched objects.
#[derive(Clone)]
pub struct Caches {
    /// Pods of fleets, without what their specification says about containers.
    pub pods: Shelf<Pod>,
    /// Deployments of fleets, without their pod templates.
    pub deployments: Shelf<Deployment>,
    /// StatefulSets of fleets, without their pod templates.
    pub stateful_sets: Shelf<StatefulSet>,
    metadata: Arc<BTreeMap<Kind, Shelf<Meta>>>,
    watches: Arc<Vec<(String, Arc<AtomicBool>)>>,
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
        let ours = watcher::Config::default().labels(&format!("app.kubernetes.io/managed-by={MANAGER}"));
        let of_fleet = watcher::Config::default().labels(FLEET_LABEL);

        let (pods, filler) = Shelf::new(());
        let stream = watcher(api::<Pod>(client, namespace), of_fleet).default_backoff().modify(slim_pod);
        spawn(stream, filler, trigger, stop, ready("pods"));
        let (deployments, filler) = Shelf::new(());
        let stream = watcher(api::<Deployment>(client, namespace), ours.clone()).default_backoff().modify(|deployment| {
            deployment.metadata.managed_fields = None;
            deployment.spec.template.spec = None;
        });
        spawn(stream, filler, trigger, stop, ready("deployments"));
        let (stateful_sets, filler) = Shelf::new(());
        let stream = watcher(api::<StatefulSet>(client, namespace), ours.clone()).default_backoff().modify(|set| {
            set.metadata.managed_fields = None;
            set.spec.template.spec = None;
        });
        spawn(stream, filler, trigger, stop, ready("statefulsets"));

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
            let (shelf, filler) = Shelf::new(resource);
            metadata.insert(kind, shelf);
            let stream = watcher(api, ours.clone()).default_backoff().modify(|object| object.metadata.managed_fields = None);
            spawn(stream, filler, trigger, stop, ready(kind.plural()));
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
            Kind::Deployment => self.deployments.get(namespace, name).map(|found| live(&found.metadata)),
            Kind::StatefulSet => self.stateful_sets.get(namespace, name).map(|found| live(&found.metadata)),
            _ => self.metadata.get(&kind)?.get(namespace, name).map(|found| live(&found.metadata)),
        }
    }

    /// All objects of a fleet, by kind and name.
    pub fn of_fleet(&self, namespace: &str, fleet: &str, uid: &str) -> Vec<(Kind, String, Live)> {
        let mut found = Vec::new();
        let mut keep = |kind, meta: &ObjectMeta| {
            if belongs(meta, fleet, uid) {
                found.push((kind, meta.name.clone().unwrap_or_default(), live(meta)));
            }
        };
        self.deployments.of_fleet(namespace, fleet).iter().for_each(|object| keep(Kind::Deployment, &object.metadata));
        self.stateful_sets.of_fleet(namespace, fleet).iter().for_each(|object| keep(Kind::StatefulSet, &object.metadata));
        for (kind, shelf) in self.metadata.iter() {
            shelf.of_fleet(namespace, fleet).iter().for_each(|object| keep(*kind, &object.metadata));
        }
        found
    }
}

/// Whether an object is a fleet's own: by label and by owner.
pub fn belongs(meta: &ObjectMeta, fleet: &str, uid: &str) -> bool {
    let labelled = meta.labels.as_ref().and_then(|labels| labels.get(FLEET_LABEL)).is_some_and(|name| name == fleet);
    labelled && meta.owner_references.iter().flatten().any(|owner| owner.uid == uid)
}

fn live(meta: &ObjectMeta) -> Live {
    Live {
        uid: meta.uid.clone().unwrap_or_default(),
        hash: meta.annotations.as_ref().and_then(|all| all.get(HASH_ANNOTATION)).cloned(),
        token: token(meta),
        deleting: meta.deletion_timestamp.is_some(),
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

fn slim_pod(pod: &mut Pod) {
    pod.metadata.managed_fields = None;
    if let Some(spec) = &mut pod.spec {
        *spec = PodSpec { node_name: spec.node_name.take(), ..PodSpec::default() };
    }
    if let Some(status) = &mut pod.status {
        status.container_statuses = status.container_statuses.take().map(|mut all| {
            for one in &mut all {
                one.image.clear();
                one.image_id.clear();
                one.volume_mounts = None;
            }
            all
        });
        status.init_container_statuses = None;
    }
}

fn spawn<K, S>(stream: S, mut filler: Filler<K>, trigger: &Trigger, stop: &CancellationToken, ready: Arc<AtomicBool>)
where
    K: Resource + Clone + Send + Sync + 'static,
    K::DynamicType: Clone + Eq + std::hash::Hash + Send + Sync + 'static,
    S: Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
{
    let (trigger, stop) = (trigger.clone(), stop.clone());
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = stream.next() => event,
            };
            match event {
                Some(Ok(event)) => {
                    filler.take(&event);
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

//! A watched kind of objects with an index by fleet, so that a look at one fleet costs the same among a thousand others.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Resource;
use kube::core::ObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;

use crate::build::FLEET_LABEL;

/// Names of objects by namespace and fleet.
type Index = HashMap<(String, String), BTreeSet<String>>;

/// The objects of one kind. Cheap to clone.
#[derive(Clone)]
pub struct Shelf<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Clone + Eq + Hash,
{
    store: Store<K>,
    kind: K::DynamicType,
    /// May name what is gone, never lacks what is there: the store has the last word.
    index: Arc<Mutex<Index>>,
}

impl<K> Shelf<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Clone + Eq + Hash,
{
    /// An empty one, and what fills it.
    pub fn new(kind: K::DynamicType) -> (Self, Filler<K>) {
        let writer = Writer::new(kind.clone());
        let shelf = Self { store: writer.as_reader(), kind, index: Arc::default() };
        (shelf.clone(), Filler { writer, shelf })
    }

    /// All objects.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// The object of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new_with(name, self.kind.clone()).within(namespace))
    }

    /// The objects that have this fleet's label.
    pub fn of_fleet(&self, namespace: &str, fleet: &str) -> Vec<Arc<K>> {
        let names = {
            let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
            index.get(&(namespace.to_owned(), fleet.to_owned())).cloned().unwrap_or_default()
        };
        let labelled = |object: &Arc<K>| fleet_label(object.meta()) == Some(fleet);
        names.iter().filter_map(|name| self.get(namespace, name)).filter(labelled).collect()
    }
}

/// Fills a shelf from a watch.
pub struct Filler<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Clone + Eq + Hash,
{
    writer: Writer<K>,
    shelf: Shelf<K>,
}

impl<K> Filler<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Clone + Eq + Hash,
{
    /// Takes an event of the watch. The index learns of new objects before the store does, and of lost ones after it.
    pub fn take(&mut self, event: &Event<K>) {
        if let Event::Apply(object) | Event::InitApply(object) = event {
            insert(&mut self.shelf.index.lock().unwrap_or_else(PoisonError::into_inner), object.meta());
        }
        self.writer.apply_watcher_event(event);
        match event {
            Event::Delete(object) => {
                let mut index = self.shelf.index.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((key, name)) = entry(object.meta())
                    && let Some(names) = index.get_mut(&key)
                {
                    names.remove(&name);
                    if names.is_empty() {
                        index.remove(&key);
                    }
                }
            }
            // A new list: what is not in it is gone, although no event said so.
            Event::InitDone => {
                let mut fresh = Index::new();
                self.shelf.store.state().iter().for_each(|object| insert(&mut fresh, object.meta()));
                *self.shelf.index.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
            }
            _ => {}
        }
    }
}

fn insert(index: &mut Index, meta: &ObjectMeta) {
    if let Some((key, name)) = entry(meta) {
        index.entry(key).or_default().insert(name);
    }
}

fn entry(meta: &ObjectMeta) -> Option<((String, String), String)> {
    Some(((meta.namespace.clone()?, fleet_label(meta)?.to_owned()), meta.name.clone()?))
}

fn fleet_label(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(FLEET_LABEL).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, fleet: &str) -> Pod {
        let labels = [(FLEET_LABEL.to_owned(), fleet.to_owned())].into();
        let meta = ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        Pod { metadata: meta, ..Pod::default() }
    }

    fn names(shelf: &Shelf<Pod>, fleet: &str) -> Vec<String> {
        shelf.of_fleet("ns", fleet).iter().filter_map(|pod| pod.metadata.name.clone()).collect()
    }

    #[test]
    fn a_fleet_sees_its_own_objects_through_changes_and_new_lists() {
        let (shelf, mut filler) = Shelf::<Pod>::new(());
        filler.take(&Event::Init);
        for (name, fleet) in [("a-1", "a"), ("a-2", "a"), ("b-1", "b")] {
            filler.take(&Event::InitApply(pod(name, fleet)));
        }
        filler.take(&Event::InitDone);
        assert_eq!((names(&shelf, "a"), names(&shelf, "b")), (vec!["a-1".into(), "a-2".into()], vec!["b-1".into()]));
        filler.take(&Event::Apply(pod("a-3", "a")));
        filler.take(&Event::Delete(pod("a-1", "a")));
        filler.take(&Event::Apply(pod("a-2", "b"))); // somebody gave it another label
        assert_eq!((names(&shelf, "a"), names(&shelf, "b")), (vec!["a-3".into()], vec!["a-2".into(), "b-1".into()]));
        filler.take(&Event::Init);
        filler.take(&Event::InitApply(pod("a-3", "a")));
        filler.take(&Event::InitDone);
        assert_eq!((names(&shelf, "a"), names(&shelf, "b")), (vec!["a-3".into()], vec![]));
        assert_eq!(shelf.index.lock().expect("not poisoned").len(), 1, "nothing is kept of what is gone");
    }
}

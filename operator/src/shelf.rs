//! A watched kind of objects with an index by fleet, so that a look at one fleet costs the same among a thousand others.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::watcher::Event;

use crate::facts::Fact;

/// A namespace and a name in it.
type Place = (String, String);

/// The objects of one kind. Cheap to clone.
pub struct Shelf<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

impl<T> Clone for Shelf<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<T> {
    objects: HashMap<Place, Arc<T>>,
    /// Names of objects by namespace and fleet.
    index: HashMap<Place, BTreeSet<String>>,
}

impl<T> Default for Inner<T> {
    fn default() -> Self {
        Self { objects: HashMap::new(), index: HashMap::new() }
    }
}

impl<T: Fact> Inner<T> {
    fn insert(&mut self, object: T) {
        let facts = object.facts();
        let place = (facts.namespace.clone(), facts.name.clone());
        // Somebody may have given it another label.
        self.remove(&place);
        if let Some(fleet) = &facts.fleet {
            self.index.entry((place.0.clone(), fleet.clone())).or_default().insert(place.1.clone());
        }
        self.objects.insert(place, Arc::new(object));
    }

    fn remove(&mut self, place: &Place) {
        let Some(gone) = self.objects.remove(place) else { return };
        let Some(fleet) = &gone.facts().fleet else { return };
        let key = (place.0.clone(), fleet.clone());
        if let Some(names) = self.index.get_mut(&key) {
            names.remove(&place.1);
            if names.is_empty() {
                self.index.remove(&key);
            }
        }
    }
}

impl<T: Fact> Shelf<T> {
    /// An empty one, and what fills it.
    pub fn new() -> (Self, Filler<T>) {
        let shelf = Self { inner: Arc::default() };
        (shelf.clone(), Filler { shelf, listing: None })
    }

    fn with<R>(&self, act: impl FnOnce(&mut Inner<T>) -> R) -> R {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.with(|inner| inner.objects.values().cloned().collect())
    }

    /// The object of this name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.with(|inner| inner.objects.get(&(namespace.to_owned(), name.to_owned())).cloned())
    }

    /// The objects that have this fleet's label, by name.
    pub fn of_fleet(&self, namespace: &str, fleet: &str) -> Vec<Arc<T>> {
        self.with(|inner| {
            let names = inner.index.get(&(namespace.to_owned(), fleet.to_owned())).into_iter().flatten();
            names.filter_map(|name| inner.objects.get(&(namespace.to_owned(), name.clone())).cloned()).collect()
        })
    }
}

/// Fills a shelf from a watch.
pub struct Filler<T> {
    shelf: Shelf<T>,
    /// A new list, until it is complete.
    listing: Option<Inner<T>>,
}

impl<T: Fact> Filler<T> {
    /// Takes an event of the watch, read by `read`.
    pub fn take<K>(&mut self, event: &Event<K>, read: impl Fn(&K) -> Option<T>) {
        match event {
            Event::Apply(object) => {
                if let Some(object) = read(object) {
                    self.shelf.with(|inner| inner.insert(object));
                }
            }
            Event::Delete(object) => {
                if let Some(object) = read(object) {
                    let facts = object.facts();
                    let place = (facts.namespace.clone(), facts.name.clone());
                    self.shelf.with(|inner| inner.remove(&place));
                }
            }
            Event::Init => self.listing = Some(Inner::default()),
            Event::InitApply(object) => {
                if let Some(object) = read(object) {
                    self.listing.get_or_insert_default().insert(object);
                }
            }
            // What is not in the new list is gone, although no event said so. Until here, the old one was the better answer.
            Event::InitDone => {
                let fresh = self.listing.take().unwrap_or_default();
                self.shelf.with(|inner| *inner = fresh);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;
    use crate::build::FLEET_LABEL;
    use crate::facts::Facts;

    fn object(name: &str, fleet: &str) -> ObjectMeta {
        let labels = [(FLEET_LABEL.to_owned(), fleet.to_owned())].into();
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("ns".to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        }
    }

    fn names(shelf: &Shelf<Facts>, fleet: &str) -> Vec<String> {
        shelf.of_fleet("ns", fleet).iter().map(|found| found.name.clone()).collect()
    }

    #[test]
    fn a_fleet_sees_its_own_objects_through_changes_and_new_lists() {
        let (shelf, mut filler) = Shelf::<Facts>::new();
        let mut take = |event: Event<ObjectMeta>| filler.take(&event, Facts::of);
        take(Event::Init);
        for (name, fleet) in [("a-1", "a"), ("a-2", "a"), ("b-1", "b")] {
            take(Event::InitApply(object(name, fleet)));
        }
        assert!(shelf.all().is_empty(), "half a list says of nothing that it is gone");
        take(Event::InitDone);
        assert_eq!((names(&shelf, "a"), names(&shelf, "b")), (vec!["a-1".into(), "a-2".into()], vec!["b-1".into()]));
        take(Event::Apply(object("a-3", "a")));
        take(Event::Delete(object("a-1", "a")));
        take(Event::Apply(object("a-2", "b"))); // somebody gave it another label
        assert_eq!((names(&shelf, "a"), names(&shelf, "b")), (vec!["a-3".into()], vec!["a-2".into(), "b-1".into()]));
        assert!(shelf.get("ns", "a-1").is_none() && shelf.get("ns", "a-2").is_some() && shelf.get("other", "a-2").is_none());
        take(Event::Init);
        take(Event::InitApply(object("a-3", "a")));
        assert_eq!(names(&shelf, "b"), ["a-2", "b-1"], "the old list holds until the new one is complete");
        take(Event::InitDone);
        assert_eq!((names(&shelf, "a"), names(&shelf, "b")), (vec!["a-3".into()], vec![]));
        assert_eq!((shelf.all().len(), shelf.with(|inner| inner.index.len())), (1, 1), "nothing is kept of what is gone");
    }
}

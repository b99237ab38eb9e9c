//! The only way to the API server for what is written. Each write asks first whether this process still leads.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::{Api, Client};
use serde_json::{Value, json};
use tracing::debug;

use crate::build::{FLEET_LABEL, HASH_ANNOTATION, MANAGER, Object, hash};
use crate::error::Error;
use crate::kinds::Kind;
use crate::lease::Leadership;
use crate::metrics::Metrics;

/// How long a watch may lag behind our own write. Afterwards what it shows is believed.
const CATCH_UP: Duration = Duration::from_secs(2);

/// What we wrote last.
#[derive(Debug, Clone)]
struct Entry {
    /// The token afterwards: while it stays, nobody has changed the object.
    token: String,
    /// The hash of what was applied.
    hash: String,
    at: Instant,
}

/// The entries of a fleet's objects, by kind and name.
type Entries = HashMap<(Kind, String), Entry>;

/// What is known of an object from a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its uid.
    pub uid: String,
    /// The hash that was applied last.
    pub hash: Option<String>,
    /// Changes when somebody changes its specification: the generation where the kind has one, else the resource version.
    pub token: String,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// Writes.
pub struct Writer {
    client: Client,
    leadership: Leadership,
    metrics: Metrics,
    /// Our last write of each object, by namespace and fleet.
    ledger: Mutex<HashMap<(String, String), Entries>>,
    /// Writes left before this process aborts, in tests.
    writes_left: Option<AtomicU64>,
}

impl Writer {
    /// A writer for a client.
    pub fn new(client: Client, leadership: Leadership, metrics: Metrics, abort_after_writes: Option<u64>) -> Self {
        let writes_left = abort_after_writes.map(AtomicU64::new);
        Self { client, leadership, metrics, ledger: Mutex::default(), writes_left }
    }

    /// Refuses when this process does not lead.
    fn begin(&self, verb: &str, what: &str) -> Result<(), Error> {
        if !self.leadership.holds() {
            return Err(Error::LeadershipLost);
        }
        if let Some(left) = &self.writes_left
            && left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_err()
        {
            // As a crash would: nothing is cleaned up, nothing is given back.
            std::process::abort();
        }
        self.metrics.writes.with_label_values(&[verb, what]).inc();
        Ok(())
    }

    /// Notes how long the server took.
    fn took(&self, verb: &str, began: Instant) {
        self.metrics.write_seconds.with_label_values(&[verb]).observe(began.elapsed().as_secs_f64());
    }

    fn api(&self, kind: Kind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.api_resource())
    }

    /// Applies an object, unless the live one is what we applied last and nobody has changed it since. Returns whether the
    /// object is another than before.
    ///
    /// # Errors
    /// What the server says, or that this process does not lead.
    pub async fn apply(&self, namespace: &str, mut object: Object, live: Option<&Live>) -> Result<bool, Error> {
        let sum = hash(&object.body);
        let fleet = (namespace.to_owned(), fleet_of(&object.body));
        let key = (object.kind, object.name.clone());
        let known = self.ledger.lock().ok().and_then(|ledger| ledger.get(&fleet)?.get(&key).cloned());
        if let Some(known) = known {
            match standing(&known, &sum, live, known.at.elapsed()) {
                Standing::Current => return Ok(false),
                // The look that this write was made by is not over for its caller: it looks again soon.
                Standing::OnItsWay => return Ok(true),
                Standing::Due => {}
            }
        }
        annotate(&mut object.body, &sum);
        let what = format!("apply {} {namespace}/{}", object.kind.name(), object.name);
        self.begin("apply", object.kind.name())?;
        let parameters = PatchParams::apply(MANAGER).force();
        let api = self.api(object.kind, namespace);
        let began = Instant::now();
        let written = api.patch(&object.name, &parameters, &Patch::Apply(&object.body)).await;
        self.took("apply", began);
        let written = written.map_err(|error| Error::api(what, error))?;
        debug!(kind = object.kind.name(), namespace, name = object.name, "applied");
        let token = token(&written.metadata);
        let changed = live.is_none_or(|live| live.token != token);
        if let Ok(mut ledger) = self.ledger.lock() {
            ledger.entry(fleet).or_default().insert(key, Entry { token, hash: sum, at: Instant::now() });
        }
        Ok(changed)
    }

    /// Deletes an object, if it is still the one that was seen.
    ///
    /// # Errors
    /// What the server says; that it is gone already is none.
    pub async fn delete(&self, kind: Kind, namespace: &str, name: &str, uid: &str) -> Result<(), Error> {
        self.begin("delete", kind.name())?;
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            ..DeleteParams::default()
        };
        if let Ok(mut ledger) = self.ledger.lock() {
            let key = (kind, name.to_owned());
            for (_, entries) in ledger.iter_mut().filter(|((of, _), _)| of == namespace) {
                entries.remove(&key);
            }
        }
        let began = Instant::now();
        let deleted = self.api(kind, namespace).delete(name, &parameters).await;
        self.took("delete", began);
        match deleted {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(Error::api(format!("delete {} {namespace}/{name}", kind.name()), error)),
        }
    }

    /// Creates a Secret that must not be overwritten.
    ///
    /// # Errors
    /// What the server says; a conflict when it is there already.
    pub async fn create(&self, kind: Kind, namespace: &str, body: &Value) -> Result<(), Error> {
        self.begin("create", kind.name())?;
        let object: DynamicObject = serde_json::from_value(body.clone())
            .map_err(|error| Error::Build(crate::build::BuildError::Json(error.to_string())))?;
        let created = self.api(kind, namespace).create(&kube::api::PostParams::default(), &object).await;
        created.map(|_| ()).map_err(|error| Error::api(format!("create {} in {namespace}", kind.name()), error))
    }

    /// Reads an object by name.
    ///
    /// # Errors
    /// What the server says.
    pub async fn read(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<DynamicObject>, Error> {
        let read = self.api(kind, namespace).get_opt(name).await;
        read.map_err(|error| Error::api(format!("read {} {namespace}/{name}", kind.name()), error))
    }

    /// Changes some fields of an object.
    ///
    /// # Errors
    /// What the server says.
    pub async fn merge(&self, kind: Kind, namespace: &str, name: &str, body: &Value) -> Result<(), Error> {
        self.begin("merge", kind.name())?;
        let merged = self.api(kind, namespace).patch(name, &PatchParams::default(), &Patch::Merge(body)).await;
        merged.map(|_| ()).map_err(|error| Error::api(format!("change {} {namespace}/{name}", kind.name()), error))
    }

    /// Says which pods of a Deployment go first when it shrinks.
    ///
    /// # Errors
    /// What the server says; that the pod is gone is none.
    pub async fn deletion_cost(&self, namespace: &str, pod: &str, cost: i32) -> Result<(), Error> {
        self.begin("merge", "Pod")?;
        let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), namespace);
        let body = json!({ "metadata": { "annotations": { "controller.kubernetes.io/pod-deletion-cost": cost.to_string() } } });
        match api.patch(pod, &PatchParams::default(), &Patch::Merge(&body)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(Error::api(format!("annotate Pod {namespace}/{pod}"), error)),
        }
    }

    /// Writes the status of a fleet.
    ///
    /// # Errors
    /// What the server says.
    pub async fn status(&self, namespace: &str, name: &str, status: &Value) -> Result<(), Error> {
        self.begin("apply", "UpgraderFleet/status")?;
        let api: Api<fleet_api::UpgraderFleet> = Api::namespaced(self.client.clone(), namespace);
        let body = json!({ "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet", "status": status });
        let parameters = PatchParams::apply(MANAGER).force();
        let began = Instant::now();
        let written = api.patch_status(name, &parameters, &Patch::Apply(&body)).await;
        self.took("status", began);
        written.map(|_| ()).map_err(|error| Error::api(format!("write the status of {namespace}/{name}"), error))
    }

    /// Whether this process leads, for what is written elsewhere.
    ///
    /// # Errors
    /// When it does not.
    pub fn permit(&self, verb: &str, what: &str) -> Result<(), Error> {
        self.begin(verb, what)
    }

    /// Forgets a fleet's objects.
    pub fn forget(&self, namespace: &str, fleet: &str) {
        if let Ok(mut ledger) = self.ledger.lock() {
            ledger.remove(&(namespace.to_owned(), fleet.to_owned()));
        }
    }
}

/// How what is to be applied stands to what we wrote last and what the watch shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The object is as wanted.
    Current,
    /// We have just written it so, and the watch does not show it yet.
    OnItsWay,
    /// To be written.
    Due,
}

fn standing(known: &Entry, hash: &str, live: Option<&Live>, age: Duration) -> Standing {
    if known.hash != hash {
        return Standing::Due;
    }
    if live.is_some_and(|live| live.hash.as_deref() == Some(hash) && live.token == known.token) {
        return Standing::Current;
    }
    // Generations and resource versions are numbers that grow: a larger one than ours is somebody's change.
    let number = |token: &str| token.parse::<u64>().ok();
    let behind = live.is_none_or(|live| match (number(&live.token), number(&known.token)) {
        (Some(live), Some(known)) => live < known,
        _ => false,
    });
    if behind && age < CATCH_UP { Standing::OnItsWay } else { Standing::Due }
}

fn fleet_of(body: &Value) -> String {
    let label = body.pointer("/metadata/labels").and_then(|labels| labels.get(FLEET_LABEL));
    label.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn annotate(body: &mut Value, sum: &str) {
    if let Some(meta) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = meta.entry("annotations").or_insert_with(|| json!({}));
        annotations[HASH_ANNOTATION] = sum.into();
    }
}

/// What changes when somebody changes an object's specification.
pub fn token(meta: &kube::api::ObjectMeta) -> String {
    match meta.generation {
        Some(generation) if generation > 0 => generation.to_string(),
        _ => meta.resource_version.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_just_written_is_not_written_again_and_what_others_change_is() {
        let known = Entry { token: "9".to_owned(), hash: "a".to_owned(), at: Instant::now() };
        let live = |token: &str, hash: &str| Live {
            uid: "u".to_owned(),
            hash: Some(hash.to_owned()),
            token: token.to_owned(),
            deleting: false,
        };
        let (young, old) = (Duration::from_millis(100), Duration::from_secs(3));
        assert_eq!(standing(&known, "a", Some(&live("9", "a")), old), Standing::Current);
        assert_eq!(standing(&known, "a", Some(&live("8", "b")), young), Standing::OnItsWay);
        assert_eq!(standing(&known, "a", None, young), Standing::OnItsWay);
        // The watch has had its time: the object is gone, or is what it shows.
        assert_eq!(standing(&known, "a", None, old), Standing::Due);
        assert_eq!(standing(&known, "a", Some(&live("8", "b")), old), Standing::Due);
        // Numbers are compared, not texts.
        assert_eq!(standing(&known, "a", Some(&live("10", "a")), young), Standing::Due);
        assert_eq!(standing(&known, "b", Some(&live("9", "a")), young), Standing::Due);
    }
}

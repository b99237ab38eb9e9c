//! The secrets of a fleet: the token by which upgraders open provers, and what upgraders choose alike with.
//!
//! Made once and then only rotated: a Secret that is there is never overwritten. After a rotation the old token stays valid until
//! the next, so that pods which have not read the new one yet go on working.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rand::RngExt;
use serde_json::{Value, json};

use crate::build::{BuildError, Fleet};
use crate::certificate::{self, CertificateError, Pem};
use crate::error::{Class, Error};
use crate::kinds::Kind;
use crate::writer::Writer;

/// Annotation with the time of the last rotation.
const ROTATED: &str = "upgrader-fleet.dev/rotated-at";

/// The tokens of all fleets, for our own questions to prover pods.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<Mutex<HashMap<(String, String), String>>>);

impl Tokens {
    /// A fleet's token, once it has been read.
    pub fn get(&self, namespace: &str, fleet: &str) -> Option<String> {
        self.0.lock().ok()?.get(&(namespace.to_owned(), fleet.to_owned())).cloned()
    }

    fn set(&self, namespace: &str, fleet: &str, token: String) {
        if let Ok(mut tokens) = self.0.lock() {
            tokens.insert((namespace.to_owned(), fleet.to_owned()), token);
        }
    }

    /// Forgets a fleet.
    pub fn forget(&self, namespace: &str, fleet: &str) {
        if let Ok(mut tokens) = self.0.lock() {
            tokens.remove(&(namespace.to_owned(), fleet.to_owned()));
        }
    }
}

/// Makes the Secret when it is missing, completes it when a part is, rotates the token when it is due. That of a fleet which is
/// `new` is made without looking: if somebody else has made it, the server says so.
///
/// # Errors
/// What the server says.
pub async fn ensure(writer: &Writer, tokens: &Tokens, fleet: &Fleet<'_>, every: Duration, new: bool) -> Result<(), Error> {
    let name = fleet.token_secret();
    let now = Timestamp::now();
    if new {
        match create(writer, tokens, fleet, every, now).await {
            Err(error) if error.class() == Class::Conflict => {}
            made => return made,
        }
    }
    let Some(found) = writer.read(Kind::Secret, fleet.namespace, &name).await? else {
        return create(writer, tokens, fleet, every, now).await;
    };
    if is_anothers(&found.metadata, &crate::build::uid(fleet.resource)) {
        // The garbage collector takes it soon; pods that mount it meanwhile would lose it.
        return Err(Error::Leftover(format!("Secret {}/{name}", fleet.namespace)));
    }
    let data: BTreeMap<String, String> = decode(found.data.get("data"));
    let rotated = found.metadata.annotations.as_ref().and_then(|all| all.get(ROTATED)?.parse::<Timestamp>().ok());
    let (mut change, token) = due(&data, rotated, now, every);
    let is_due = rotated.is_some_and(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default() >= every);
    if let Some(certificates) = certificates(fleet, &data, is_due, every)?
        && let Some(map) = change.get_or_insert_with(|| json!({})).as_object_mut()
    {
        map.extend(certificates);
    }
    if let Some(change) = change {
        let annotations = json!({ ROTATED: now.to_string() });
        let body = json!({ "metadata": { "annotations": annotations }, "stringData": change });
        writer.merge(Kind::Secret, fleet.namespace, &name, &body).await?;
    }
    tokens.set(fleet.namespace, fleet.name, token);
    Ok(())
}

/// Makes a new Secret; a conflict where there is one.
async fn create(writer: &Writer, tokens: &Tokens, fleet: &Fleet<'_>, every: Duration, now: Timestamp) -> Result<(), Error> {
    let token = random();
    let mut data = json!({ "token": token, "tokens": format!("{token}\n"), "fleet-secret": random() });
    if let (Some(certificates), Some(map)) = (certificates(fleet, &BTreeMap::new(), true, every)?, data.as_object_mut()) {
        map.extend(certificates);
    }
    let mut body = fleet.secret(&fleet.token_secret());
    body["metadata"]["annotations"] = json!({ ROTATED: now.to_string() });
    body["stringData"] = data;
    writer.create(Kind::Secret, fleet.namespace, &body).await?;
    tokens.set(fleet.namespace, fleet.name, token);
    Ok(())
}

/// Whether an object belongs to a fleet that had this name before.
fn is_anothers(meta: &kube::core::ObjectMeta, uid: &str) -> bool {
    let mut owners = meta.owner_references.iter().flatten().filter(|owner| owner.kind == "UpgraderFleet").peekable();
    meta.deletion_timestamp.is_some() || owners.peek().is_some() && owners.all(|owner| owner.uid != uid)
}

/// New certificates, where the fleet's jobs hold secrets, and there are none or they are due.
fn certificates(
    fleet: &Fleet<'_>,
    data: &BTreeMap<String, String>,
    due: bool,
    every: Duration,
) -> Result<Option<serde_json::Map<String, Value>>, Error> {
    let has = |key: &str| data.get(key).is_some_and(|text| !text.trim().is_empty());
    let complete = ["ca.crt", "tls.crt", "tls.key"].into_iter().all(has);
    // A Secret with certificates and without the authority's key is a person's, or cert-manager's: never changed.
    if !fleet.needs_tls() || complete && (!due || !has("ca.key")) {
        return Ok(None);
    }
    let failed = |error: CertificateError| Error::Build(BuildError::Certificate(error.to_string()));
    let authority = match (data.get("ca.crt"), data.get("ca.key")) {
        (Some(certificate), Some(key)) => Pem { certificate: certificate.clone(), key: key.clone() },
        _ => certificate::authority(fleet.name).map_err(failed)?,
    };
    let names = certificate::service_names(&fleet.provers_service(), fleet.namespace);
    // Twice the time between rotations: a pod that has not read the new one goes on working.
    let leaf = certificate::certificate(fleet.name, &authority.key, names, every * 2).map_err(failed)?;
    let mut map = serde_json::Map::new();
    for (key, text) in
        [("ca.crt", authority.certificate), ("ca.key", authority.key), ("tls.crt", leaf.certificate), ("tls.key", leaf.key)]
    {
        map.insert(key.to_owned(), text.into());
    }
    Ok(Some(map))
}

/// What has to change, and the token that holds afterwards. A Secret without a time of rotation is a person's: it is completed,
/// never rotated.
fn due(
    data: &BTreeMap<String, String>,
    rotated: Option<Timestamp>,
    now: Timestamp,
    every: Duration,
) -> (Option<Value>, String) {
    let old = data.get("token").map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
    let age = rotated.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default());
    let mut change = serde_json::Map::new();
    let token = match &old {
        Some(old) if age.is_none_or(|age| age < every) => {
            if data.get("tokens").is_none_or(|tokens| !tokens.lines().any(|line| line.trim() == old)) {
                change.insert("tokens".to_owned(), format!("{old}\n").into());
            }
            old.clone()
        }
        _ => {
            let new = random();
            let tokens = old.iter().fold(format!("{new}\n"), |all, old| format!("{all}{old}\n"));
            change.insert("token".to_owned(), new.clone().into());
            change.insert("tokens".to_owned(), tokens.into());
            new
        }
    };
    if data.get("fleet-secret").is_none_or(|secret| secret.trim().len() < 32) {
        change.insert("fleet-secret".to_owned(), random().into());
    }
    ((!change.is_empty()).then_some(Value::Object(change)), token)
}

/// 256 random bits as hexadecimal digits.
fn random() -> String {
    let bytes: [u8; 32] = rand::rng().random();
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The data of a Secret.
fn decode(data: Option<&Value>) -> BTreeMap<String, String> {
    let Some(Value::Object(map)) = data else { return BTreeMap::new() };
    let read = |value: &Value| {
        let bytes: k8s_openapi::ByteString = serde_json::from_value(value.clone()).ok()?;
        String::from_utf8(bytes.0).ok()
    };
    map.iter().filter_map(|(key, value)| Some((key.clone(), read(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONTH: Duration = Duration::from_hours(720);

    fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_young_secret_stays_as_it_is() {
        let secret = "s".repeat(32);
        let whole = data(&[("token", "a"), ("tokens", "a\n"), ("fleet-secret", &secret)]);
        assert_eq!(due(&whole, Some(at(0)), at(100), MONTH), (None, "a".to_owned()));
        // A person's own, however old.
        assert_eq!(due(&whole, None, at(1_000_000_000), MONTH), (None, "a".to_owned()));
    }

    #[test]
    fn a_rotation_keeps_the_old_token_valid_and_the_fleets_secret_as_it_is() {
        let secret = "s".repeat(32);
        let whole = data(&[("token", "b"), ("tokens", "b\na\n"), ("fleet-secret", &secret)]);
        let (change, token) = due(&whole, Some(at(0)), at(MONTH.as_secs() as i64), MONTH);
        let change = change.expect("a change");
        assert_eq!(change["tokens"], format!("{token}\nb\n"));
        assert_eq!((change["token"].as_str(), change.get("fleet-secret"), token.len()), (Some(token.as_str()), None, 64));
    }

    #[test]
    fn the_secret_of_a_fleet_that_was_deleted_is_not_taken_over() {
        use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
        let owned = |uids: &[&str]| kube::core::ObjectMeta {
            owner_references: Some(
                uids.iter()
                    .map(|uid| OwnerReference {
                        kind: "UpgraderFleet".to_owned(),
                        uid: (*uid).to_owned(),
                        ..OwnerReference::default()
                    })
                    .collect(),
            ),
            ..kube::core::ObjectMeta::default()
        };
        assert!(is_anothers(&owned(&["old"]), "new"));
        assert!(!is_anothers(&owned(&["new"]), "new"));
        assert!(!is_anothers(&owned(&[]), "new"), "a person's");
    }

    #[test]
    fn what_is_missing_is_completed() {
        let (change, token) = due(&data(&[("token", "theirs")]), None, at(0), MONTH);
        let change = change.expect("a change");
        assert_eq!((token.as_str(), &change["tokens"]), ("theirs", &json!("theirs\n")));
        assert_eq!(change["fleet-secret"].as_str().map(str::len), Some(64));
        assert_eq!(change.get("token"), None);
    }
}

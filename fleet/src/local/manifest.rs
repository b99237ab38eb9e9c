//! The manifest: YAML to an `UpgraderFleet` that breaks no rule, or everything that is wrong with it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use fleet_api::UpgraderFleet;
use fleet_api::v1alpha1::Violation;
use serde::Deserialize;
use serde_json::Value;

/// What an API server takes, and more than any manifest needs.
const MAX_BYTES: u64 = 1 << 20;

/// The version of the resource that this program knows.
pub const API_VERSION: &str = "upgrader-fleet.dev/v1alpha1";

const KIND: &str = "UpgraderFleet";

/// A fleet as written, and what else its file has.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The fleet.
    pub fleet: UpgraderFleet,
    /// Kinds of the other documents, which are Kubernetes' business.
    pub others: Vec<String>,
}

/// Why a manifest is no fleet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The file system says no.
    #[error("cannot read {name}")]
    Read {
        /// The file.
        name: String,
        /// What it says.
        source: io::Error,
    },
    /// Larger than any manifest.
    #[error("{0}: larger than 1 MiB, which no manifest is")]
    TooLarge(String),
    /// No YAML.
    #[error("{name}: not YAML: {reason}")]
    Syntax {
        /// The file.
        name: String,
        /// What the parser says, with the line.
        reason: String,
    },
    /// No document is a fleet.
    #[error("{name}: no document of kind {}; {}", KIND, found(.kinds))]
    NoFleet {
        /// The file.
        name: String,
        /// What there is instead.
        kinds: Vec<String>,
    },
    /// More than one is.
    #[error("{name}: {} fleets ({}); fleet local runs one: put each into a file of its own and give each a --dir", .fleets.len(), .fleets.join(", "))]
    Several {
        /// The file.
        name: String,
        /// Their names.
        fleets: Vec<String>,
    },
    /// A fleet of another version.
    #[error("{name}: apiVersion is {found:?}; this program knows {}", API_VERSION)]
    Version {
        /// The file.
        name: String,
        /// What is written.
        found: String,
    },
    /// A field of the wrong type, or one that is missing.
    #[error("{name}: {reason}")]
    Field {
        /// The file.
        name: String,
        /// The field, what is wrong with it, and the line.
        reason: String,
    },
    /// It breaks rules.
    #[error("{name} cannot be run:{}", listed(.violations))]
    Invalid {
        /// The file.
        name: String,
        /// All of them.
        violations: Vec<Violation>,
    },
}

fn found(kinds: &[String]) -> String {
    if kinds.is_empty() { "it is empty".to_owned() } else { format!("found: {}", kinds.join(", ")) }
}

fn listed(violations: &[Violation]) -> String {
    violations.iter().fold(String::new(), |mut text, violation| {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {violation}");
        text
    })
}

/// Reads a file, or standard input for `-`. Gives its name for messages, and its text.
///
/// # Errors
/// [`ManifestError`], when it cannot be read or is no manifest by its size.
pub fn read(path: &Path) -> Result<(String, String), ManifestError> {
    let (name, text) = if path == Path::new("-") {
        ("standard input".to_owned(), bounded(io::stdin().lock()))
    } else {
        (path.display().to_string(), File::open(path).and_then(bounded))
    };
    match text {
        Ok(Some(text)) => Ok((name, text)),
        Ok(None) => Err(ManifestError::TooLarge(name)),
        Err(source) => Err(ManifestError::Read { name, source }),
    }
}

fn bounded(source: impl Read) -> io::Result<Option<String>> {
    let mut text = String::new();
    source.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    Ok((text.len() as u64 <= MAX_BYTES).then_some(text))
}

/// Understands a manifest. It breaks none of the rules that the API server would enforce.
///
/// # Errors
/// [`ManifestError`]; all broken rules at once.
pub fn parse(name: &str, text: &str) -> Result<Manifest, ManifestError> {
    let name = || name.to_owned();
    let mut fleets = Vec::new();
    let mut others = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let value =
            Value::deserialize(document).map_err(|error| ManifestError::Syntax { name: name(), reason: error.to_string() })?;
        match value["kind"].as_str() {
            Some(KIND) => fleets.push((index, value)),
            // An empty document is what stands before or after a line of dashes.
            _ if value.is_null() => {}
            Some(kind) => others.push(kind.to_owned()),
            None => others.push("a document without a kind".to_owned()),
        }
    }
    let (index, value) = match fleets.as_slice() {
        [] => return Err(ManifestError::NoFleet { name: name(), kinds: others }),
        [one] => one,
        several => {
            let named = |(_, value): &(usize, Value)| value["metadata"]["name"].as_str().unwrap_or("without a name").to_owned();
            return Err(ManifestError::Several { name: name(), fleets: several.iter().map(named).collect() });
        }
    };
    let version = value["apiVersion"].as_str().unwrap_or_default();
    if version != API_VERSION {
        return Err(ManifestError::Version { name: name(), found: version.to_owned() });
    }
    let mut violations: Vec<Violation> = UpgraderFleet::unknown_fields(value).into_iter().map(unknown).collect();
    // From the text again and not from the value, so that what is wrong has a line.
    let fleet = match serde_yaml_ng::Deserializer::from_str(text).nth(*index).map(UpgraderFleet::deserialize) {
        Some(Ok(fleet)) => fleet,
        Some(Err(error)) => {
            // A misspelt field is why another one is missing: both are told.
            let mut reason = error.to_string();
            if !violations.is_empty() {
                reason.push_str(&listed(&violations));
            }
            return Err(ManifestError::Field { name: name(), reason });
        }
        None => return Err(ManifestError::NoFleet { name: name(), kinds: others }),
    };
    if fleet.metadata.name.as_deref().unwrap_or_default().is_empty() {
        violations.push(Violation { field: "metadata.name".to_owned(), message: "a fleet has a name".to_owned() });
    }
    violations.extend(fleet.violations());
    if violations.is_empty() {
        Ok(Manifest { fleet, others })
    } else {
        Err(ManifestError::Invalid { name: name(), violations })
    }
}

fn unknown(field: String) -> Violation {
    let message = "no such field; docs/upgraderfleet.md and `kubectl explain uf.spec` have all of them".to_owned();
    Violation { field, message }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;

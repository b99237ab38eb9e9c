//! The jobs themselves.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use triton_vm::prelude::*;

use crate::JobId;

/// A job for a real prover: the JSON document that neptune-core 0.19.4 writes to its prover (`NeptuneProverJob`), byte for byte.
///
/// The non-determinism holds the secrets of a transaction; `Debug` shows sizes only.
#[derive(Clone, Serialize, Deserialize)]
pub struct ProverJob {
    /// The program.
    pub program: Program,
    /// What is claimed of it.
    pub claim: Claim,
    /// The witness.
    pub non_determinism: NonDeterminism,
    /// The caller's limit on log2 of the padded height.
    pub max_log2_padded_height: Option<u8>,
    /// Environment variables for the prover by log2 padded height. Only `TVM_LDE_TRACE` has a meaning here, and memory decides
    /// over it.
    pub env_vars: HashMap<u8, Vec<(String, String)>>,
}

impl ProverJob {
    /// A job without limits.
    pub fn new(program: Program, claim: Claim, non_determinism: NonDeterminism) -> Self {
        Self { program, claim, non_determinism, max_log2_padded_height: None, env_vars: HashMap::new() }
    }

    /// The job's identity.
    pub fn id(&self) -> JobId {
        JobId::of(&self.claim)
    }

    /// Decodes the JSON document.
    ///
    /// # Errors
    /// [`MalformedJob`]; its text tells where, but nothing of what stands there.
    pub fn from_json(bytes: &[u8]) -> Result<Self, MalformedJob> {
        serde_json::from_slice(bytes).map_err(|error| MalformedJob::at(&error))
    }

    /// Encodes the JSON document.
    ///
    /// # Errors
    /// None in practice: every part has a JSON form.
    pub fn to_json(&self) -> Result<Vec<u8>, MalformedJob> {
        serde_json::to_vec(self).map_err(|error| MalformedJob::at(&error))
    }
}

impl fmt::Debug for ProverJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProverJob")
            .field("id", &self.id())
            .field("program_words", &self.program.len_bwords())
            .field("digests", &self.non_determinism.digests.len())
            .field("ram_words", &self.non_determinism.ram.len())
            .field("max_log2_padded_height", &self.max_log2_padded_height)
            .finish_non_exhaustive()
    }
}

/// The bytes are no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a prover job: {what} at line {line}, column {column}")]
pub struct MalformedJob {
    what: &'static str,
    line: usize,
    column: usize,
}

impl MalformedJob {
    /// Keeps the category and the place of a JSON error. Its own text can quote the document, and the document holds secrets.
    pub fn at(error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            serde_json::error::Category::Io => "unreadable",
            serde_json::error::Category::Syntax => "bad JSON syntax",
            serde_json::error::Category::Data => "a field is missing, repeated or of the wrong kind",
            serde_json::error::Category::Eof => "the document ends early",
        };
        Self { what, line: error.line(), column: error.column() }
    }
}

/// A job on a network with mock proofs (regtest, testnet-mock), where upstream has no prover jobs at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MockJob {
    /// What the proof would be about.
    #[schema(value_type = Object)]
    pub claim: Claim,
    /// What it is.
    pub kind: JobKind,
    /// How large it would be.
    #[schema(maximum = 29)]
    pub log2_padded_height: u8,
    /// How long the mock prover shall take, in milliseconds.
    pub duration_ms: u64,
}

/// What a job is for: a closed set, so that it can be a metrics label (`X-Job-Kind`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Part of a ProofCollection.
    Leaf,
    /// ProofCollection to SingleProof.
    Raise,
    /// Two SingleProofs to one.
    Merge,
    /// A SingleProof to a new mutator set.
    Update,
    /// The proof of a block.
    Block,
    /// Anything else, or not said.
    #[default]
    Other,
}

impl JobKind {
    /// All.
    pub const ALL: [Self; 6] = [Self::Leaf, Self::Raise, Self::Merge, Self::Update, Self::Block, Self::Other];

    /// The name in headers, JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Raise => "raise",
            Self::Merge => "merge",
            Self::Update => "update",
            Self::Block => "block",
            Self::Other => "other",
        }
    }

    /// The kind of that name; [`Self::Other`] for any other.
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> ProverJob {
        let program = triton_program!(divine 1 write_io 1 halt);
        let claim = Claim::about_program(&program).with_output(bfe_vec![987_654_321]);
        ProverJob::new(program, claim, NonDeterminism::new(bfe_vec![987_654_321]))
    }

    #[test]
    fn json_goes_both_ways() {
        let json = job().to_json().expect("serializes");
        let back = ProverJob::from_json(&json).expect("parses");
        assert_eq!(back.to_json().expect("serializes"), json);
        assert_eq!(back.id(), job().id());
    }

    #[test]
    fn neither_debug_nor_errors_show_the_witness() {
        let secret = "987654321";
        let shown = format!("{:?}", job());
        assert!(!shown.contains(secret), "{shown}");
        let json = String::from_utf8(job().to_json().expect("serializes")).expect("is text");
        for (from, to) in [
            ("\"digests\":[]", "\"digests\":[987654321]"),
            ("\"individual_tokens\":[987654321]", "\"individual_tokens\":\"987654321\""),
        ] {
            let broken = json.replacen(from, to, 1);
            assert_ne!(broken, json, "{from}");
            let error = ProverJob::from_json(broken.as_bytes()).expect_err("is malformed");
            assert!(!error.to_string().contains(secret), "{error}");
        }
    }
}

//! Errors on the wire: RFC 9457 problem details with stable types.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Media type of [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! problem_types {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:literal, $title:literal, $retry:ident;)+) => {
        /// Every kind of error that a pod answers with. The slugs are stable; `type` is `/problems/<slug>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemType { $($(#[$doc])* $name,)+ }

        impl ProblemType {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The stable name.
            pub fn slug(self) -> &'static str { match self { $(Self::$name => $slug,)+ } }

            /// The HTTP status it comes with.
            pub fn status(self) -> u16 { match self { $(Self::$name => $status,)+ } }

            /// The same short text each time.
            pub fn title(self) -> &'static str { match self { $(Self::$name => $title,)+ } }

            /// What a client should do.
            pub fn retry(self) -> Retry { match self { $(Self::$name => Retry::$retry,)+ } }
        }
    };
}

/// What a client should do about a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Nothing helps: the request itself is wrong.
    Never,
    /// Another pod may take it; this one will not.
    Elsewhere,
    /// Another pod may take it; this one too, later.
    Later,
}

impl Retry {
    fn advice(self) -> &'static str {
        match self {
            Self::Never => "no: the request itself must change",
            Self::Elsewhere => "at another pod",
            Self::Later => "later, or at another pod",
        }
    }
}

problem_types! {
    /// The body is no job.
    MalformedJob = "malformed-job", 400, "The body is not a prover job", Never;
    /// A header or a path cannot be read.
    BadRequest = "bad-request", 400, "A header or the path is malformed", Never;
    /// The token is missing or wrong.
    Unauthorized = "unauthorized", 401, "A valid bearer token is needed", Elsewhere;
    /// No such job, proof or path.
    NotFound = "not-found", 404, "Not found", Never;
    /// The path exists, the method does not.
    MethodNotAllowed = "method-not-allowed", 405, "This method does not exist here", Never;
    /// The client was too slow.
    RequestTimeout = "request-timeout", 408, "The request took too long to arrive", Later;
    /// The claim's proof version is not served here.
    ProofVersion = "proof-version", 409, "This pod does not serve the claim's proof version", Elsewhere;
    /// A mock job at a real pod, or the reverse.
    WrongNetwork = "wrong-network", 409, "Mock jobs go to mock pods, prover jobs to real ones", Elsewhere;
    /// The proof is not there yet.
    NotFinished = "not-finished", 409, "The proof is not finished", Later;
    /// The body is larger than any job.
    PayloadTooLarge = "payload-too-large", 413, "The body is too large", Never;
    /// Not gzip, zstd or identity.
    UnsupportedEncoding = "unsupported-encoding", 415, "This content encoding is not supported", Never;
    /// More rows than the caller or the pod admits.
    PaddedHeightTooBig = "padded-height-too-big", 422, "The padded height is too big", Elsewhere;
    /// The program crashes.
    ProgramFailed = "program-failed", 422, "The program fails", Never;
    /// The program does not halt within the cycle limit.
    ProgramEndless = "program-endless", 422, "The program does not halt within the cycle limit", Never;
    /// The program is not the one that the claim names.
    ProgramDigestMismatch = "program-digest-mismatch", 422, "The program's digest is not the claim's", Never;
    /// The program's output is not the claim's.
    OutputMismatch = "output-mismatch", 422, "The program's output is not the claim's", Never;
    /// Too many jobs or bytes wait.
    QueueFull = "queue-full", 429, "The queue is full", Later;
    /// A bug.
    Internal = "internal", 500, "Internal error", Later;
    /// Workers died of this job.
    WorkerLost = "worker-lost", 500, "The worker was lost, twice", Elsewhere;
    /// The device made proofs that do not verify.
    InvalidProof = "invalid-proof", 500, "The device made a proof that does not verify", Elsewhere;
    /// The prover gave up.
    ProverFailed = "prover-failed", 500, "The prover failed", Elsewhere;
    /// Somebody cancelled the job.
    Cancelled = "cancelled", 499, "The job was cancelled", Later;
    /// The pod is shutting down.
    Draining = "draining", 503, "The pod is shutting down", Elsewhere;
    /// The token is a service account's, and the cluster's API server does not say whether it holds.
    TokenUnchecked = "token-unchecked", 503, "The token cannot be checked now", Later;
    /// No device is ready.
    NoDevice = "no-device", 503, "No device is ready", Later;
    /// The caller's deadline passed.
    DeadlineExceeded = "deadline-exceeded", 504, "The deadline passed", Never;
}

impl ProblemType {
    /// The type of that slug.
    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.slug() == slug)
    }
}

impl fmt::Display for ProblemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/problems/{}", self.slug())
    }
}

impl Serialize for ProblemType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ProblemType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let slug = text.rsplit('/').next().unwrap_or_default();
        // A newer pod may know more types; what matters about them stands in the status.
        Ok(Self::from_slug(slug).unwrap_or(Self::Internal))
    }
}

impl utoipa::PartialSchema for ProblemType {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let names = Self::ALL.iter().map(ToString::to_string);
        let row =
            |kind: &Self| format!("| `{}` | {} | {} | {} |", kind.slug(), kind.status(), kind.title(), kind.retry().advice());
        let table = Self::ALL.iter().map(row).collect::<Vec<_>>().join("\n");
        utoipa::openapi::schema::Object::builder()
            .schema_type(utoipa::openapi::schema::Type::String)
            .enum_values(Some(names))
            .description(Some(format!(
                "What went wrong: `/problems/` and a stable name. A client that meets an unknown name goes by the status.\n\n\
                 | name | status | meaning | try again? |\n|---|---|---|---|\n{table}\n"
            )))
            .into()
    }
}

impl utoipa::ToSchema for ProblemType {}

/// RFC 9457 problem details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema, thiserror::Error)]
#[error("{title}{}", detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
pub struct Problem {
    /// `/problems/<slug>`.
    #[serde(rename = "type")]
    pub problem_type: ProblemType,
    /// The type's text.
    #[schema(value_type = String)]
    pub title: Box<str>,
    /// The HTTP status.
    pub status: u16,
    /// This occurrence, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub detail: Option<Box<str>>,
    /// The job it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub instance: Option<Box<str>>,
    /// Exact log2 padded height, with `padded-height-too-big`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log2_padded_height: Option<u8>,
    /// Largest log2 padded height admitted, with `padded-height-too-big`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_log2_padded_height: Option<u8>,
    /// Kind of the virtual machine's error, with `program-failed`. Values are left out: they may be secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub vm_error: Option<Box<str>>,
    /// Clock cycle of the crash, with `program-failed`; the limit, with `program-endless`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cycle: Option<u64>,
    /// Seconds after which trying again makes sense; also in the header `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
    /// With `not-found`: the pod that clients have last agreed to send this job to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sent_to: Option<Box<str>>,
}

impl Problem {
    /// A problem without particulars.
    pub fn new(problem_type: ProblemType) -> Self {
        Self {
            problem_type,
            title: problem_type.title().into(),
            status: problem_type.status(),
            detail: None,
            instance: None,
            log2_padded_height: None,
            max_log2_padded_height: None,
            vm_error: None,
            cycle: None,
            retry_after_seconds: None,
            sent_to: None,
        }
    }

    /// With this occurrence's text.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into().into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_distinct_and_go_both_ways() {
        for (index, &kind) in ProblemType::ALL.iter().enumerate() {
            assert_eq!(ProblemType::from_slug(kind.slug()), Some(kind));
            assert_eq!(ProblemType::ALL.iter().position(|other| other.slug() == kind.slug()), Some(index));
            let json = serde_json::to_string(&Problem::new(kind).detail("x")).expect("serializes");
            let back: Problem = serde_json::from_str(&json).expect("parses");
            assert_eq!(back, Problem::new(kind).detail("x"));
            assert!((400..600).contains(&kind.status()));
        }
        let newer: Problem =
            serde_json::from_str(r#"{"type":"/problems/from-the-future","title":"?","status":418}"#).expect("parses");
        assert_eq!((newer.problem_type, newer.status), (ProblemType::Internal, 418));
    }
}

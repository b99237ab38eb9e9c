//! A job as it travels: encoded once, compressed once, shared by all attempts.

use std::io::{self, Write};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use triton_vm::prelude::Claim;

use crate::{JobId, MalformedJob, MockJob, ProverJob};

/// The encoded job and what a client must know of it. The witness stays text: nothing here parses it.
#[derive(Clone)]
pub struct JobBody {
    json: Bytes,
    claim: Claim,
    max_log2_padded_height: Option<u8>,
    mock: bool,
}

/// What is read of a job's document. All fields must be there, so that a document of another kind is refused here.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    #[expect(dead_code, reason = "only its presence counts")]
    program: &'a RawValue,
    claim: Claim,
    #[serde(borrow)]
    #[expect(dead_code, reason = "only its presence counts")]
    non_determinism: &'a RawValue,
    max_log2_padded_height: Option<u8>,
    #[serde(borrow)]
    #[expect(dead_code, reason = "only its presence counts")]
    env_vars: &'a RawValue,
}

impl JobBody {
    /// Takes the JSON document of a [`ProverJob`] without parsing its witness.
    ///
    /// # Errors
    /// [`MalformedJob`] when it is not JSON, or a field is missing, or the claim is none.
    pub fn from_json(json: impl Into<Bytes>) -> Result<Self, MalformedJob> {
        let json = json.into();
        let Envelope { claim, max_log2_padded_height, .. } =
            serde_json::from_slice(&json).map_err(|error| MalformedJob::at(&error))?;
        Ok(Self { json, claim, max_log2_padded_height, mock: false })
    }

    /// Encodes a job.
    ///
    /// # Errors
    /// None in practice: every job has a JSON form.
    pub fn from_job(job: &ProverJob) -> Result<Self, MalformedJob> {
        let json = job.to_json()?.into();
        Ok(Self { json, claim: job.claim.clone(), max_log2_padded_height: job.max_log2_padded_height, mock: false })
    }

    /// Encodes a mock job.
    ///
    /// # Errors
    /// None in practice: every job has a JSON form.
    pub fn from_mock(job: &MockJob) -> Result<Self, MalformedJob> {
        let json = serde_json::to_vec(job).map_err(|error| MalformedJob::at(&error))?.into();
        Ok(Self { json, claim: job.claim.clone(), max_log2_padded_height: None, mock: true })
    }

    /// The document. It holds secrets.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// What is to be proven.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The job's identity.
    pub fn id(&self) -> JobId {
        JobId::of(&self.claim)
    }

    /// The caller's own limit on log2 of the padded height.
    pub fn max_log2_padded_height(&self) -> Option<u8> {
        self.max_log2_padded_height
    }

    /// Whether it is for a mock network.
    pub fn is_mock(&self) -> bool {
        self.mock
    }
}

impl std::fmt::Debug for JobBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobBody")
            .field("id", &self.id())
            .field("bytes", &self.json.len())
            .field("mock", &self.mock)
            .finish_non_exhaustive()
    }
}

/// Compression of job bodies on the way to a pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 8878: the fastest.
    #[default]
    Zstd,
    /// RFC 1952, for gateways that know nothing else.
    Gzip,
    /// None.
    Identity,
}

impl Encoding {
    /// Value of `Content-Encoding`, if there is to be one.
    pub fn header(self) -> Option<&'static str> {
        match self {
            Self::Zstd => Some("zstd"),
            Self::Gzip => Some("gzip"),
            Self::Identity => None,
        }
    }

    /// Compresses. Bytes that are not compressed are shared, not copied.
    ///
    /// # Errors
    /// Only what the compressor itself says; none in practice.
    pub fn apply(self, json: &Bytes) -> io::Result<Bytes> {
        match self {
            // Levels: a job is mostly hexadecimal digests, which higher ones barely make smaller.
            Self::Zstd => zstd::bulk::compress(json, 1).map(Bytes::from),
            Self::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::with_capacity(json.len() / 2), flate2::Compression::fast());
                encoder.write_all(json)?;
                encoder.finish().map(Bytes::from)
            }
            Self::Identity => Ok(json.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use triton_vm::prelude::*;

    use super::*;

    fn job() -> ProverJob {
        let program = triton_program!(divine 1 write_io 1 halt);
        let claim = Claim::about_program(&program).with_output(bfe_vec![987_654_321]);
        ProverJob::new(program, claim, NonDeterminism::new(bfe_vec![987_654_321]))
    }

    #[test]
    fn a_document_and_a_job_give_the_same_body() {
        let limited = ProverJob { max_log2_padded_height: Some(21), ..job() };
        for job in [job(), limited] {
            let encoded = JobBody::from_job(&job).expect("encodes");
            let read = JobBody::from_json(job.to_json().expect("encodes")).expect("reads");
            assert_eq!(read.json(), encoded.json());
            assert_eq!(read.id(), job.id());
            assert_eq!(read.max_log2_padded_height(), job.max_log2_padded_height);
            assert!(!format!("{read:?}").contains("987654321"), "no witness in Debug");
        }
    }

    #[test]
    fn documents_of_another_kind_are_refused() {
        let json = String::from_utf8(job().to_json().expect("encodes")).expect("is text");
        for bad in [
            "",
            "{}",
            "[]",
            "null",
            &json[..json.len() - 1],
            &json.replacen("\"program\"", "\"prog\"", 1),
            &format!("{json}{json}"),
        ] {
            assert!(JobBody::from_json(bad.as_bytes().to_vec()).is_err(), "{bad}");
        }
    }

    #[test]
    fn encodings_are_reversible() {
        let json = JobBody::from_job(&job()).expect("encodes").json().clone();
        let zstd = Encoding::Zstd.apply(&json).expect("compresses");
        assert_eq!(zstd::decode_all(&zstd[..]).expect("decompresses"), json);
        let gzip = Encoding::Gzip.apply(&json).expect("compresses");
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).expect("decompresses");
        assert_eq!(back, json);
        assert_eq!(Encoding::Identity.apply(&json).expect("copies nothing").as_ptr(), json.as_ptr());
    }
}

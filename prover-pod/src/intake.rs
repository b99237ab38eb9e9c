//! From bytes to a checked request: decompression within bounds, and the parts of a job that the service itself needs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use prover_api::{JobId, JobKind, MAX_JOB_BYTES, MalformedJob, MockJob, PROOF_VERSION, Priority, Problem, ProblemType};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::io::{AsyncBufRead, AsyncReadExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::io::StreamReader;
use triton_vm::prelude::Claim;

use crate::scheduler::BodyId;
use crate::service::Request;

/// Silence after which an upload is given up.
const IDLE: Duration = Duration::from_secs(30);

/// Bytes of bodies that are on their way in, over all connections. A body counts as it grows, in steps of this size.
const STEP: usize = 1 << 20;

/// Bounds what uploads hold together.
#[derive(Debug, Clone)]
pub struct Intake {
    steps: Arc<Semaphore>,
    max_job_bytes: usize,
}

/// What a caller says beside the job.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Urgency; normal when not said.
    pub priority: Priority,
    /// Not on a GPU.
    pub force_cpu: bool,
    /// How long the caller waits.
    pub deadline: Option<Duration>,
    /// What the job is for.
    pub kind: JobKind,
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// It is not.
    Identity,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Encoding {
    /// Reads a `Content-Encoding` header.
    ///
    /// # Errors
    /// [`ProblemType::UnsupportedEncoding`].
    pub fn parse(header: Option<&str>) -> Result<Self, Problem> {
        match header.map(str::trim).map(str::to_ascii_lowercase).as_deref() {
            None | Some("" | "identity") => Ok(Self::Identity),
            Some("gzip" | "x-gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some(_) => Err(Problem::new(ProblemType::UnsupportedEncoding).detail("send gzip, zstd or no encoding")),
        }
    }
}

impl Intake {
    /// Uploads may hold `max_bytes` together, one job `max_job_bytes` decompressed.
    pub fn new(max_bytes: u64, max_job_bytes: usize) -> Self {
        let steps = usize::try_from(max_bytes / STEP as u64).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            steps: Arc::new(Semaphore::new(steps.clamp(1, Semaphore::MAX_PERMITS))),
            max_job_bytes: max_job_bytes.min(MAX_JOB_BYTES),
        }
    }

    /// Refuses a body by its declared length, before any of it is read. Compressed ones are shorter than what they hold.
    ///
    /// # Errors
    /// [`ProblemType::PayloadTooLarge`].
    pub fn admits(&self, declared: Option<u64>) -> Result<(), Problem> {
        if declared.is_some_and(|length| length > self.max_job_bytes as u64) { Err(self.too_large()) } else { Ok(()) }
    }

    fn too_large(&self) -> Problem {
        let what = format!("at most {} bytes after decompression", self.max_job_bytes);
        Problem::new(ProblemType::PayloadTooLarge).detail(what)
    }

    /// Reads and decompresses a body. A bomb stops at the limit, whatever it claims to unpack to.
    ///
    /// # Errors
    /// Too large, too slow, not what the encoding says, or too many uploads at once.
    pub async fn read<S, E>(&self, body: S, encoding: Encoding) -> Result<Bytes, Problem>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: std::error::Error + Send + Sync + 'static,
    {
        let body = BufReader::new(StreamReader::new(body.map_err(std::io::Error::other)));
        let mut decoded: Box<dyn AsyncBufRead + Send + Unpin + '_> = match encoding {
            Encoding::Identity => Box::new(body),
            Encoding::Gzip => Box::new(BufReader::new(GzipDecoder::new(body))),
            Encoding::Zstd => Box::new(BufReader::new(ZstdDecoder::new(body))),
        };
        let mut bytes = Vec::new();
        let mut held: Vec<OwnedSemaphorePermit> = Vec::new();
        loop {
            if bytes.len() >= held.len() * STEP {
                let permit = Arc::clone(&self.steps).try_acquire_owned();
                held.push(permit.map_err(|_| Problem {
                    retry_after_seconds: Some(1),
                    ..Problem::new(ProblemType::QueueFull).detail("too many uploads at once")
                })?);
            }
            let room = (held.len() * STEP).min(self.max_job_bytes + 1) - bytes.len();
            let read = timeout(IDLE, (&mut decoded).take(room as u64).read_buf(&mut bytes)).await;
            match read {
                Err(_) => return Err(Problem::new(ProblemType::RequestTimeout).detail("the body stopped coming")),
                Ok(Err(_)) => {
                    let what = "the body broke off, or is not what its Content-Encoding says";
                    return Err(Problem::new(ProblemType::MalformedJob).detail(what));
                }
                Ok(Ok(0)) => break,
                Ok(Ok(_)) if bytes.len() > self.max_job_bytes => return Err(self.too_large()),
                Ok(Ok(_)) => {}
            }
        }
        bytes.shrink_to_fit();
        Ok(bytes.into())
    }
}

/// The parts of a prover job that the service needs; the witness is only checked to be JSON. All fields must be there, as
/// neptune-core's own decoder wants it.
#[derive(Deserialize)]
struct Envelope {
    claim: Claim,
    #[serde(rename = "program")]
    _program: IgnoredAny,
    #[serde(rename = "non_determinism")]
    _non_determinism: IgnoredAny,
    max_log2_padded_height: Option<u8>,
    #[serde(rename = "env_vars")]
    _env_vars: IgnoredAny,
}

/// Decodes a body for this pod.
///
/// # Errors
/// [`ProblemType::MalformedJob`], [`ProblemType::ProofVersion`], [`ProblemType::WrongNetwork`].
pub fn parse(body: Bytes, wishes: &Wishes, mock: bool) -> Result<Request, Problem> {
    let malformed =
        |error: &serde_json::Error| Problem::new(ProblemType::MalformedJob).detail(MalformedJob::at(error).to_string());
    let body_id = body_id(&body);
    let request = |claim: Claim, max: Option<u8>, height: Option<u8>, kind: JobKind, body: Bytes| Request {
        job: JobId::of(&claim),
        claim,
        body,
        body_id,
        priority: wishes.priority,
        force_cpu: wishes.force_cpu,
        deadline: wishes.deadline,
        max_log2_padded_height: max,
        log2_padded_height: height,
        kind,
    };
    if mock {
        return match serde_json::from_slice::<MockJob>(&body) {
            Ok(job) if job.log2_padded_height > crate::memory::MAX_LOG2_HEIGHT => {
                Err(Problem::new(ProblemType::MalformedJob).detail("log2_padded_height is at most 29"))
            }
            Ok(job) => checked(request(job.claim, None, Some(job.log2_padded_height), job.kind, body)),
            Err(_) if serde_json::from_slice::<Envelope>(&body).is_ok() => Err(Problem::new(ProblemType::WrongNetwork)
                .detail("this pod serves mock networks: send a mock job, or send this one to a pod with a real backend")),
            Err(error) => Err(malformed(&error)),
        };
    }
    match serde_json::from_slice::<Envelope>(&body) {
        Ok(job) => checked(request(job.claim, job.max_log2_padded_height, None, wishes.kind, body)),
        Err(_) if serde_json::from_slice::<MockJob>(&body).is_ok() => Err(Problem::new(ProblemType::WrongNetwork)
            .detail("mock jobs are only taken by pods that were started with --backend mock")),
        Err(error) => Err(malformed(&error)),
    }
}

fn checked(request: Request) -> Result<Request, Problem> {
    if request.claim.version == PROOF_VERSION {
        return Ok(request);
    }
    Err(Problem::new(ProblemType::ProofVersion).detail(format!(
        "the claim has proof version {}, this pod serves {PROOF_VERSION}; use a pod of the network's current version",
        request.claim.version
    )))
}

/// SHA-256 of a body.
pub fn body_id(body: &[u8]) -> BodyId {
    let mut id = [0; 32];
    id.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, body).as_ref());
    BodyId(id)
}

/// Reads `X-Deadline`: seconds from now, or an RFC 3339 time.
///
/// # Errors
/// [`ProblemType::BadRequest`].
pub fn parse_deadline(text: &str, now: SystemTime) -> Result<Duration, Problem> {
    /// A year: past that a deadline is no deadline, and the sum with the clock stays far from overflow.
    const LONGEST: f64 = 366.0 * 86_400.0;
    let bad = || Problem::new(ProblemType::BadRequest).detail("X-Deadline is seconds from now, or an RFC 3339 time");
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return if (0.0..=LONGEST).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(bad()) };
    }
    let at = humantime::parse_rfc3339(text.trim()).map_err(|_| bad())?;
    Ok(at.duration_since(now).unwrap_or_default().min(Duration::from_secs_f64(LONGEST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], encoding: Encoding) -> Result<Bytes, Problem> {
        let chunks: Vec<_> = bytes.chunks(7000).map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk))).collect();
        Intake::new(8 << 20, 3 << 20).read(futures::stream::iter(chunks), encoding).await
    }

    #[tokio::test]
    async fn bodies_are_unpacked_within_bounds() {
        let text: Vec<u8> = (0..2_500_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let gzip = {
            use std::io::Write;
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&text).expect("writes");
            encoder.finish().expect("finishes")
        };
        let zstd = zstd::encode_all(text.as_slice(), 1).expect("packs");
        for (bytes, encoding) in [(&text, Encoding::Identity), (&gzip, Encoding::Gzip), (&zstd, Encoding::Zstd)] {
            assert_eq!(read(bytes, encoding).await.expect("reads"), text);
        }
        let bomb = zstd::encode_all(std::io::repeat(b' ').take_bytes(300 << 20), 1).expect("packs");
        assert!(bomb.len() < 100_000);
        let problem = read(&bomb, Encoding::Zstd).await.expect_err("is too large");
        assert_eq!(problem.problem_type, ProblemType::PayloadTooLarge);
        for (bytes, encoding) in [(&zstd[..1000], Encoding::Zstd), (&text[..], Encoding::Gzip), (&gzip[..5000], Encoding::Gzip)]
        {
            assert_eq!(read(bytes, encoding).await.expect_err("is broken").problem_type, ProblemType::MalformedJob);
        }
    }

    trait TakeBytes {
        fn take_bytes(self, n: u64) -> std::io::Take<Self>
        where
            Self: Sized;
    }

    impl<R: std::io::Read> TakeBytes for R {
        fn take_bytes(self, n: u64) -> std::io::Take<Self> {
            std::io::Read::take(self, n)
        }
    }

    #[tokio::test]
    async fn uploads_together_are_bounded() {
        let intake = Intake::new(2 << 20, 3 << 20);
        let slow = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; (1 << 20) + 5]))])
            .chain(futures::stream::pending());
        let holder = intake.clone();
        let first = tokio::spawn(async move { holder.read(Box::pin(slow), Encoding::Identity).await });
        while intake.steps.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let second = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{}"))]);
        let problem = intake.read(second, Encoding::Identity).await.expect_err("is refused");
        assert_eq!(problem.problem_type, ProblemType::QueueFull);
        first.abort();
        drop(first.await);
        assert_eq!(intake.steps.available_permits(), 2);
    }

    use futures::StreamExt;

    #[test]
    fn deadlines() {
        let now = humantime::parse_rfc3339("2026-01-01T00:00:00Z").expect("parses");
        assert_eq!(parse_deadline("1.5", now), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_deadline("2026-01-01T00:01:00Z", now), Ok(Duration::from_mins(1)));
        assert_eq!(parse_deadline("2020-01-01T00:01:00Z", now), Ok(Duration::ZERO));
        for bad in ["", "-1", "NaN", "inf", "1e300", "tomorrow"] {
            assert!(parse_deadline(bad, now).is_err(), "{bad}");
        }
    }
}

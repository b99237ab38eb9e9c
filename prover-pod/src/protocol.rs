//! What the service and its worker processes say to each other, over the worker's stdin and stdout.
//!
//! A frame is `u32` length of the header, `u64` length of the payload, both little-endian, then the header as JSON, then the
//! payload as it is (a job body, a proof). The peer is our own binary, but lengths are bounded all the same: a worker that runs
//! foreign programs may go wrong in any way.

use std::io::{self, Read, Write};

use prover_api::{GpuInfo, JobId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::memory::LdeMode;
use crate::scheduler::{Backend, Failure};

/// Largest header in bytes.
const MAX_HEADER: u32 = 64 << 10;

/// Largest payload in bytes: a job body at the HTTP limit, with room.
const MAX_PAYLOAD: u64 = 320 << 20;

/// From the service to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum ToWorker {
    /// Learn the heights of the job in the payload.
    Inspect {
        /// Which.
        job: JobId,
    },
    /// Trace the job in the payload and hold the trace.
    Trace {
        /// Which.
        job: JobId,
    },
    /// Prove; the payload is the job, used unless a trace is held.
    Prove {
        /// Which.
        job: JobId,
        /// How to spend memory.
        lde: LdeMode,
    },
    /// Forget what is held or being made outside a proof.
    Discard {
        /// Which.
        job: JobId,
    },
    /// Stop the proof, if this backend can.
    Abort {
        /// Which.
        job: JobId,
    },
}

/// From a worker to the service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromWorker {
    /// First words. The payload is a self-test proof of [`crate::worker::self_test_claim`], empty for the mock backend.
    Hello {
        /// Kind of prover.
        backend: Backend,
        /// Jobs at once.
        slots: usize,
        /// Name of the device, for people.
        device: String,
        /// Largest log2 padded height that the device takes, where it has memory of its own.
        #[serde(default)]
        max_log2_padded_height: Option<u8>,
        /// About a GPU.
        #[serde(default)]
        gpu: Option<GpuInfo>,
    },
    /// Alive; from a thread of its own.
    Heartbeat {
        /// Resident bytes of the worker.
        rss_bytes: u64,
    },
    /// The job's exact padded height.
    Inspected {
        /// Which.
        job: JobId,
        /// log2 of the padded height.
        log2_padded_height: u8,
        /// Whether the worker has kept the trace, for the proof.
        #[serde(default)]
        kept: bool,
    },
    /// The trace is complete; in a slot, proving begins.
    Traced {
        /// Which.
        job: JobId,
    },
    /// A stage of the proof begins.
    Stage {
        /// Which job.
        job: JobId,
        /// Name of the stage.
        stage: String,
        /// Share of the proof's time that is over, 0 to 1.
        progress: f64,
    },
    /// The payload is the proof, as `bincode(Proof)`.
    Proved {
        /// Which.
        job: JobId,
    },
    /// It cannot be done.
    Failed {
        /// Which.
        job: JobId,
        /// Why.
        failure: Failure,
    },
}

impl ToWorker {
    /// The job that the message is about.
    pub fn job(&self) -> JobId {
        match self {
            Self::Inspect { job }
            | Self::Trace { job }
            | Self::Prove { job, .. }
            | Self::Discard { job }
            | Self::Abort { job } => *job,
        }
    }
}

fn header_and_lengths<M: Serialize>(message: &M, payload: &[u8]) -> io::Result<Vec<u8>> {
    let header = serde_json::to_vec(message).map_err(io::Error::other)?;
    let length = u32::try_from(header.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(12 + header.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&header);
    Ok(bytes)
}

fn lengths(prefix: [u8; 12]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, payload @ ..] = prefix;
    let (header, payload) = (u32::from_le_bytes([a, b, c, d]), u64::from_le_bytes(payload));
    if header > MAX_HEADER || payload > MAX_PAYLOAD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame larger than any message can be"));
    }
    Ok((header as usize, payload as usize))
}

fn decode<M: DeserializeOwned>(header: &[u8]) -> io::Result<M> {
    serde_json::from_slice(header).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Writes a frame, blocking.
///
/// # Errors
/// Those of the pipe.
pub fn write_frame<M: Serialize>(to: &mut impl Write, message: &M, payload: &[u8]) -> io::Result<()> {
    to.write_all(&header_and_lengths(message, payload)?)?;
    to.write_all(payload)?;
    to.flush()
}

/// Reads a frame, blocking. `None` at a clean end.
///
/// # Errors
/// Those of the pipe; [`io::ErrorKind::InvalidData`] when the bytes are no frame.
pub fn read_frame<M: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<(M, Vec<u8>)>> {
    let mut prefix = [0; 12];
    if from.read(&mut prefix[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut prefix[1..])?;
    let (header, payload) = lengths(prefix)?;
    let mut bytes = vec![0; header];
    from.read_exact(&mut bytes)?;
    let message = decode(&bytes)?;
    let mut bytes = Vec::new();
    from.take(payload as u64).read_to_end(&mut bytes)?;
    if bytes.len() != payload {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((message, bytes)))
}

/// Writes a frame.
///
/// # Errors
/// Those of the pipe.
pub async fn send<M: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &M, payload: &[u8]) -> io::Result<()> {
    to.write_all(&header_and_lengths(message, payload)?).await?;
    to.write_all(payload).await?;
    to.flush().await
}

/// Reads a frame. `None` at a clean end.
///
/// # Errors
/// Those of the pipe; [`io::ErrorKind::InvalidData`] when the bytes are no frame.
pub async fn receive<M: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(M, Vec<u8>)>> {
    let mut prefix = [0; 12];
    if from.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut prefix[1..]).await?;
    let (header, payload) = lengths(prefix)?;
    let mut bytes = vec![0; header];
    from.read_exact(&mut bytes).await?;
    let message = decode(&bytes)?;
    let mut bytes = Vec::new();
    from.take(payload as u64).read_to_end(&mut bytes).await?;
    if bytes.len() != payload {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((message, bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat() -> FromWorker {
        FromWorker::Heartbeat { rss_bytes: 7 }
    }

    #[tokio::test]
    async fn frames_survive_both_ways() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &heartbeat(), b"payload").expect("write");
        let mut sent = Vec::new();
        send(&mut sent, &heartbeat(), b"payload").await.expect("send");
        assert_eq!(bytes, sent);
        let expected = Some((heartbeat(), b"payload".to_vec()));
        assert_eq!(read_frame::<FromWorker>(&mut bytes.as_slice()).expect("read"), expected);
        assert_eq!(receive::<FromWorker>(&mut bytes.as_slice()).await.expect("receive"), expected);
        assert_eq!(receive::<FromWorker>(&mut [].as_slice()).await.expect("end"), None);
    }

    #[tokio::test]
    async fn broken_frames_are_errors() {
        let mut good = Vec::new();
        write_frame(&mut good, &heartbeat(), b"payload").expect("write");
        for cut in 1..good.len() {
            assert!(read_frame::<FromWorker>(&mut &good[..cut]).is_err(), "cut at {cut}");
            assert!(receive::<FromWorker>(&mut &good[..cut]).await.is_err(), "cut at {cut}");
        }
        let huge = [0xff; 32];
        assert!(receive::<FromWorker>(&mut huge.as_slice()).await.is_err());
        let mut nonsense = good.clone();
        nonsense[12] = b'x';
        assert!(read_frame::<FromWorker>(&mut nonsense.as_slice()).is_err());
    }
}

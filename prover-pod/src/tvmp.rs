//! The TVMP socket: xnt-core's GPU prover protocol, for nodes that know no HTTP (`TRITON_VM_PROVER_SOCKET`).
//!
//! One connection, one job, one answer. The jobs go through the same service as those that come over HTTP: same queue, same
//! checks, same verification. The protocol has no priorities and no authentication; listen on loopback or a Unix socket.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use prover_api::framing::tvmp::{FrameError, Request, Response, ServerCodec};
use prover_api::{Priority, Problem, ProblemType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::codec::{FramedRead, FramedWrite};
use tracing::{debug, info, warn};

use crate::http::{ended, refused};
use crate::intake::{Wishes, parse};
use crate::scheduler::Failure;
use crate::service::{Answer, Service};

/// Connections at once. A plain connect-and-close takes one for no time; a client that sends nothing loses it by timeout.
const MAX_CONNECTIONS: usize = 256;

/// Time for the whole request to arrive: jobs are tens of megabytes, mostly over loopback.
const REQUEST_TIME: Duration = Duration::from_mins(1);

/// Time for the answer to be taken.
const ANSWER_TIME: Duration = Duration::from_mins(1);

/// Serves TVMP on a TCP listener until `stop` turns true.
pub async fn serve_tcp(listener: TcpListener, service: Service, mut stop: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    let (read, write) = stream.into_split();
                    converse(read, write, &service).await;
                    drop(permit);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Serves TVMP on a Unix socket until `stop` turns true.
pub async fn serve_unix(listener: UnixListener, service: Service, mut stop: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let service = service.clone();
                tokio::spawn(async move {
                    let (read, write) = stream.into_split();
                    converse(read, write, &service).await;
                    drop(permit);
                });
            }
            Err(error) => pause(&error).await,
        }
    }
}

/// Binds a Unix socket, over a stale one but not over a live one. Only the owner may connect: jobs carry secrets.
///
/// # Errors
/// Another process listens there, or the file cannot be made.
pub async fn bind_unix(path: &PathBuf) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    if path.exists() {
        if tokio::net::UnixStream::connect(path).await.is_ok() {
            return Err(std::io::Error::new(std::io::ErrorKind::AddrInUse, "another process listens on this socket"));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn pause(error: &std::io::Error) {
    warn!(%error, "cannot accept");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn converse(read: impl AsyncRead + Unpin + Send, write: impl AsyncWrite + Unpin + Send, service: &Service) {
    let mut requests = FramedRead::new(read, ServerCodec::default());
    let request = match timeout(REQUEST_TIME, requests.next()).await {
        // A probe: connected and closed.
        Ok(None) => return count(service, "probe"),
        Ok(Some(Ok(request))) => Ok(request),
        Ok(Some(Err(error))) => Err(error),
        Err(_) => return count(service, "timeout"),
    };
    let mut answers = FramedWrite::new(write, ServerCodec::default());
    let (response, outcome) = match request {
        Ok(request) => {
            let id = request.job_id;
            // Only the end of the stream can follow a request: a client that hangs up no longer wants the proof.
            let rest = requests.into_inner();
            tokio::select! {
                (response, outcome) = prove(request, service) => (response, outcome),
                () = hang_up(rest) => {
                    debug!(job_id = id, "TVMP client hung up");
                    return count(service, "hang-up");
                }
            }
        }
        Err(error) => (malformed(&error), "malformed"),
    };
    count(service, outcome);
    if !matches!(timeout(ANSWER_TIME, answers.send(response)).await, Ok(Ok(()))) {
        debug!("TVMP client did not take its answer");
    }
}

fn count(service: &Service, outcome: &str) {
    service.metrics().tvmp_requests.with_label_values(&[outcome]).inc();
}

/// Ends when the client closes its side or sends more, which no client does.
async fn hang_up(mut rest: impl AsyncRead + Unpin) {
    let mut byte = BytesMut::with_capacity(1);
    drop(rest.read_buf(&mut byte).await);
}

fn malformed(error: &FrameError) -> Response {
    Response::Error { job_id: 0, message: format!("malformed request: {error}") }
}

async fn prove(request: Request, service: &Service) -> (Response, &'static str) {
    let job_id = request.job_id;
    let (answer, has_limit) = match ask(request, service).await {
        Ok(answered) => answered,
        Err(problem) => return (error(job_id, &problem), problem.problem_type.slug()),
    };
    match answer {
        Answer::Proof(proof) => (Response::Proof { job_id, proof }, "proof"),
        // A node that set no limit panics on this status: for it the pod's own limit is an error like any other.
        Answer::Failed(Failure::TooBig { log2_padded_height, .. }) if has_limit => {
            let response = Response::PaddedHeightTooBig { job_id, log2_padded_height: log2_padded_height.into() };
            (response, "padded-height-too-big")
        }
        other => {
            let problem = ended(&other);
            (error(job_id, &problem), problem.problem_type.slug())
        }
    }
}

fn error(job_id: u32, problem: &Problem) -> Response {
    Response::Error { job_id, message: problem.to_string() }
}

async fn ask(request: Request, service: &Service) -> Result<(Answer, bool), Problem> {
    let mock = service.is_mock();
    let checked = tokio::task::spawn_blocking(move || {
        let texts = request.five_texts().map_err(|error| Problem::new(ProblemType::MalformedJob).detail(error.to_string()))?;
        let document = Bytes::from(texts.document());
        // The node's own priority stays inside the node; what it sends is what its queue has chosen.
        parse(document, &Wishes { priority: Priority::Normal, ..Wishes::default() }, mock)
    });
    let request = checked.await.map_err(|_| Problem::new(ProblemType::Internal))??;
    info!(job = %request.job, bytes = request.body.len(), "job: received over TVMP");
    let has_limit = request.max_log2_padded_height.is_some();
    let ticket = service.submit(request).map_err(refused)?;
    Ok((ticket.answer().await, has_limit))
}

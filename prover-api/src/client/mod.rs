//! A client of many prover pods: finds the pod that has the job or can take it, follows it, and believes no proof that it has
//! not verified.
//!
//! ```no_run
//! # async fn example(job: prover_api::ProverJob) -> Result<(), Box<dyn std::error::Error>> {
//! use prover_api::client::{Client, JobBody, ProveOptions};
//! let client = Client::builder().endpoints(["dns+http://prover-pods.upgrader.svc:8080"]).build()?;
//! let proved = client.prove(JobBody::from_job(&job)?, ProveOptions::default()).await?;
//! println!("{} made {} bytes", proved.pod, proved.bytes.len());
//! # Ok(()) }
//! ```
//!
//! Decisions are pure functions ([`rendezvous`], [`judge`], the ledger, [`Backoff`]); `run` does what they say.

mod agreement;
mod backoff;
mod body;
mod endpoints;
mod error;
mod http;
pub mod judge;
mod ledger;
pub mod rendezvous;
mod run;
mod sse;
mod token;
mod wish;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use tokio_util::task::TaskTracker;
use triton_vm::prelude::Proof;

pub use backoff::Backoff;
pub use body::{Encoding, JobBody};
pub use endpoints::Resolver;
pub use error::{BuildError, ClientError};
pub use token::{Token, TokenFile};

use crate::{Capacity, DeviceInfo, JobKind, JobStatus, MockJob, Priority};
use endpoints::{Endpoint, Endpoints, HttpMaker};
use http::{CallError, CallTimes, Pod};

/// Called with the pod's URL and the job's state there, whenever there is news.
pub type OnProgress = Arc<dyn Fn(&str, &JobStatus) + Send + Sync>;

/// What a caller wants of one job.
#[derive(Clone, Default)]
pub struct ProveOptions {
    /// How urgent.
    pub priority: Priority,
    /// What it is for: a label in the pods' metrics.
    pub kind: JobKind,
    /// Not on a GPU, as long as the pod has a CPU prover.
    pub force_cpu: bool,
    /// When the result is of no use any more, from now. Nothing: never.
    pub deadline: Option<Duration>,
    /// Whom to tell about progress.
    pub progress: Option<OnProgress>,
}

impl std::fmt::Debug for ProveOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProveOptions")
            .field("priority", &self.priority)
            .field("kind", &self.kind)
            .field("force_cpu", &self.force_cpu)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A verified proof.
#[derive(Debug, Clone)]
pub struct Proved {
    /// The proof.
    pub proof: Proof,
    /// The same as `bincode(Proof)`, as it came.
    pub bytes: Bytes,
    /// Base URL of the pod that had it.
    pub pod: String,
    /// What that pod last said of the job; nothing when it had the proof already.
    pub status: Option<JobStatus>,
}

/// What a pod says of itself.
#[derive(Debug, Clone)]
pub struct PodStatus {
    /// Base URL.
    pub pod: String,
    /// Its capacity and devices, or why it did not tell.
    pub answer: Result<(Capacity, Vec<DeviceInfo>), String>,
}

/// Time limits. The defaults are meant for pods in the same data centre; tests shorten them.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Until a connection stands.
    pub connect: Duration,
    /// Short questions: state, capacity, cancellation.
    pub ask: Duration,
    /// Sending a job, up to its acceptance.
    pub send: Duration,
    /// Fetching a proof.
    pub fetch: Duration,
    /// Between retries.
    pub backoff: Backoff,
    /// A progress stream that is silent for so long is taken for lost.
    pub silence: Duration,
    /// Between questions for a job's state while there is no progress stream.
    pub poll: Duration,
    /// How long a pod that has the job may be unreachable before the job goes elsewhere.
    pub resume: Duration,
    /// Between resolutions of DNS names. A job that is to be sent anew has them resolved after a fifth of a second, too, unless the
    /// last attempt failed.
    pub resolve: Duration,
    /// How long a job may find no pod that takes it.
    pub patience: Duration,
    /// How long a pod that did not answer at all is waited for only when no other can be asked: its node may be lost, and each job
    /// would wait for it anew. Beside others it has a tenth of a second, when the job would be sent anew otherwise.
    pub shun: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            ask: Duration::from_secs(10),
            send: Duration::from_mins(5),
            fetch: Duration::from_mins(2),
            backoff: Backoff { least: Duration::from_millis(500), most: Duration::from_secs(15) },
            silence: Duration::from_mins(1),
            poll: Duration::from_secs(1),
            resume: Duration::from_secs(5),
            resolve: Duration::from_secs(5),
            patience: Duration::from_mins(5),
            shun: Duration::from_secs(30),
        }
    }
}

/// Collects the settings of a [`Client`].
#[derive(Default)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    token: Option<Token>,
    authorities: Option<PathBuf>,
    encoding: Encoding,
    timing: Timing,
    resolver: Option<Resolver>,
}

impl ClientBuilder {
    /// Where the pods are: `http://host:port` or `https://host:port` for each, or `dns+http://name:port` (`dns+https`) for the
    /// name of a headless Service, which is resolved again while the client runs. Adds to those given before.
    #[must_use]
    pub fn endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// What to authenticate with.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// A PEM file with the certificate authorities to trust, instead of the system's.
    #[must_use]
    pub fn authorities(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities = Some(path.into());
        self
    }

    /// How to compress jobs.
    #[must_use]
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    /// Time limits.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Who resolves names, instead of the system.
    #[must_use]
    pub fn resolver(mut self, resolver: Resolver) -> Self {
        self.resolver = Some(resolver);
        self
    }

    /// Makes the client. Nothing is sent or resolved yet.
    ///
    /// # Errors
    /// [`BuildError`]: an endpoint or a file is unusable.
    pub fn build(self) -> Result<Client, BuildError> {
        let authorities = self.authorities.as_deref().map(HttpMaker::authorities_from).transpose()?.unwrap_or_default();
        let maker = HttpMaker { authorities, connect_timeout: self.timing.connect, tls: false };
        let endpoints = Endpoints::new(&self.endpoints, maker, self.resolver, self.timing.resolve)?;
        Ok(Client {
            shared: Arc::new(Shared {
                endpoints,
                token: self.token.unwrap_or(Token::None),
                encoding: self.encoding,
                timing: self.timing,
                nonce: rand::random(),
                wrong_proofs: Mutex::default(),
                silent: Mutex::default(),
                withdrawals: TaskTracker::new(),
            }),
        })
    }
}

/// What all jobs of a client share.
struct Shared {
    endpoints: Endpoints,
    token: Token,
    encoding: Encoding,
    timing: Timing,
    nonce: u64,
    wrong_proofs: Mutex<HashMap<Arc<str>, u32>>,
    /// Pods that did not answer at all, and when that was.
    silent: Mutex<HashMap<Arc<str>, Instant>>,
    withdrawals: TaskTracker,
}

impl Shared {
    fn pod<'a>(&'a self, endpoint: &'a Endpoint) -> Pod<'a> {
        let Timing { ask, send, fetch, .. } = self.timing;
        Pod { endpoint, token: &self.token, times: CallTimes { ask, send, fetch } }
    }

    fn count_wrong_proof(&self, pod: &Arc<str>) {
        *self.wrong_proofs.lock().unwrap_or_else(PoisonError::into_inner).entry(pod.clone()).or_default() += 1;
    }

    /// What the pod can take. Notes who has let callers wait for nothing; who refuses the connection has not.
    async fn capacity(&self, endpoint: &Endpoint) -> Result<Capacity, CallError> {
        let asked = Instant::now();
        let answer = self.pod(endpoint).get("/v1/capacity").await;
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(answer, Err(CallError::Unreachable(_))) {
            silent.remove(&endpoint.name);
        } else if asked.elapsed() >= self.timing.connect.min(self.timing.ask) / 2 {
            // What is over is forgotten: pods come and go, each under an address of its own.
            silent.retain(|_, since| since.elapsed() < self.timing.shun);
            silent.insert(endpoint.name.clone(), Instant::now());
        }
        answer
    }

    fn is_shunned(&self, pod: &Arc<str>) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(pod).is_some_and(|since| since.elapsed() < self.timing.shun)
    }

    /// Whether the pod has given proofs that do not verify: such pods are asked last.
    fn is_suspect(&self, pod: &Arc<str>) -> bool {
        self.wrong_proofs.lock().unwrap_or_else(PoisonError::into_inner).contains_key(pod)
    }
}

/// A client of prover pods. Clones share connections and settings.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("token", &self.shared.token).field("timing", &self.shared.timing).finish_non_exhaustive()
    }
}

impl Client {
    /// Starts with default settings and no endpoints.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Gets the proof of a job from whichever pod has it or makes it, and verifies it. Dropping the future cancels the job, as
    /// far as nobody else wants it (see [`Client::settle`]).
    ///
    /// # Errors
    /// [`ClientError`]. Only what no pod can do, or none did in time: all else is tried again or elsewhere.
    pub async fn prove(&self, job: JobBody, options: ProveOptions) -> Result<Proved, ClientError> {
        run::prove(&self.shared, job, options).await
    }

    /// The same on a network with mock proofs: the answer is checked to be the mock proof.
    ///
    /// # Errors
    /// As [`Client::prove`].
    pub async fn prove_mock(&self, job: &MockJob, options: ProveOptions) -> Result<Proved, ClientError> {
        let body = JobBody::from_mock(job).map_err(|error| ClientError::Encoding(error.to_string()))?;
        self.prove(body, options).await
    }

    /// Asks every pod for its capacity and devices, all at once. One that has just been waited for in vain ([`Timing::shun`]) is
    /// not waited for again, unless all are such.
    pub async fn status_all(&self) -> Vec<PodStatus> {
        let endpoints = self.shared.endpoints.current().await;
        let some_answer = !endpoints.iter().all(|endpoint| self.shared.is_shunned(&endpoint.name));
        join_all(endpoints.iter().map(|endpoint| async move {
            if some_answer && self.shared.is_shunned(&endpoint.name) {
                let why = "did not answer a moment ago".to_owned();
                return PodStatus { pod: endpoint.name.to_string(), answer: Err(why) };
            }
            let pod = self.shared.pod(endpoint);
            let (capacity, devices) = tokio::join!(self.shared.capacity(endpoint), pod.get("/v1/devices"));
            let answer = capacity.and_then(|capacity| Ok((capacity, devices?))).map_err(|error| match error {
                CallError::Unreachable(why) => why,
                CallError::Problem { problem, .. } => problem.to_string(),
            });
            PodStatus { pod: endpoint.name.to_string(), answer }
        }))
        .await
    }

    /// Waits until dropped jobs are withdrawn at their pods, at most so long. To be called before the runtime ends; `true` when
    /// all is done.
    pub async fn settle(&self, most: Duration) -> bool {
        self.shared.withdrawals.close();
        let settled = tokio::time::timeout(most, self.shared.withdrawals.wait()).await.is_ok();
        self.shared.withdrawals.reopen();
        settled
    }

    /// How many proofs that did not verify each pod has given so far.
    pub fn wrong_proofs(&self) -> HashMap<String, u32> {
        let counts = self.shared.wrong_proofs.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(pod, count)| (pod.to_string(), *count)).collect()
    }
}

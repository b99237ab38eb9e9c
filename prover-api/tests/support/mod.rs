//! A pod that says what a test tells it to say, over real HTTP.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures::StreamExt;
use prover_api::client::{Backoff, Client, ClientBuilder, JobBody, Timing, rendezvous};
use prover_api::{
    Capacity, Destination, JobId, JobState, JobStatus, PROBLEM_JSON, Priority, Problem, ProblemType, ProverJob, StageSeconds,
    proof,
};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use triton_vm::prelude::*;

/// A job and its real proof, made once.
pub fn real_job() -> (ProverJob, Bytes) {
    static JOB: OnceLock<(ProverJob, Bytes)> = OnceLock::new();
    JOB.get_or_init(|| {
        let program = triton_program!(divine 1 write_io 1 halt);
        let claim = Claim::about_program(&program).with_output(bfe_vec![7]);
        let secret = NonDeterminism::new(bfe_vec![7]);
        let (aet, _) = VM::trace_execution(program.clone(), PublicInput::default(), secret.clone()).expect("runs");
        let proof = Stark::default().prove(&claim, &aet).expect("proves");
        (ProverJob::new(program, claim, secret), proof::encode(&proof).expect("encodes").into())
    })
    .clone()
}

pub fn body() -> JobBody {
    JobBody::from_job(&real_job().0).expect("encodes")
}

pub fn id() -> JobId {
    real_job().0.id()
}

/// What a pod does with a job that is sent to it.
#[derive(Clone)]
pub enum OnJob {
    /// Has the proof.
    Cached(Bytes),
    /// Takes it and is done with it at once.
    Prove(Bytes),
    /// Takes it and works on it until the test says something else.
    Hold,
    /// Says no.
    Refuse(Problem),
}

/// A request that came.
#[derive(Clone)]
pub struct Seen {
    pub method: &'static str,
    pub headers: HeaderMap,
    /// Without compression.
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("is text"))
    }
}

struct FakeJob {
    status: watch::Sender<JobStatus>,
    proof: Option<Bytes>,
}

pub struct Script {
    pub capacity: Capacity,
    /// One after the other; the last one stays.
    pub on_job: VecDeque<OnJob>,
    pub token: Option<String>,
    /// Whether `GET .../events` ends after the first status.
    pub short_events: bool,
    /// How long the next question for the capacity takes.
    pub slow_once: Option<Duration>,
    /// How long a job that was sent takes to be there.
    pub slow_jobs: Duration,
    /// What clients have agreed on; nothing in a pod that does not know the question.
    pub agreed: Option<HashMap<JobId, String>>,
    pub seen: Vec<Seen>,
    jobs: HashMap<JobId, FakeJob>,
}

#[derive(Clone)]
struct Shared(Arc<Mutex<Script>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs on a runtime of its own, so that it can die with all its connections.
pub struct FakePod {
    pub url: String,
    shared: Shared,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for FakePod {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn capacity() -> Capacity {
    Capacity {
        idle: true,
        ready: true,
        draining: false,
        max_log2_padded_height: Some(20),
        slots: 1,
        running: 0,
        queue: BTreeMap::new(),
        body_bytes: 0,
        max_body_bytes: 1 << 30,
        proof_versions: vec![8],
        backends: vec!["cpu".to_owned()],
        mock: false,
    }
}

pub fn status(state: JobState) -> JobStatus {
    JobStatus {
        id: id(),
        state,
        priority: Priority::Normal,
        position: None,
        progress: 0.5,
        stage: None,
        log2_padded_height: Some(8),
        backend: Some("cpu".to_owned()),
        device: None,
        seconds: StageSeconds::default(),
        lost_runs: 0,
        problem: None,
    }
}

pub fn too_big(height: u8) -> Problem {
    Problem { log2_padded_height: Some(height), ..Problem::new(ProblemType::PaddedHeightTooBig) }
}

impl FakePod {
    pub fn start(on_job: OnJob) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        Self::start_with(on_job, "http", listener, |listener, app| async move {
            axum::serve(listener, app).await.expect("serves");
        })
    }

    pub fn start_with<F: Future<Output = ()> + Send + 'static>(
        on_job: OnJob,
        scheme: &str,
        listener: std::net::TcpListener,
        serve: impl FnOnce(tokio::net::TcpListener, Router) -> F,
    ) -> Self {
        let shared = Shared(Arc::new(Mutex::new(Script {
            capacity: capacity(),
            on_job: VecDeque::from([on_job]),
            token: None,
            short_events: false,
            slow_once: None,
            slow_jobs: Duration::ZERO,
            agreed: Some(HashMap::new()),
            seen: Vec::new(),
            jobs: HashMap::new(),
        })));
        let app = Router::new()
            .route("/v1/proofs", post(send))
            .route("/v1/proofs/{id}", get(job_status).delete(cancel))
            .route("/v1/proofs/{id}/proof", get(job_proof))
            .route("/v1/proofs/{id}/events", get(events))
            .route("/v1/proofs/{id}/destination", put(agree))
            .route(
                "/v1/capacity",
                get(|State(shared): State<Shared>| async move {
                    let slow = shared.lock().slow_once.take();
                    tokio::time::sleep(slow.unwrap_or_default()).await;
                    axum::Json(shared.lock().capacity.clone())
                }),
            )
            .route("/v1/devices", get(|| async { "[]" }))
            .layer(DefaultBodyLimit::disable())
            .layer(axum::middleware::from_fn_with_state(shared.clone(), authenticate))
            .with_state(shared.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("starts");
        listener.set_nonblocking(true).expect("is a socket");
        let url = format!("{scheme}://{}", listener.local_addr().expect("is bound"));
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener).expect("is a socket")
        };
        runtime.spawn(serve(listener, app));
        Self { url, shared, runtime: Some(runtime) }
    }

    pub fn address(&self) -> SocketAddr {
        self.url.rsplit('/').next().and_then(|text| text.parse().ok()).expect("is an address")
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts all connections, at once.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Changes the state of a job, or makes it known.
    pub fn set(&self, status: JobStatus, proof: Option<Bytes>) {
        let mut script = self.script();
        let job =
            script.jobs.entry(status.id).or_insert_with(|| FakeJob { status: watch::channel(status.clone()).0, proof: None });
        job.proof = proof;
        job.status.send_replace(status);
    }

    pub fn forget_jobs(&self) {
        self.script().jobs.clear();
    }

    pub fn requests(&self, method: &str) -> Vec<Seen> {
        self.script().seen.iter().filter(|seen| seen.method == method).cloned().collect()
    }

    /// Waits until so many requests of that method have come.
    pub async fn wait_for(&self, method: &str, count: usize) -> Vec<Seen> {
        for _ in 0..500 {
            let requests = self.requests(method);
            if requests.len() >= count {
                return requests;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("only {} of {count} {method} requests came to {}", self.requests(method).len(), self.url);
    }
}

fn refuse(problem: &Problem) -> Response {
    let mut response = (StatusCode::from_u16(problem.status).expect("is a status"), axum::Json(problem)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON.parse().expect("is a value"));
    if let Some(seconds) = problem.retry_after_seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

async fn authenticate(State(shared): State<Shared>, request: axum::extract::Request, next: axum::middleware::Next) -> Response {
    let wanted = shared.lock().token.as_ref().map(|token| format!("Bearer {token}"));
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if wanted.is_some() && given != wanted.as_deref() {
        return refuse(&Problem::new(ProblemType::Unauthorized));
    }
    next.run(request).await
}

async fn send(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let mut plain = Vec::new();
    match headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().expect("is text")) {
        Some("zstd") => plain = zstd::decode_all(&body[..]).expect("is zstd"),
        Some("gzip") => drop(flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).expect("is gzip")),
        other => {
            assert_eq!(other, None);
            plain.extend_from_slice(&body);
        }
    }
    let document: serde_json::Value = serde_json::from_slice(&plain).expect("is JSON");
    let claim: Claim = serde_json::from_value(document["claim"].clone()).expect("has a claim");
    let id = JobId::of(&claim);
    let slow = shared.lock().slow_jobs;
    tokio::time::sleep(slow).await;
    let on_job = {
        let mut script = shared.lock();
        script.seen.push(Seen { method: "POST", headers, body: plain });
        if script.on_job.len() > 1 { script.on_job.pop_front() } else { script.on_job.front().cloned() }
    };
    let (state, proof) = match on_job.expect("at least one") {
        OnJob::Refuse(problem) => return refuse(&problem),
        OnJob::Cached(proof) => return proof.into_response(),
        OnJob::Prove(proof) => (JobState::Done, Some(proof)),
        OnJob::Hold => (JobState::Proving, None),
    };
    let status = JobStatus { id, ..status(state) };
    shared.lock().jobs.insert(id, FakeJob { status: watch::channel(status.clone()).0, proof });
    (StatusCode::ACCEPTED, axum::Json(JobStatus { state: JobState::Queued, ..status })).into_response()
}

fn found<T>(shared: &Shared, id: &str, read: impl FnOnce(&FakeJob) -> T) -> Option<T> {
    shared.lock().jobs.get(&id.parse().expect("is an id")).map(read)
}

async fn job_status(State(shared): State<Shared>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    shared.lock().seen.push(Seen { method: "GET", headers, body: Vec::new() });
    if let Some(status) = found(&shared, &id, |job| job.status.borrow().clone()) {
        return axum::Json(status).into_response();
    }
    let script = shared.lock();
    let agreed = script.agreed.as_ref().and_then(|agreed| agreed.get(&id.parse().expect("is an id")));
    let sent_to = agreed.map(|pod| pod.as_str().into());
    refuse(&Problem { sent_to, ..Problem::new(ProblemType::NotFound) })
}

async fn job_proof(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    match found(&shared, &id, |job| (job.status.borrow().state, job.proof.clone())) {
        Some((_, Some(proof))) => proof.into_response(),
        Some((state, None)) if state != JobState::Done => refuse(&Problem::new(ProblemType::NotFinished)),
        // Unknown, or it has left the cache.
        Some(_) | None => refuse(&Problem::new(ProblemType::NotFound)),
    }
}

async fn events(State(shared): State<Shared>, Path(id): Path<String>) -> Response {
    let Some(statuses) = found(&shared, &id, |job| job.status.subscribe()) else {
        return refuse(&Problem::new(ProblemType::NotFound));
    };
    let short = shared.lock().short_events;
    let events = WatchStream::new(statuses)
        .take(if short { 1 } else { usize::MAX })
        .map(|status| Ok::<_, Infallible>(Event::default().event("status").json_data(status).expect("encodes")));
    Sse::new(events).into_response()
}

async fn agree(State(shared): State<Shared>, Path(id): Path<String>, body: Bytes) -> Response {
    let choice: Destination = serde_json::from_slice(&body).expect("is a destination");
    let mut script = shared.lock();
    script.seen.push(Seen { method: "PUT", headers: HeaderMap::new(), body: body.to_vec() });
    let Some(agreed) = &mut script.agreed else { return refuse(&Problem::new(ProblemType::NotFound)) };
    let counts = agreed.entry(id.parse().expect("is an id")).or_insert_with(|| choice.pod.clone());
    if choice.instead_of.as_ref() == Some(counts) {
        *counts = choice.pod;
    }
    axum::Json(Destination { pod: counts.clone(), instead_of: None }).into_response()
}

async fn cancel(State(shared): State<Shared>, headers: HeaderMap) -> StatusCode {
    shared.lock().seen.push(Seen { method: "DELETE", headers, body: Vec::new() });
    StatusCode::NO_CONTENT
}

/// Limits for tests: what takes seconds in a cluster takes tens of milliseconds here.
pub fn timing() -> Timing {
    Timing {
        connect: Duration::from_millis(500),
        ask: Duration::from_secs(2),
        send: Duration::from_secs(5),
        fetch: Duration::from_secs(5),
        backoff: Backoff { least: Duration::from_millis(10), most: Duration::from_millis(100) },
        silence: Duration::from_secs(5),
        poll: Duration::from_millis(10),
        resume: Duration::from_millis(200),
        resolve: Duration::from_millis(20),
        patience: Duration::from_secs(5),
        shun: Duration::from_secs(30),
    }
}

pub fn builder<'a>(pods: impl IntoIterator<Item = &'a FakePod>) -> ClientBuilder {
    Client::builder().endpoints(pods.into_iter().map(|pod| pod.url.clone())).timing(timing())
}

pub fn client<'a>(pods: impl IntoIterator<Item = &'a FakePod>) -> Client {
    builder(pods).build().expect("is valid")
}

/// Starts pods and sorts them into the order in which a client asks them for [`body`].
pub fn pods<const COUNT: usize>(on_job: &OnJob) -> [FakePod; COUNT] {
    let mut pods: Vec<_> = (0..COUNT).map(|_| FakePod::start(on_job.clone())).collect();
    let names: Vec<_> = pods.iter().map(|pod| pod.url.clone()).collect();
    let order: Vec<_> = rendezvous::order(&names, id()).into_iter().map(|index| names[index].clone()).collect();
    pods.sort_by_key(|pod| order.iter().position(|name| *name == pod.url));
    pods.try_into().unwrap_or_else(|_| unreachable!("as many as started"))
}

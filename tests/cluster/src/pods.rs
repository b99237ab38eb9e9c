//! Answers for simulated pods, which have no network: the operator asks here how they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

#[derive(Default)]
struct Told {
    /// Pods that do not answer.
    silent: Vec<String>,
    /// Whether nobody is heard at all.
    unheard: bool,
    /// Upgraders whose build does not know the next block's rules.
    outdated: Vec<String>,
    /// Running and queued proofs and queued seconds of prover pods whose name starts so.
    load: HashMap<String, (i64, i64, f64)>,
    asked: u64,
}

/// All pods are well until told otherwise.
#[derive(Clone)]
pub struct FakePods {
    told: Arc<Mutex<Told>>,
    port: u16,
}

impl FakePods {
    /// Starts answering.
    ///
    /// # Errors
    /// No port.
    pub async fn start() -> Result<Self> {
        let told = Arc::new(Mutex::new(Told::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let router = Router::new()
            .route("/{namespace}/{pod}/{port}/readyz", get(readyz))
            .route("/{namespace}/{pod}/{port}/v1/capacity", get(capacity))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&told), network))
            .with_state(Arc::clone(&told));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { told, port })
    }

    /// The value of the operator's `--poll-through`.
    pub fn through(&self) -> String {
        format!("http://127.0.0.1:{}/{{namespace}}/{{pod}}/{{port}}", self.port)
    }

    /// Makes a pod silent, or well again.
    pub fn silence(&self, pod: &str, silent: bool) {
        if let Ok(mut told) = self.told.lock() {
            told.silent.retain(|other| other != pod);
            if silent {
                told.silent.push(pod.to_owned());
            }
        }
    }

    /// Cuts the network to all pods, or mends it.
    pub fn cut(&self, cut: bool) {
        if let Ok(mut told) = self.told.lock() {
            told.unheard = cut;
        }
    }

    /// Makes an upgrader say that its build cannot prove under the next block's rules, as a real one does.
    pub fn outdate(&self, pod: &str) {
        if let Ok(mut told) = self.told.lock() {
            told.outdated.push(pod.to_owned());
        }
    }

    /// The work of all pods whose name starts so: running and queued proofs, queued seconds.
    pub fn load(&self, prefix: &str, running: i64, queued: i64, seconds: f64) {
        if let Ok(mut told) = self.told.lock() {
            told.load.insert(prefix.to_owned(), (running, queued, seconds));
        }
    }

    /// How many questions there were.
    pub fn asked(&self) -> u64 {
        self.told.lock().map_or(0, |told| told.asked)
    }
}

type Known = State<Arc<Mutex<Told>>>;

/// What lies between the operator and the pods.
async fn network(State(told): Known, request: Request, next: Next) -> Response {
    if told.lock().is_ok_and(|told| told.unheard) {
        // Longer than anybody waits.
        tokio::time::sleep(Duration::from_mins(1)).await;
    }
    next.run(request).await
}

async fn readyz(State(told): Known, Path((_, pod, _)): Path<(String, String, String)>) -> Response {
    let Ok(mut told) = told.lock() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    told.asked += 1;
    if told.silent.contains(&pod) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let ready = !told.outdated.contains(&pod);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, axum::Json(json!({ "ready": ready, "node": true, "provers": true, "rules": ready, "height": 7 }))).into_response()
}

async fn capacity(State(told): Known, Path((_, pod, _)): Path<(String, String, String)>) -> Response {
    let Ok(mut told) = told.lock() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    told.asked += 1;
    if told.silent.contains(&pod) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    // The longest prefix that fits: one pod's own word goes before that of its kind.
    let fitting =
        told.load.iter().filter(|(prefix, _)| pod.starts_with(prefix.as_str())).max_by_key(|(prefix, _)| prefix.len());
    let (running, jobs, seconds) = fitting.map_or((0, 0, 0.0), |(_, load)| *load);
    let body = json!({
        "idle": running == 0, "ready": true, "draining": false, "slots": 1, "running": running,
        "queue": { "normal": { "jobs": jobs, "seconds": seconds } },
        "body_bytes": 0, "max_body_bytes": 1, "proof_versions": [8], "backends": ["mock"], "mock": true,
    });
    axum::Json(body).into_response()
}

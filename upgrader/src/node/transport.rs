//! JSON-RPC over HTTP to the first node that answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use neptune_rpc_api::api::client::transport::Transport;
use neptune_rpc_api::model::json::{JsonError, JsonRequest, JsonResponse, JsonResult};
use serde_json::Value;

/// No answer of a node is larger: the proof collection of a block-sized transaction.
const MAX_ANSWER_BYTES: usize = 128 << 20;

/// To connect; a node is near.
const CONNECT: Duration = Duration::from_secs(3);

/// For a whole call, the largest answer included.
const CALL: Duration = Duration::from_mins(2);

/// How long an answer may pause.
const PAUSE: Duration = Duration::from_secs(10);

/// Counters of one method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeStats {
    /// Calls sent, failed ones included.
    pub calls: u64,
    /// Calls that no node answered.
    pub failures: u64,
    /// Bytes of requests.
    pub bytes_sent: u64,
    /// Bytes of answers.
    pub bytes_received: u64,
}

#[derive(Debug)]
struct Shared {
    urls: Vec<reqwest::Url>,
    http: reqwest::Client,
    current: AtomicUsize,
    last_id: AtomicU64,
    stats: Mutex<BTreeMap<String, NodeStats>>,
}

/// Nodes that hold the same chain and are asked one at a time.
#[derive(Debug, Clone)]
pub struct Nodes {
    shared: Arc<Shared>,
}

/// Why nodes cannot be asked at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot ask nodes: {0}")]
pub struct BadNodes(String);

impl Nodes {
    /// Nodes at these URLs, such as `http://127.0.0.1:9797`. The first is asked until it fails, then the next.
    ///
    /// # Errors
    /// [`BadNodes`] when there is none, or one is no URL.
    pub fn new<S: AsRef<str>>(urls: impl IntoIterator<Item = S>) -> Result<Self, BadNodes> {
        let parse = |url: S| {
            let url = url.as_ref();
            let parsed = url.parse::<reqwest::Url>().map_err(|error| BadNodes(format!("{url:?} is no URL: {error}")))?;
            if parsed.scheme() == "http" && parsed.host().is_some() {
                Ok(parsed)
            } else {
                Err(BadNodes(format!("{url:?}: nodes speak plain HTTP, such as http://127.0.0.1:9797")))
            }
        };
        let urls = urls.into_iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if urls.is_empty() {
            return Err(BadNodes("give at least one --node URL".to_owned()));
        }
        // Fails only when the program has chosen a provider already: then that one it is.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("upgrader-fleet/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .read_timeout(PAUSE)
            .tcp_nodelay(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // Nodes speak plain HTTP: no certificate is needed, and the system's would only cost memory.
            .tls_certs_only([])
            .build()
            .map_err(|error| BadNodes(error.to_string()))?;
        let shared = Shared { urls, http, current: AtomicUsize::new(0), last_id: AtomicU64::new(0), stats: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The node that is asked now.
    pub fn current(&self) -> &str {
        self.shared.urls[self.shared.current.load(Ordering::Relaxed) % self.shared.urls.len()].as_str()
    }

    /// What each method has cost so far.
    pub fn stats(&self) -> BTreeMap<String, NodeStats> {
        self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn count(&self, method: &str, count: impl FnOnce(&mut NodeStats)) {
        count(self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner).entry(method.to_owned()).or_default());
    }

    /// Sends a request to one node after the other until one answers with a success status.
    pub(super) async fn send(&self, method: &str, params: Value) -> JsonResult<reqwest::Response> {
        let id = self.shared.last_id.fetch_add(1, Ordering::Relaxed);
        let request = JsonRequest { jsonrpc: Some("2.0".to_owned()), method: method.to_owned(), params, id: Some(id.into()) };
        let body = serde_json::to_vec(&request).map_err(|_| JsonError::InvalidRequest)?;
        let first = self.shared.current.load(Ordering::Relaxed);
        let mut last = String::new();
        for attempt in 0..self.shared.urls.len() {
            let index = (first + attempt) % self.shared.urls.len();
            let url = self.shared.urls[index].clone();
            self.count(method, |stats| {
                stats.calls += 1;
                stats.bytes_sent += body.len() as u64;
            });
            let sent = self.shared.http.post(url).header("content-type", "application/json").body(body.clone()).send().await;
            match sent {
                Ok(response) if response.status().is_success() => {
                    if attempt > 0 {
                        self.shared.current.store(index, Ordering::Relaxed);
                        tracing::warn!(node = %self.shared.urls[index], why = %last, "asking another node");
                    }
                    return Ok(response);
                }
                Ok(response) => last = format!("HTTP status {}", response.status()),
                Err(error) => last = chain(&error),
            }
            self.count(method, |stats| stats.failures += 1);
        }
        Err(JsonError::ConnectionFailed { message: last })
    }

    /// Turns to the next node after an answer that made no sense.
    pub(super) fn distrust(&self) {
        self.shared.current.fetch_add(1, Ordering::Relaxed);
    }
}

/// An error with its causes: reqwest's own text names none.
pub(super) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[async_trait]
impl Transport for Nodes {
    async fn call(&self, method: &str, params: Value) -> JsonResult<Value> {
        let mut response = self.send(method, params).await?;
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER_BYTES => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Err(JsonError::HttpError { message: format!("more than {MAX_ANSWER_BYTES} bytes") }),
                Ok(None) => break,
                Err(error) => {
                    self.distrust();
                    self.count(method, |stats| stats.failures += 1);
                    return Err(JsonError::ConnectionFailed { message: chain(&error) });
                }
            }
        }
        self.count(method, |stats| stats.bytes_received += body.len() as u64);
        match serde_json::from_slice(&body) {
            Ok(JsonResponse::Success { result, .. }) => Ok(result),
            Ok(JsonResponse::Error { error, .. }) => Err(error),
            Err(_) => {
                self.distrust();
                Err(JsonError::ParseError)
            }
        }
    }
}

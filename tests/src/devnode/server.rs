//! The dev node on the wire.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use neptune_rpc_api::api::ops::{Namespace, RpcMethods};
use neptune_rpc_api::api::rpc::RpcApi;
use neptune_rpc_api::api::server::router::RpcRouter;
use neptune_rpc_api::model::json::{JsonError, JsonRequest, JsonResponse};
use parking_lot::{FairMutex, FairMutexGuard};
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::task::JoinHandle;

use super::chain::Chain;
use super::faults::{Fault, Faults};

/// A body limit as the node's for submissions.
const MAX_BODY_BYTES: usize = 120 << 20;

/// Chain, counters and what is shown of them.
pub(super) struct Inner {
    /// In the order of those who come, as a node's lock: a test that commands it again and again keeps no answer waiting.
    chain: FairMutex<Chain>,
    /// Height at which the shown tip is held, plus one; zero: the true tip is shown.
    stale: AtomicU64,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

impl Inner {
    pub(super) fn chain(&self) -> FairMutexGuard<'_, Chain> {
        self.chain.lock()
    }

    pub(super) fn shown_height(&self) -> u64 {
        let height = self.chain().height();
        match self.stale.load(Ordering::Relaxed) {
            0 => height,
            stale => height.min(stale - 1),
        }
    }

    pub(super) fn count_submission(&self, accepted: bool) {
        let counter = if accepted { &self.accepted } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

struct Shared {
    router: RpcRouter,
    faults: Faults,
    /// Held while a question is being answered.
    asked: RwLock<()>,
}

/// A running dev node. Dropping it stops it.
pub struct DevNode {
    inner: Arc<Inner>,
    shared: Arc<Shared>,
    url: String,
    server: JoinHandle<()>,
}

impl DevNode {
    /// Serves a chain on this address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken.
    pub async fn start(chain: Chain, address: &str) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let inner = Arc::new(Inner {
            chain: FairMutex::new(chain),
            stale: AtomicU64::new(0),
            accepted: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        });
        let api: Arc<dyn RpcApi> = inner.clone();
        let modules = [Namespace::Node, Namespace::Chain, Namespace::Archival, Namespace::Mempool, Namespace::Wallet];
        let router = RpcMethods::new_router(api, HashSet::from(modules));
        let shared = Arc::new(Shared { router, faults: Faults::default(), asked: RwLock::default() });
        let routes =
            Router::new().route("/", post(answer)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)).with_state(shared.clone());
        let server = tokio::spawn(async move {
            // Ends with the node: an error here is the end of the process.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { inner, shared, url, server })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The chain, to look at and to command. Answers wait while the guard lives.
    pub fn chain(&self) -> FairMutexGuard<'_, Chain> {
        self.inner.chain()
    }

    /// Waits until all who have asked so far are answered.
    pub async fn answered(&self) {
        drop(self.shared.asked.write().await);
    }

    /// The next answers go wrong.
    pub fn fault(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.add(faults);
    }

    /// Shows the present tip as the tip, whatever is mined, until [`Self::thaw`].
    pub fn freeze(&self) {
        let height = self.inner.chain().height();
        self.inner.stale.store(height + 1, Ordering::Relaxed);
    }

    /// Shows the true tip again.
    pub fn thaw(&self) {
        self.inner.stale.store(0, Ordering::Relaxed);
    }

    /// Submissions so far: accepted, refused.
    pub fn submissions(&self) -> (usize, usize) {
        (self.inner.accepted.load(Ordering::Relaxed), self.inner.refused.load(Ordering::Relaxed))
    }
}

impl Drop for DevNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let fault = shared.faults.next();
    match fault {
        Some(Fault::Error) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Some(Fault::Delay(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Truncate | Fault::Drip(_)) | None => {}
    }
    let asked = shared.asked.read().await;
    let response = match serde_json::from_slice::<JsonRequest>(&body) {
        Ok(request) => match shared.router.dispatch(&request.method, request.params).await {
            Ok(result) => JsonResponse::success(request.id, result),
            Err(error) => JsonResponse::error(request.id, error),
        },
        Err(_) => JsonResponse::error(None, JsonError::ParseError),
    };
    drop(asked);
    let Ok(text) = serde_json::to_vec(&response) else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
    let json = [(header::CONTENT_TYPE, "application/json")];
    match fault {
        Some(Fault::Truncate) => {
            let broken = futures::stream::iter([Ok(Bytes::from(text[..text.len() / 2].to_vec())), Err("broken off")]);
            (json, Body::from_stream(broken)).into_response()
        }
        Some(Fault::Drip(pause)) => {
            let drops = futures::stream::unfold(text.into_iter(), move |mut rest| async move {
                let byte = rest.next()?;
                tokio::time::sleep(pause).await;
                Some((Ok::<_, std::convert::Infallible>(Bytes::from(vec![byte])), rest))
            });
            (json, Body::from_stream(drops)).into_response()
        }
        _ => (json, text).into_response(),
    }
}

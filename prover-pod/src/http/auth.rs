//! Who may use the API: bearer tokens from a file that may change, and service accounts of the cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prover_api::{Problem, ProblemType};
use ring::digest::{Digest, SHA256, digest};
use tracing::{info, warn};

use super::problem::ApiError;
use super::review::{Reviewer, Unchecked};

/// How often the file is read.
const RELOAD: Duration = Duration::from_secs(2);

/// The tokens that open the API; without a file it is open.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    required: bool,
    accepted: Arc<ArcSwapOption<Vec<Digest>>>,
    reviewer: Option<Arc<Reviewer>>,
}

impl Tokens {
    /// Reads the file, one token a line, and goes on reading it: a rotated Secret needs no restart, and with two lines the old
    /// token holds until its users have the new one.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub fn from_file(path: Option<PathBuf>) -> std::io::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let first = read(&path)?;
        let tokens = Self { required: true, accepted: Arc::new(ArcSwapOption::from_pointee(first)), reviewer: None };
        let accepted = Arc::downgrade(&tokens.accepted);
        tokio::spawn(async move {
            let mut clock = tokio::time::interval(RELOAD);
            loop {
                clock.tick().await;
                let Some(accepted) = accepted.upgrade() else { return };
                let file = path.clone();
                let Ok(read) = tokio::task::spawn_blocking(move || read(&file)).await else { return };
                match read {
                    Ok(new) => {
                        let same = accepted.load().as_ref().is_some_and(|old| same(old, &new));
                        if !same {
                            info!(path = %path.display(), tokens = new.len(), "bearer tokens reloaded");
                            accepted.store(Some(Arc::new(new)));
                        }
                    }
                    // A Secret is swapped by renaming; for a moment the file may be missing.
                    Err(error) => warn!(path = %path.display(), %error, "bearer tokens not reloaded, the old ones hold"),
                }
            }
        });
        Ok(tokens)
    }

    /// Lets service accounts in, too.
    #[must_use]
    pub fn with_reviewer(self, reviewer: Reviewer) -> Self {
        Self { required: true, reviewer: Some(Arc::new(reviewer)), ..self }
    }

    /// Whether requests need a token.
    pub fn required(&self) -> bool {
        self.required
    }

    async fn admit(&self, header: Option<String>) -> Result<bool, Unchecked> {
        let Some(token) = header.as_deref().and_then(|value| value.strip_prefix("Bearer ")).map(str::trim) else {
            return Ok(!self.required);
        };
        if !self.required || self.holds(token) {
            return Ok(true);
        }
        match &self.reviewer {
            Some(reviewer) => reviewer.admits(token).await,
            None => Ok(false),
        }
    }

    /// Whether this is one of the file's. Digests are compared, so that the time taken tells nothing about the token.
    fn holds(&self, token: &str) -> bool {
        let given = digest(&SHA256, token.as_bytes());
        let accepted = self.accepted.load();
        accepted.as_ref().is_some_and(|accepted| accepted.iter().any(|one| one.as_ref() == given.as_ref()))
    }
}

fn read(path: &std::path::Path) -> std::io::Result<Vec<Digest>> {
    let text = std::fs::read_to_string(path)?;
    let tokens: Vec<Digest> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| digest(&SHA256, line.as_bytes())).collect();
    if tokens.is_empty() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "the token file is empty"));
    }
    Ok(tokens)
}

fn same(old: &[Digest], new: &[Digest]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.as_ref() == new.as_ref())
}

/// Middleware: 401 without a valid token, 503 while nobody can say whether it is.
pub async fn require_token(State(tokens): State<Tokens>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    match tokens.admit(header).await {
        Ok(true) => next.run(request).await,
        Ok(false) => {
            ApiError(Problem::new(ProblemType::Unauthorized).detail("send `Authorization: Bearer <token>`")).into_response()
        }
        Err(Unchecked) => ApiError(Problem::new(ProblemType::TokenUnchecked)).into_response(),
    }
}

//! The pods that a person names on the command line.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use prover_api::client::{BuildError, Client, Token};

use crate::status::{Answer, PodReport};

/// How long a command waits, before it ends, until the pods know that it no longer wants its jobs.
const SETTLE: Duration = Duration::from_secs(3);

/// Which pods, and how to talk to them.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Pods")]
pub struct PodArgs {
    /// Prover pods: http[s]://host:port of each, separated by commas, or dns+http[s]://name:port for a headless Service
    #[arg(long = "pods", value_name = "URLS", env = "UPGRADER_FLEET_PODS", value_delimiter = ',')]
    urls: Vec<String>,
    /// File with the bearer token that the pods ask for
    #[arg(long, value_name = "FILE", env = "UPGRADER_FLEET_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the certificate authorities to trust, instead of the system's
    #[arg(long, value_name = "FILE", env = "UPGRADER_FLEET_CA_FILE")]
    ca_file: Option<PathBuf>,
}

impl PodArgs {
    /// Pods at these URLs, without token or certificate.
    pub fn at(urls: impl IntoIterator<Item = String>) -> Self {
        Self { urls: urls.into_iter().collect(), ..Self::default() }
    }

    /// A client of these pods. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: no pod is named, or a URL or file is unusable.
    pub fn connect(&self) -> Result<Client, ConnectError> {
        if self.urls.is_empty() {
            return Err(ConnectError::NoPods);
        }
        let mut builder = Client::builder().endpoints(&self.urls);
        if let Some(path) = &self.token_file {
            let token = Token::from_file(path).map_err(|source| ConnectError::Token { path: path.clone(), source })?;
            builder = builder.token(token);
        }
        if let Some(path) = &self.ca_file {
            builder = builder.authorities(path);
        }
        Ok(builder.build()?)
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody said where the pods are.
    #[error("no prover pods: name them with --pods http://HOST:PORT or in UPGRADER_FLEET_PODS")]
    NoPods,
    /// The token file is missing or empty.
    #[error("cannot read the token file {}", path.display())]
    Token {
        /// Where.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// A URL or the certificate file is unusable.
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// What all pods say of themselves.
pub async fn reports(client: &Client) -> Vec<PodReport> {
    let statuses = client.status_all().await.into_iter();
    statuses
        .map(|status| PodReport {
            url: status.pod,
            answer: match status.answer {
                Ok((capacity, devices)) => Answer::Up { capacity: Box::new(capacity), devices },
                Err(error) => Answer::Down { error },
            },
        })
        .collect()
}

/// Waits, for a moment, until pods know of the jobs that nobody wants any more.
pub async fn settle(client: &Client) {
    // What is not withdrawn by then is proven for nobody: the pod's loss of time, nothing of ours.
    let _in_time = client.settle(SETTLE).await;
}

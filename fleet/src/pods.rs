//! The pods that a person names on the command line.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use prover_api::client::{BuildError, Client, Token};

use crate::local::directory::{DirectoryError, Layout, default_path};
use crate::local::plan::Role;
use crate::local::record::FleetRecord;
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
    #[command(flatten)]
    local: LocalArgs,
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
        if let Some(fleet) = self.fleet()? {
            let path = fleet.token_file.clone();
            let token = Token::from_file(&path).map_err(|source| ConnectError::Token { path, source })?;
            return Ok(Client::builder().endpoints(fleet.urls(Role::Prover)).token(token).build()?);
        }
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

    /// The fleet of this machine that is meant, if one is: by `--local`, or because no pods are named and one runs.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Local`].
    pub fn fleet(&self) -> Result<Option<FleetRecord>, ConnectError> {
        Ok(self.local.fleet(!self.urls.is_empty())?)
    }
}

/// Which fleet of this machine.
#[derive(Debug, Clone, Default, clap::Args)]
#[expect(clippy::option_option, reason = "clap's form of an option whose value may be left out")]
pub struct LocalArgs {
    /// The fleet that `fleet local` runs in this directory; without a value in its default one. Chosen by itself where nothing else
    /// is named
    #[arg(long, value_name = "DIR")]
    local: Option<Option<PathBuf>>,
}

impl LocalArgs {
    /// The fleet that is meant, if one is: by `--local`, or because nothing else is `named` and one runs in the default directory.
    ///
    /// # Errors
    ///
    /// [`DirectoryError`]: there is none where it should be.
    pub fn fleet(&self, named: bool) -> Result<Option<FleetRecord>, DirectoryError> {
        match &self.local {
            Some(path) => Layout::of(&path.clone().unwrap_or_else(default_path)).running().map(Some),
            None if named => Ok(None),
            None => match Layout::of(&default_path()).running() {
                Err(DirectoryError::NotRunning(_)) => Ok(None),
                found => found.map(Some),
            },
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody said where the pods are.
    #[error(
        "no prover pods: name them with --pods http://HOST:PORT or in UPGRADER_FLEET_PODS, or start a fleet here with `fleet local`"
    )]
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
    /// There is no such fleet on this machine.
    #[error(transparent)]
    Local(#[from] DirectoryError),
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

//! Settings: flags, else environment, else the configuration file, else defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use clap::builder::styling::Styles;
use prover_api::Priority;
use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;

/// The word for no fallback.
const NONE: &str = "none";
/// How long pods may refuse or be silent when a local prover waits.
const PATIENCE_WITH_FALLBACK: Duration = Duration::from_secs(30);
/// How long they may when nobody else can help.
const PATIENCE_ALONE: Duration = Duration::from_mins(5);

/// Has a node's proofs made by prover pods.
///
/// For neptune-core: NEPTUNE_PROVER_PROXY=/usr/local/bin/prover-proxy in the node's environment. For xnt-core:
/// TRITON_VM_PROVER_PATH=/usr/local/bin/prover-proxy, or a link named triton-vm-prover beside the node. The job comes on standard
/// input, the proof goes to standard output. Exit code 0: proof made; 200 + n: the padded height 2^n is over the node's limit;
/// any other: failed, standard error says why.
#[derive(Debug, Parser)]
#[command(name = "prover-proxy", version, styles = Styles::plain())]
pub struct Flags {
    /// Where the pods are: http://host:port, https://host:port, or dns+http://service:port for all addresses of a headless Service
    #[arg(long, env = "PROVER_PROXY_ENDPOINTS", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// File with the bearer token
    #[arg(long, env = "PROVER_PROXY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// File with the certificate authorities (PEM) to trust instead of the system's
    #[arg(long, env = "PROVER_PROXY_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// How urgent all jobs are; otherwise block proofs are high and all else is normal
    #[arg(long, env = "PROVER_PROXY_PRIORITY")]
    priority: Option<Priority>,
    /// Local prover to start when no pod can make the proof, or "none"
    #[arg(long, env = "PROVER_PROXY_FALLBACK", value_name = "PATH|none")]
    fallback: Option<PathBuf>,
    /// How long no pod may take the job before it is given up or falls back, such as 90s [default: 30s with a fallback, else 5m]
    #[arg(long, env = "PROVER_PROXY_PATIENCE", value_parser = humantime::parse_duration)]
    patience: Option<Duration>,
    /// Not on GPUs, as long as a pod has a CPU prover
    #[arg(long, env = "PROVER_PROXY_FORCE_CPU")]
    force_cpu: bool,
    /// JSON file with any of these settings, in snake_case; flags and environment go before it
    #[arg(long, env = "PROVER_PROXY_CONFIG")]
    config: Option<PathBuf>,
    /// error, warn, info, debug or trace
    #[arg(long, env = "PROVER_PROXY_LOG", default_value = "info")]
    log: LevelFilter,
}

impl Flags {
    /// The level to log at.
    pub fn log_level(&self) -> LevelFilter {
        self.log
    }
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigFile {
    endpoints: Vec<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    priority: Option<Priority>,
    fallback: Option<PathBuf>,
    patience: Option<String>,
    force_cpu: bool,
}

/// The settings that hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Where the pods are.
    pub endpoints: Vec<String>,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
    /// File with the certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// For all jobs.
    pub priority: Option<Priority>,
    /// A local prover.
    pub fallback: Option<PathBuf>,
    /// How long no pod may take the job.
    pub patience: Duration,
    /// Not on GPUs.
    pub force_cpu: bool,
}

impl Options {
    /// Completes the flags from the file that they name.
    ///
    /// # Errors
    /// When the file is unusable, no endpoint is given, or the fallback is this very program.
    pub fn load(flags: Flags) -> anyhow::Result<Self> {
        let file = flags.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        let options = Self::merge(flags, file)?;
        if let Some(fallback) = &options.fallback {
            let own = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
            let other =
                fallback.canonicalize().with_context(|| format!("the fallback {} cannot be found", fallback.display()))?;
            ensure!(own.as_ref() != Some(&other), "the fallback is prover-proxy itself; name a prover, or {NONE}");
        }
        Ok(options)
    }

    fn merge(flags: Flags, file: ConfigFile) -> anyhow::Result<Self> {
        let endpoints = if flags.endpoints.is_empty() { file.endpoints } else { flags.endpoints };
        let endpoints: Vec<String> =
            endpoints.iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect();
        if endpoints.is_empty() {
            bail!("no prover pods: set PROVER_PROXY_ENDPOINTS (or --endpoints), such as http://127.0.0.1:8080");
        }
        let fallback = flags.fallback.or(file.fallback).filter(|path| path != Path::new(NONE));
        let from_file = file.patience.as_deref().map(humantime::parse_duration).transpose();
        let from_file = from_file.context("the configuration file's patience is no time, such as 90s")?;
        let default = if fallback.is_some() { PATIENCE_WITH_FALLBACK } else { PATIENCE_ALONE };
        Ok(Self {
            endpoints,
            token_file: flags.token_file.or(file.token_file),
            ca_file: flags.ca_file.or(file.ca_file),
            priority: flags.priority.or(file.priority),
            patience: flags.patience.or(from_file).unwrap_or(default),
            force_cpu: flags.force_cpu || file.force_cpu,
            fallback,
        })
    }
}

impl ConfigFile {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("the configuration file {} cannot be read", path.display()))?;
        serde_json::from_slice(&text)
            .with_context(|| format!("the configuration file {} is not as it should be", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(arguments: &[&str]) -> Flags {
        Flags::try_parse_from([&["prover-proxy"], arguments].concat()).expect("parses")
    }

    fn file(json: &str) -> ConfigFile {
        serde_json::from_str(json).expect("parses")
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let json =
            r#"{"endpoints":["http://file:1"],"priority":"low","fallback":"/bin/true","patience":"7s","token_file":"/t"}"#;
        let from_file = Options::merge(flags(&[]), file(json)).expect("is complete");
        assert_eq!(from_file.endpoints, ["http://file:1"]);
        assert_eq!((from_file.priority, from_file.patience), (Some(Priority::Low), Duration::from_secs(7)));
        let arguments =
            ["--endpoints", "http://a:1, http://b:1,", "--priority", "highest", "--fallback", "none", "--patience", "1m"];
        let both = Options::merge(flags(&arguments), file(json)).expect("is complete");
        assert_eq!(both.endpoints, ["http://a:1", "http://b:1"]);
        assert_eq!((both.priority, both.fallback.clone()), (Some(Priority::Highest), None));
        assert_eq!((both.patience, both.token_file), (Duration::from_mins(1), Some("/t".into())));
        let defaults = Options::merge(flags(&["--endpoints", "http://a:1"]), ConfigFile::default()).expect("is complete");
        assert_eq!((defaults.patience, defaults.priority, defaults.force_cpu), (PATIENCE_ALONE, None, false));
    }

    #[test]
    fn what_cannot_work_is_said_at_the_start() {
        assert!(Options::merge(flags(&[]), ConfigFile::default()).is_err());
        assert!(Options::merge(flags(&["--endpoints", "http://a:1"]), file(r#"{"patience":"soon"}"#)).is_err());
        assert!(serde_json::from_str::<ConfigFile>(r#"{"endpoint":[]}"#).is_err(), "a misspelt setting");
        let own = std::env::current_exe().expect("has a path");
        let own = own.to_str().expect("is text");
        for fallback in [own, "/no/such/prover"] {
            assert!(Options::load(flags(&["--endpoints", "http://a:1", "--fallback", fallback])).is_err(), "{fallback}");
        }
    }
}

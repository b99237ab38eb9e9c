//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Reconciles UpgraderFleet resources into upgrader and prover pods.
#[derive(Debug, Parser)]
#[command(name = "operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run until told to stop.
    Run(Box<Run>),
    /// Ask a page of a running operator, and fail when it does not answer well. For probes of images that have no curl.
    Check {
        /// For example http://127.0.0.1:8080/readyz.
        url: String,
        /// Ask again for so many seconds until it does. A Service that has just got its first pod is not known everywhere at once.
        #[arg(long, default_value_t = 0)]
        within: u64,
    },
    /// Print what is generated from the code.
    Generate {
        /// What.
        #[arg(value_enum)]
        what: Generated,
    },
}

/// What is generated from the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Generated {
    /// The custom resource definition, YAML.
    Crd,
    /// The rules of the operator's role, YAML.
    Rbac,
    /// The groups of alerts, YAML.
    Alerts,
    /// The reference of the custom resource, Markdown.
    Reference,
}

/// How lines are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Options of `run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Where to listen for /healthz, /readyz, /metrics and /log.
    #[arg(long, env = "OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// The only namespace to look after. Default: all.
    #[arg(long, env = "OPERATOR_WATCH_NAMESPACE")]
    pub watch_namespace: Option<String>,
    /// Namespace of the Lease, and of the operator's pods.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Name of the Lease that one of several operators holds.
    #[arg(long, env = "OPERATOR_LEASE", default_value = "upgrader-fleet-operator")]
    pub lease: String,
    /// Who this process is, in the Lease. Default: the host's name and random digits.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Seconds that a Lease holds.
    #[arg(long, env = "OPERATOR_LEASE_SECONDS", default_value = "15", value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_seconds: u16,
    /// Image of the upgrader, where a fleet names none.
    #[arg(long, env = "OPERATOR_UPGRADER_IMAGE", default_value = concat!("ghcr.io/upgrader-fleet/upgrader:", env!("CARGO_PKG_VERSION")))]
    pub upgrader_image: String,
    /// Image of the prover pod, where a fleet names none.
    #[arg(long, env = "OPERATOR_PROVER_IMAGE", default_value = concat!("ghcr.io/upgrader-fleet/prover-pod:", env!("CARGO_PKG_VERSION")))]
    pub prover_image: String,
    /// Seconds between two questions to each pod how it is; 0 relies on the kubelet's probes alone.
    #[arg(long, env = "OPERATOR_POLL_SECONDS", default_value = "5", value_parser = clap::value_parser!(u16).range(0..=300))]
    pub poll_seconds: u16,
    /// Fleets reconciled at once. Each has up to eight writes under way: more only wait for each other in the API server.
    #[arg(long, env = "OPERATOR_CONCURRENCY", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// Days after which the provers' token is replaced; the one before stays valid as long again.
    #[arg(long, env = "OPERATOR_TOKEN_DAYS", default_value = "30", value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub token_days: u16,
    /// How lines are logged; `RUST_LOG` says which.
    #[arg(long, env = "OPERATOR_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Where pods are asked instead of at their addresses, as URL with {namespace}, {pod} and {port}; for tests without a pod network.
    #[arg(long, hide = true)]
    pub poll_through: Option<String>,
    /// Writes after which the process aborts, as a crash would; for tests of what happens then.
    #[arg(long, hide = true)]
    pub abort_after_writes: Option<u64>,
}

impl Run {
    /// How long a Lease holds.
    pub fn lease_duration(&self) -> Duration {
        Duration::from_secs(u64::from(self.lease_seconds))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}

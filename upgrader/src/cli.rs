//! The command line. Where a flag does what a flag of neptune-core does, it has that flag's name and default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_primitives::network::Network;

use crate::Shard;

/// How lines are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Watches a node's mempool and upgrades the proofs of its transactions through prover pods.
///
/// Holds neither chain data nor a wallet: fees go to --fee-address and are announced on chain.
#[derive(Debug, Clone, Parser)]
#[command(name = "upgrader", version)]
pub struct Cli {
    /// JSON-RPC of a node (`neptune-core --listen-rpc … --rpc-modules Node,Chain,Archival,Mempool,Wallet`), such as
    /// http://127.0.0.1:9797. Give it again for nodes to fall back on.
    #[arg(long = "node", env = "UPGRADER_NODES", value_delimiter = ',', required = true)]
    pub nodes: Vec<String>,

    /// A prover pod, such as http://127.0.0.1:8080, or dns+http://prover-pods:8080 for all pods behind a name. May be given again.
    #[arg(long = "provers", env = "UPGRADER_PROVERS", value_delimiter = ',', required = true)]
    pub provers: Vec<String>,

    /// File with the bearer token for the prover pods, read again when it changes.
    #[arg(long, env = "UPGRADER_PROVER_TOKEN_FILE")]
    pub prover_token_file: Option<PathBuf>,

    /// The network; has to be the node's.
    #[arg(long, env = "UPGRADER_NETWORK", default_value = "main")]
    pub network: Network,

    /// Upgrade proofs. With `false` it watches and explains only.
    #[arg(long, env = "UPGRADER_TX_PROOF_UPGRADING", default_value_t = true, default_missing_value = "true", num_args = 0..=1, action = clap::ArgAction::Set)]
    pub tx_proof_upgrading: bool,

    /// Upgrade only transactions whose id's last byte modulo the first number is the second.
    #[arg(long, env = "UPGRADER_TX_UPGRADE_FILTER", default_value = "1:0")]
    pub tx_upgrade_filter: Shard,

    /// The share of a raised transaction's fee to keep, from 0 to 1.
    #[arg(long, env = "UPGRADER_GOBBLING_FRACTION", default_value = "0.6", value_parser = fraction)]
    pub gobbling_fraction: f64,

    /// Leave alone what brings less than this many coins. 0 works for free, and updates strangers' transactions too.
    #[arg(long, env = "UPGRADER_MIN_GOBBLING_FEE", default_value = "0.01", value_parser = coins)]
    pub min_gobbling_fee: NativeCurrencyAmount,

    /// Do not raise collections with more proofs than this.
    #[arg(long, env = "UPGRADER_MAX_NUM_PROOFS", default_value_t = 16)]
    pub max_num_proofs: usize,

    /// Generation address that fees go to. Without one nothing is gobbled, and only --min-gobbling-fee 0 upgrades anything.
    #[arg(long, env = "UPGRADER_FEE_ADDRESS")]
    pub fee_address: Option<String>,

    /// File with the secret that all upgraders of a fleet share, 32 characters at least: with it they choose alike, and equal work
    /// is proven once. It spends nothing. Without one each start makes its own, and interrupted work is proven again.
    #[arg(long, env = "UPGRADER_FLEET_SECRET_FILE")]
    pub fleet_secret_file: Option<PathBuf>,

    /// Upgrades at once. A node does one.
    #[arg(long, env = "UPGRADER_MAX_PARALLEL_UPGRADES", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_parallel_upgrades: u16,

    /// Pause between two looks at the mempool.
    #[arg(long, env = "UPGRADER_POLL_INTERVAL", default_value = "1s", value_parser = humantime::parse_duration)]
    pub poll_interval: Duration,

    /// What an hour of proving costs, in coins: for the metric that stands beside the fees.
    #[arg(long, env = "UPGRADER_PRICE_PER_PROVER_HOUR", default_value_t = 0.0)]
    pub price_per_prover_hour: f64,

    /// Where to serve /healthz, /readyz, /metrics, /upgrades and /explain/TXID. Port 0 takes a free one.
    #[arg(long, env = "UPGRADER_LISTEN", default_value = "127.0.0.1:9810")]
    pub listen: SocketAddr,

    /// File to write the port to, once it is bound.
    #[arg(long)]
    pub port_file: Option<PathBuf>,

    /// Time that running upgrades have to end after SIGTERM.
    #[arg(long, env = "UPGRADER_GRACE_PERIOD", default_value = "10m", value_parser = humantime::parse_duration)]
    pub grace_period: Duration,

    /// On networks with mock proofs: how long a mock proof of 2^22 rows takes; each power of two less takes half of it.
    #[arg(long, env = "UPGRADER_MOCK_PROOF_TIME", default_value = "400ms", value_parser = humantime::parse_duration)]
    pub mock_proof_time: Duration,

    /// How lines are logged; `RUST_LOG` says which.
    #[arg(long, env = "UPGRADER_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

fn fraction(text: &str) -> Result<f64, String> {
    let fraction: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if (0.0..=1.0).contains(&fraction) { Ok(fraction) } else { Err("a fraction is from 0 to 1".to_owned()) }
}

fn coins(text: &str) -> Result<NativeCurrencyAmount, String> {
    let amount = NativeCurrencyAmount::coins_from_str(text).map_err(|error| error.to_string())?;
    if amount.is_negative() { Err("an amount is not negative".to_owned()) } else { Ok(amount) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::policy::Policy;

    fn parse(more: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["upgrader", "--node", "http://n:1", "--provers", "http://p:1"].iter().chain(more))
    }

    #[test]
    fn it_is_well_formed_and_has_the_nodes_defaults() {
        Cli::command().debug_assert();
        let cli = parse(&[]).expect("parses");
        let policy = Policy::default();
        assert_eq!(cli.tx_upgrade_filter, Shard::ALL);
        assert!((cli.gobbling_fraction - policy.gobbling_fraction).abs() < f64::EPSILON);
        assert_eq!(cli.min_gobbling_fee, policy.min_gobbling_fee);
        assert_eq!(cli.max_num_proofs, policy.max_num_proofs);
        assert_eq!(cli.network, Network::Main);
    }

    #[test]
    fn nonsense_is_refused_with_upstreams_words() {
        for (arguments, message) in [
            (["--tx-upgrade-filter", "4:7"], "remainder (7) must be less than divisor (4)"),
            (["--gobbling-fraction", "1.5"], "from 0 to 1"),
            (["--min-gobbling-fee", "-1"], "not negative"),
        ] {
            let arguments = [format!("{}={}", arguments[0], arguments[1])];
            let error = parse(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).expect_err("is refused").to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}

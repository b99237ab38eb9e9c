//! A node for trying out upgraders: mock proofs, a wallet that pays itself, the JSON-RPC of neptune-core.
//!
//! ```console
//! $ dev-node --listen 127.0.0.1:9797 --arrivals 2 --block-interval 60
//! ```
//!
//! What it does has variables, too: `fleet local --devnet` hands its environment down.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_primitives::network::Network;
use tokio::signal::unix::{SignalKind, signal};
use upgrader_fleet_tests::devnode::{Chain, DevNode};

/// A node for trying out upgraders: mock proofs, a wallet that pays itself, the JSON-RPC of neptune-core
#[derive(Debug, Parser)]
struct Options {
    /// Where to serve JSON-RPC
    #[arg(long, default_value = "127.0.0.1:9797")]
    listen: SocketAddr,
    /// regtest or testnet-mock
    #[arg(long, default_value = "regtest")]
    network: Network,
    /// Coins of 100 that its wallet begins with; each transaction spends one, each block brings one
    #[arg(long, env = "DEV_NODE_COINS", default_value_t = 100)]
    coins: usize,
    /// Transactions sent per minute
    #[arg(long, env = "DEV_NODE_ARRIVALS", default_value_t = 6.0, value_parser = positive)]
    arrivals: f64,
    /// Seconds between blocks
    #[arg(long, env = "DEV_NODE_BLOCK_INTERVAL", default_value_t = 60.0, value_parser = positive)]
    block_interval: f64,
    /// What each transaction pays
    #[arg(long, env = "DEV_NODE_FEE", default_value = "1", value_parser = NativeCurrencyAmount::coins_from_str)]
    fee: NativeCurrencyAmount,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("it has to be positive".to_owned()) }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dev-node: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<()> {
    let node = DevNode::start(Chain::new(options.network, options.coins)?, &options.listen.to_string()).await?;
    println!("dev node on {} at {}", options.network, node.url());
    let pause = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let mut arrivals = tokio::time::interval(pause(60.0 / options.arrivals).max(Duration::from_millis(1)));
    let mut blocks = tokio::time::interval(pause(options.block_interval).max(Duration::from_millis(1)));
    blocks.tick().await;
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = arrivals.tick() => match node.chain().send(options.fee) {
                Ok(txid) => println!("sent {txid}"),
                Err(error) => eprintln!("dev-node: {error}"),
            },
            _ = blocks.tick() => {
                let mined = node.chain().mine(usize::MAX)?;
                println!("block {} with {} transactions", node.chain().height(), mined.len());
            }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(());
            }
            _ = terminate.recv() => return Ok(()),
        }
    }
}

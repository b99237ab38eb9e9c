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
use neptune_mutator_set::removal_record::absolute_index_set::AbsoluteIndexSet;
use neptune_primitives::network::Network;
use tokio::signal::unix::{SignalKind, signal};
use upgrader::TxId;
use upgrader::node::txid_of;
use upgrader_fleet_tests::devnode::{Chain, DevNode};
use upgrader_fleet_tests::upgraders;

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
    /// Transactions sent in all; default: as many as the wallet has coins for
    #[arg(long, env = "DEV_NODE_TRANSACTIONS")]
    transactions: Option<usize>,
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

/// What the dev node has sent and no block has taken yet, and what each of them spends: an upgraded transaction has another id, and
/// a merged one is several at once.
#[derive(Default)]
struct Sent {
    count: usize,
    pending: Vec<(TxId, AbsoluteIndexSet)>,
}

impl Sent {
    fn send(&mut self, chain: &mut Chain, fee: NativeCurrencyAmount) -> Result<TxId> {
        let txid = chain.send(fee)?;
        self.count += 1;
        let input = chain.transaction(txid).and_then(|transaction| transaction.kernel.inputs.first());
        self.pending.extend(input.map(|input| (txid, input.absolute_indices)));
        Ok(txid)
    }

    /// Mines a block with all that can be in it. Gives each transaction that it took, by the id that it was sent with and the id that
    /// it was mined with.
    fn mine(&mut self, chain: &mut Chain) -> Result<Vec<(TxId, TxId)>> {
        let spender = |input: AbsoluteIndexSet| {
            let found = chain.mempool().with_matching_absolute_index_sets(&[input].into());
            found.into_iter().map(|(kernel, _)| txid_of(&kernel)).collect::<Vec<_>>()
        };
        let spenders: Vec<_> = self.pending.iter().map(|(_, input)| spender(*input)).collect();
        let mined = chain.mine(usize::MAX)?;
        let mut taken = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        for ((txid, input), spenders) in pending.into_iter().zip(spenders) {
            match spenders.iter().find(|spender| mined.contains(spender)) {
                Some(result) => taken.push((txid, *result)),
                None => self.pending.push((txid, input)),
            }
        }
        Ok(taken)
    }
}

async fn run(options: Options) -> Result<()> {
    let node = DevNode::start(Chain::new(options.network, options.coins)?, &options.listen.to_string()).await?;
    println!("dev node on {} at {}", options.network, node.url());
    if options.network == upgraders::NETWORK {
        println!("an address that fees may go to: {}", upgraders::fee_address()?);
    }
    let pause = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let mut arrivals = tokio::time::interval(pause(60.0 / options.arrivals).max(Duration::from_millis(1)));
    let mut blocks = tokio::time::interval(pause(options.block_interval).max(Duration::from_millis(1)));
    blocks.tick().await;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut sent = Sent::default();
    loop {
        let more = options.transactions.is_none_or(|most| sent.count < most);
        tokio::select! {
            _ = arrivals.tick(), if more => match sent.send(&mut node.chain(), options.fee) {
                Ok(txid) => println!("sent {txid}"),
                Err(error) => eprintln!("dev-node: {error}"),
            },
            _ = blocks.tick() => {
                let (mined, height) = {
                    let mut chain = node.chain();
                    (sent.mine(&mut chain)?, chain.height())
                };
                for (txid, result) in &mined {
                    println!("mined {txid} in {result}");
                }
                println!("block {height} ({} pending) with {} transactions", sent.pending.len(), mined.len());
            }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                return Ok(());
            }
            _ = terminate.recv() => return Ok(()),
        }
    }
}

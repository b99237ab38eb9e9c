//! A node for trying out upgraders: a wallet that pays itself, the JSON-RPC of neptune-core, blocks without proof of work.
//!
//! ```console
//! $ dev-node --listen 127.0.0.1:9797 --arrivals 2 --block-interval 60
//! ```
//!
//! On a network with real proofs, prover pods make those of its transactions, and it admits what the chain's rules accept:
//!
//! ```console
//! $ dev-node --network testnet-7 --provers http://127.0.0.1:8080
//! ```
//!
//! What it does has variables, too: `fleet local --devnet` hands its environment down.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Parser;
use fleet::pods::PodArgs;
use neptune_consensus::transaction::Transaction;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_mutator_set::removal_record::absolute_index_set::AbsoluteIndexSet;
use neptune_primitives::network::Network;
use prover_api::client::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use upgrader::TxId;
use upgrader::chain::can_prove_after;
use upgrader::node::txid_of;
use upgrader_fleet_tests::devnode::{self, Chain, DevNode};
use upgrader_fleet_tests::upgraders;

/// A node for trying out upgraders: a wallet that pays itself, the JSON-RPC of neptune-core, blocks without proof of work
#[derive(Debug, Parser)]
struct Options {
    /// Where to serve JSON-RPC
    #[arg(long, default_value = "127.0.0.1:9797")]
    listen: SocketAddr,
    /// regtest or testnet-mock with mock proofs, testnet-1 to testnet-255 with real ones
    #[arg(long, default_value = "regtest")]
    network: Network,
    /// Prover pods that make its transactions' proofs on a network with real ones: http[s]://host:port, separated by commas
    #[arg(long, value_name = "URLS", env = "DEV_NODE_PROVERS", value_delimiter = ',')]
    provers: Vec<String>,
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
    /// Takes note of a transaction that was just put into the mempool.
    fn note(&mut self, chain: &Chain, txid: TxId) {
        let input = chain.transaction(txid).and_then(|transaction| transaction.kernel.inputs.first());
        self.pending.extend(input.map(|input| (txid, input.absolute_indices)));
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

/// How its transactions are proven.
enum Proofs {
    Mock,
    /// By pods; a transaction comes back when it is proven.
    Real {
        pods: Client,
        proven: mpsc::UnboundedSender<Result<Transaction>>,
    },
}

impl Proofs {
    fn of(options: &Options) -> Result<(Self, mpsc::UnboundedReceiver<Result<Transaction>>)> {
        let (proven, receiver) = mpsc::unbounded_channel();
        let proofs = match (options.network.use_mock_proof(), options.provers.is_empty()) {
            (true, true) => Self::Mock,
            (true, false) => bail!("--provers: {} has mock proofs, which need no pods; leave it out", options.network),
            (false, true) => bail!("{} has real proofs: name the pods that make them with --provers", options.network),
            (false, false) => {
                let pods = PodArgs::at(options.provers.iter().cloned()).connect()?;
                Self::Real { pods, proven }
            }
        };
        ensure!(
            can_prove_after(options.network, 0),
            "nobody can prove for the first blocks of {}; take testnet-1 to testnet-255",
            options.network
        );
        Ok((proofs, receiver))
    }

    /// Sends a transaction, now or when its proofs are made. Gives its id in the first case.
    fn send(&self, chain: &mut Chain, fee: NativeCurrencyAmount) -> Result<Option<TxId>> {
        match self {
            Self::Mock => Ok(Some(chain.send(fee)?)),
            Self::Real { pods, proven } => {
                let (witness, network) = (chain.spend(fee)?, chain.network());
                let (pods, proven) = (pods.clone(), proven.clone());
                tokio::spawn(async move {
                    // Whoever waits for it is gone only when the process ends.
                    let _ = proven.send(devnode::prove(&witness, &pods, network).await);
                });
                Ok(None)
            }
        }
    }
}

async fn run(options: Options) -> Result<()> {
    let (proofs, mut proven) = Proofs::of(&options)?;
    let chain = Chain::with_unproven_blocks(options.network, options.coins)?;
    let node = DevNode::start(chain, &options.listen.to_string()).await?;
    println!("dev node on {} at {}", options.network, node.url());
    println!("an address that fees may go to: {}", upgraders::fee_address_on(options.network)?);
    let pause = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let mut arrivals = tokio::time::interval(pause(60.0 / options.arrivals).max(Duration::from_millis(1)));
    let mut blocks = tokio::time::interval(pause(options.block_interval).max(Duration::from_millis(1)));
    blocks.tick().await;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut sent = Sent::default();
    loop {
        let more = options.transactions.is_none_or(|most| sent.count < most);
        tokio::select! {
            _ = arrivals.tick(), if more => {
                let mut chain = node.chain();
                match proofs.send(&mut chain, options.fee) {
                    Ok(txid) => {
                        sent.count += 1;
                        if let Some(txid) = txid {
                            sent.note(&chain, txid);
                            println!("sent {txid}");
                        }
                    }
                    Err(error) => eprintln!("dev-node: {error}"),
                }
            }
            Some(proven) = proven.recv() => match proven {
                Ok(transaction) => {
                    let mut chain = node.chain();
                    let txid = chain.put(transaction);
                    sent.note(&chain, txid);
                    println!("sent {txid}");
                }
                Err(error) => eprintln!("dev-node: a transaction is not proven: {error:#}"),
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

//! Upgraders as child processes, and the fleet of one test: a dev node, mock pods, upgraders.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use neptune_consensus::transaction::TransactionProof;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_primitives::network::Network;
use neptune_wallet::address::SpendingKey;
use neptune_wallet::address::generation_address::GenerationSpendingKey;
use serde_json::Value;
use triton_vm::prelude::Tip5;
use upgrader::TxId;

use crate::devnode::{Chain, DevNode};
use crate::pods::{Pod, binary};

/// The network of all tests here.
pub const NETWORK: Network = Network::RegTest;

/// A secret for fleets in tests.
pub const SECRET: &str = "not a secret: the fleet of a test";

/// The wallet that fees go to.
pub fn fee_key() -> SpendingKey {
    SpendingKey::from(GenerationSpendingKey::derive_from_seed(Tip5::hash(&0xfee_u64)))
}

/// Its address.
///
/// # Errors
/// None that can occur.
pub fn fee_address() -> Result<String> {
    fee_address_on(NETWORK)
}

/// Its address on another network.
///
/// # Errors
/// None that can occur.
pub fn fee_address_on(network: Network) -> Result<String> {
    fee_key().to_address().to_bech32m(network)
}

/// A running upgrader; killed when dropped.
#[derive(Debug)]
pub struct Upgrader {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Upgrader {
    /// Starts `upgrader` on the tests' network with these further arguments.
    ///
    /// # Errors
    /// When the binary is missing or the process does not listen.
    pub fn start(arguments: &[String]) -> Result<Self> {
        Self::start_on(NETWORK, arguments)
    }

    /// The same on another network.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_on(network: Network, arguments: &[String]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port_file = folder.path().join("port");
        let secret = folder.path().join("secret");
        fs::write(&secret, SECRET)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new(binary("upgrader")?)
            .args(["--network", &network.to_string(), "--listen", "127.0.0.1:0"])
            // Whoever wants another pause says so.
            .args(if arguments.iter().any(|argument| argument == "--poll-interval") {
                &[][..]
            } else {
                &["--poll-interval", "100ms"]
            })
            .arg("--port-file")
            .arg(&port_file)
            .env("UPGRADER_FLEET_SECRET_FILE", &secret)
            .args(arguments)
            .env("RUST_LOG", "info,upgrader=debug")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start upgrader")?;
        let mut upgrader = Self { child, url: String::new(), folder };
        let deadline = Instant::now() + Duration::from_secs(30);
        let port = loop {
            let port = fs::read_to_string(&port_file).ok().and_then(|text| text.strip_suffix('\n')?.parse::<u16>().ok());
            if let Some(port) = port {
                break port;
            }
            if let Some(status) = upgrader.child.try_wait()? {
                bail!("upgrader ended with {status}:\n{}", upgrader.log());
            }
            ensure!(Instant::now() < deadline, "upgrader does not listen:\n{}", upgrader.log());
            std::thread::sleep(Duration::from_millis(10));
        };
        upgrader.url = format!("http://127.0.0.1:{port}");
        Ok(upgrader)
    }

    /// Base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What it says at this path.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn get(&self, path: &str) -> Result<Value> {
        Ok(crate::http::client()?.get(format!("{}{path}", self.url)).send().await?.json().await?)
    }

    /// The same as text.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn text(&self, path: &str) -> Result<String> {
        Ok(crate::http::client()?.get(format!("{}{path}", self.url)).send().await?.text().await?)
    }

    /// The value of a metric with these labels, as it stands in the text; 0 when it is not there.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metric(&self, line: &str) -> Result<f64> {
        metric(&self.url, line).await
    }
}

impl Drop for Upgrader {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// The sum of all metrics whose line begins like this.
///
/// # Errors
/// When nobody answers there.
pub async fn metric(url: &str, line: &str) -> Result<f64> {
    let text = crate::http::client()?.get(format!("{url}/metrics")).send().await?.text().await?;
    let values = text.lines().filter(|candidate| candidate.starts_with(line));
    Ok(values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// A dev node, mock pods and upgraders.
pub struct Fleet {
    /// The node.
    pub node: DevNode,
    /// The pods.
    pub pods: Vec<Pod>,
    /// The upgraders.
    pub upgraders: Vec<Upgrader>,
}

impl Fleet {
    /// A node whose wallet has this many coins, and this many mock pods. No upgrader yet.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn start(coins: usize, pods: usize) -> Result<Self> {
        let node = DevNode::start(Chain::new(NETWORK, coins)?, "127.0.0.1:0").await?;
        let mut fleet = Self { node, pods: vec![], upgraders: vec![] };
        for _ in 0..pods {
            fleet.pods.push(Pod::start(&["--backend", "mock", "--network", "regtest"])?);
        }
        for pod in &mut fleet.pods {
            pod.ready().await?;
        }
        Ok(fleet)
    }

    /// Starts an upgrader of this fleet. Gives its index.
    ///
    /// # Errors
    /// When it does not start.
    pub fn upgrade(&mut self, arguments: &[&str]) -> Result<usize> {
        let node = self.node.url().to_owned();
        self.upgrade_through(&[&node], arguments)
    }

    /// The same with these nodes, the first before the others.
    ///
    /// # Errors
    /// When it does not start.
    pub fn upgrade_through(&mut self, nodes: &[&str], arguments: &[&str]) -> Result<usize> {
        let mut all: Vec<_> = nodes.iter().flat_map(|&node| ["--node".to_owned(), node.to_owned()]).collect();
        for pod in &self.pods {
            all.extend(["--provers".to_owned(), pod.url().to_owned()]);
        }
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self.upgraders.push(Upgrader::start(&all)?);
        Ok(self.upgraders.len() - 1)
    }

    /// Whether a transaction is in the mempool with a SingleProof at the tip.
    pub fn is_done(&self, txid: TxId) -> bool {
        let chain = self.node.chain();
        let tip = chain.recent().tip_mutator_set_hash();
        chain.transaction(txid).is_some_and(|transaction| {
            matches!(transaction.proof, TransactionProof::SingleProof(_)) && transaction.kernel.mutator_set_hash == tip
        })
    }

    /// Ids in the mempool.
    pub fn mempool(&self) -> Vec<TxId> {
        self.node.chain().mempool().fee_density_iter().map(|(txid, _)| txid.into()).collect()
    }

    /// Sends a transaction with this fee.
    ///
    /// # Errors
    /// When the node's wallet has no coin left.
    pub fn send(&self, coins: &str) -> Result<TxId> {
        Ok(self.node.chain().send(NativeCurrencyAmount::coins_from_str(coins)?)?)
    }

    /// Proofs that the pods made for real, not from their caches.
    ///
    /// # Errors
    /// When a pod does not answer.
    pub async fn proofs_made(&self) -> Result<f64> {
        let mut made = 0.0;
        for pod in &self.pods {
            made += metric(pod.url(), "prover_pod_stage_duration_seconds_count{backend=\"mock\",stage=\"prove\"}").await?;
        }
        Ok(made)
    }

    /// Proofs that the pods are making.
    ///
    /// # Errors
    /// When a pod does not answer.
    pub async fn proofs_running(&self) -> Result<f64> {
        let mut running = 0.0;
        for pod in &self.pods {
            running += metric(pod.url(), "prover_pod_running_jobs").await?;
        }
        Ok(running)
    }

    /// Waits until something holds; the error shows the upgraders' logs.
    ///
    /// # Errors
    /// When it does not hold in time.
    pub async fn until(&self, what: &str, most: Duration, mut holds: impl FnMut(&Self) -> bool) -> Result<Duration> {
        let began = Instant::now();
        while !holds(self) {
            if began.elapsed() > most {
                let logs: Vec<_> = self.upgraders.iter().map(Upgrader::log).collect();
                bail!("not within {most:?}: {what}\nmempool {:?}\n{}", self.mempool(), logs.join("\n---\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(began.elapsed())
    }
}

//! A real neptune-core on regtest, run and funded by its own command line, as `make test-node` builds them into the cache.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use neptune_consensus::block::block_kernel::BlockKernel;
use neptune_consensus::transaction::TransactionProof;
use neptune_consensus::transaction::transaction_kernel::TransactionKernel;
use neptune_mutator_set::removal_record::absolute_index_set::AbsoluteIndexSet;
use upgrader::TxId;
use upgrader::chain::follow;
use upgrader::node::Nodes;
use upgrader::ring::Ring;

use crate::upgraders::NETWORK;

/// The node starts in two seconds on an idle machine.
const STARTS_WITHIN: Duration = Duration::from_mins(1);

/// A program of the published neptune-core, if it is in the cache. Says so when it is not.
pub fn program(name: &str) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("UPGRADER_FLEET_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("upgrader-fleet")))
        .or_else(|| Some(set("HOME")?.join(".cache/upgrader-fleet")))?;
    let path = cache.join("tools/bin").join(name);
    if path.is_file() {
        return Some(path);
    }
    eprintln!("skipped: {} is not built; make real-node", path.display());
    None
}

/// A running node with a wallet of its own; killed when dropped.
pub struct RealNode {
    child: Child,
    core: PathBuf,
    cli: PathBuf,
    folder: tempfile::TempDir,
    ports: [u16; 2],
    nodes: Nodes,
    ring: Ring,
}

impl RealNode {
    /// A node alone on its network that proves no more than ProofCollections, with this many blocks mined to its wallet. Nothing
    /// when neptune-core is not built.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(blocks: usize) -> Result<Option<Self>> {
        let Some((core, cli)) = program("neptune-core").zip(program("neptune-cli")) else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        // Free now; the node takes fixed ones only.
        let free = || anyhow::Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let ports = [free()?, free()?];
        let child = launch(&core, folder.path(), ports)?;
        let nodes = Nodes::new([format!("http://127.0.0.1:{}", ports[1])])?;
        let mut node = Self { child, core, cli, folder, ports, nodes, ring: Ring::default() };
        node.listens().await?;
        node.mine(blocks)?;
        Ok(Some(node))
    }

    /// SIGTERM, or SIGKILL, and a new start on the same data. The mempool does not survive that.
    ///
    /// # Errors
    /// When it does not start again.
    pub async fn restart(&mut self, signal: &str) -> Result<()> {
        crate::pods::signal(self.child.id(), signal)?;
        self.child.wait()?;
        self.child = launch(&self.core, self.folder.path(), self.ports)?;
        self.listens().await
    }

    async fn listens(&mut self) -> Result<()> {
        let began = Instant::now();
        while self.nodes.tip_hash().await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("neptune-core ended with {status}:\n{}", self.log());
            }
            ensure!(began.elapsed() < STARTS_WITHIN, "neptune-core does not answer:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Base URL of its JSON-RPC.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1])
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn cli(&self, arguments: &[&str]) -> Result<String> {
        let said = Command::new(&self.cli)
            .args(["--port", &self.ports[0].to_string(), "--data-dir"])
            .arg(self.folder.path().join("data"))
            .args(arguments)
            .output()?;
        let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        ensure!(said.status.success(), "neptune-cli {arguments:?}: {text}\n{}", String::from_utf8_lossy(&said.stderr));
        Ok(text)
    }

    /// Mines blocks to the node's wallet, with what of the mempool a block takes.
    ///
    /// # Errors
    /// When the command line says so.
    pub fn mine(&self, blocks: usize) -> Result<()> {
        // One by one: the command line waits ten seconds for each of its calls.
        (0..blocks).try_for_each(|_| self.cli(&["mine-blocks-to-wallet", "1"]).map(drop))
    }

    /// Makes the block before the tip the tip: what is mined next is a reorganization.
    ///
    /// # Errors
    /// When the command line says so.
    pub async fn undo_tip(&mut self) -> Result<()> {
        self.follow().await?;
        let parent = self.ring.tip().context("has a tip")?.parent;
        let parent = parent.to_hex();
        self.cli(&["set-tip", &parent]).map(drop)
    }

    /// Pays some coins to itself with this fee. Gives the transaction's id.
    ///
    /// # Errors
    /// When the wallet cannot, or the mempool does not have it.
    pub async fn send(&self, fee: &str) -> Result<TxId> {
        let address = self.cli(&["next-receiving-address"])?;
        let address = address.lines().last().context("an address")?;
        let said = self.cli(&["send", address, "1", fee, "test", "on-chain", "on-chain", "--accept-lustrations"])?;
        let txid = said.rsplit(' ').next().context("an id")?.parse()?;
        ensure!(self.nodes.mempool().await?.contains(&txid), "{said}");
        Ok(txid)
    }

    /// A kernel of the mempool.
    ///
    /// # Errors
    /// When the node does not answer, or does not have it.
    pub async fn kernel(&self, txid: TxId) -> Result<TransactionKernel> {
        self.nodes.kernel(txid).await?.with_context(|| format!("{txid} is not in the mempool"))
    }

    async fn follow(&mut self) -> Result<()> {
        follow(&mut self.ring, &self.nodes, NETWORK).await?;
        Ok(())
    }

    /// The mempool's transactions, as the node lists them.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn listed(&self) -> Result<Vec<TxId>> {
        Ok(self.nodes.mempool().await?)
    }

    /// The mempool's transactions that are SingleProofs at the tip, and the ids of the others.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn mempool(&mut self) -> Result<(Vec<TransactionKernel>, Vec<TxId>)> {
        self.follow().await?;
        let tip = self.ring.tip_mutator_set_hash();
        let (mut done, mut others) = (vec![], vec![]);
        for txid in self.nodes.mempool().await? {
            let kernel = self.nodes.kernel(txid).await?;
            let proof = self.nodes.proof(txid).await?;
            match (kernel, proof) {
                (Some(kernel), Some(TransactionProof::SingleProof(_))) if Some(kernel.mutator_set_hash) == tip => {
                    done.push(kernel);
                }
                _ => others.push(txid),
            }
        }
        Ok((done, others))
    }

    /// Waits until everything in the mempool is a SingleProof at the tip and there is something. Gives it.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn until_upgraded(&mut self, most: Duration) -> Result<Vec<TransactionKernel>> {
        let began = Instant::now();
        loop {
            // A node that is just starting does not answer.
            let seen = self.mempool().await;
            if let Ok((done, others)) = &seen
                && others.is_empty()
                && !done.is_empty()
            {
                return Ok(done.clone());
            }
            if began.elapsed() >= most {
                let others = seen?.1;
                let mut states = Vec::new();
                for txid in others {
                    states.push(self.state_of(txid).await?);
                }
                bail!("not upgraded within {most:?}: {}", states.join("; "));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A transaction of the mempool for people: what it has, and how it stands to the chain.
    async fn state_of(&self, txid: TxId) -> Result<String> {
        let Some(kernel) = self.nodes.kernel(txid).await? else { return Ok(format!("{txid} is gone")) };
        let proof = match self.nodes.proof(txid).await? {
            Some(TransactionProof::SingleProof(_)) => "a SingleProof",
            Some(TransactionProof::ProofCollection(_)) => "a ProofCollection",
            _ => "no proof",
        };
        let behind =
            self.ring.lag(kernel.mutator_set_hash).map_or("of another chain".to_owned(), |lag| format!("{lag} behind"));
        let inputs = kernel.inputs.iter();
        let spent = |input: &AbsoluteIndexSet| self.ring.spent_since(kernel.mutator_set_hash, |other| other == input);
        let spent = inputs.clone().filter(|input| spent(&input.absolute_indices)).count();
        Ok(format!("{txid} has {proof}, is {behind}, and {spent} of its {} inputs are spent in blocks since", inputs.count()))
    }

    /// What the tip's block confirmed.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn confirmed(&self) -> Result<TransactionKernel> {
        let height = self.nodes.tip_height().await?;
        let block = self.nodes.blocks(height, height).await?.pop().context("the tip")?;
        Ok(BlockKernel::from(block.kernel).body.transaction_kernel)
    }

    /// Height of the tip.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn height(&self) -> Result<u64> {
        Ok(self.nodes.tip_height().await?)
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn launch(core: &Path, folder: &Path, [rpc, json]: [u16; 2]) -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
    Command::new(core)
        .args(["--network", "regtest", "--no-incoming", "--restrict-peers-to-list", "--max-num-peers", "0"])
        .args(["--peer-listen-addr", "127.0.0.1", "--peer-port", "0", "--quic-port", "0", "--tcp-port", "0"])
        .args(["--rpc-modules", "Node,Chain,Archival,Mempool,Wallet", "--unsafe-rpc"])
        .args(["--tx-proving-capability", "proofcollection", "--rpc-port", &rpc.to_string()])
        .args(["--listen-rpc", &format!("127.0.0.1:{json}"), "--data-dir"])
        .arg(folder.join("data"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", core.display()))
}

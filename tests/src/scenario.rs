//! A fleet of shards on the dev node, with deaths, faults, blocks and reorganizations: the chaos test and the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_mutator_set::removal_record::absolute_index_set::AbsoluteIndexSet;
use upgrader::{Shard, TxId};

use crate::devnode::{Chain, Fault};
use crate::upgraders::{self, Fleet, Upgrader};

/// What happens while one batch of transactions is upgraded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wave {
    /// Transactions sent.
    pub transactions: usize,
    /// Blocks undone before they are sent.
    pub reorganize: usize,
    /// Empty blocks mined while they are upgraded.
    pub blocks: usize,
    /// Whether an upgrader dies and comes back.
    pub kill_upgrader: bool,
    /// Whether a pod dies for good.
    pub kill_pod: bool,
    /// Answers of the node that fail.
    pub faults: usize,
}

/// The whole.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Upgraders, each with its own residue class; a power of two.
    pub shards: u8,
    /// Pods at the start.
    pub pods: usize,
    /// Time of a mock proof of 2^22 rows.
    pub proof_time: Duration,
    /// One after the other.
    pub waves: Vec<Wave>,
    /// How long a wave may take.
    pub patience: Duration,
}

/// How one transaction ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// As it was sent.
    pub txid: TxId,
    /// Transactions of the mempool that spend what it spent, and where each stands.
    pub found: Vec<(TxId, Place)>,
    /// Why no upgrader can do anything for it, as the upgrader of its shard says.
    pub why_not: Option<String>,
}

/// Where a transaction of the mempool stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A SingleProof at the tip.
    Tip,
    /// A SingleProof synced to a block that a reorganization has undone. A node may admit that in the moment of the
    /// reorganization; nobody can update it.
    Undone,
    /// To be upgraded.
    Elsewhere,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Summary {
    /// Every transaction that was sent.
    pub ended: Vec<Ended>,
    /// Upgrades submitted by each upgrader.
    pub by_upgrader: BTreeMap<String, usize>,
    /// Fees found by the owner's key in the results.
    pub fees: NativeCurrencyAmount,
    /// Distinct claims whose proofs upgraders received.
    pub claims: usize,
    /// Proofs that pods made, those of dead pods included.
    pub proofs: usize,
    /// Upgraders and pods killed.
    pub killed: (usize, usize),
    /// Results that the node took although they are synced to a block that it has just undone: they came in the milliseconds between
    /// its answer which tip it has and the reorganization's end. Their inputs are locked until the node forgets them.
    pub stuck: BTreeSet<TxId>,
    /// Seconds in all.
    pub seconds: f64,
}

impl Summary {
    /// Transactions that did not end up in exactly one SingleProof at the tip, and not with a typed reason either.
    pub fn unfinished(&self) -> Vec<&Ended> {
        let over = |ended: &Ended| match ended.found[..] {
            [(_, Place::Tip)] => true,
            [(_, Place::Undone)] => ended.why_not.as_deref() == Some("unknown-mutator-set"),
            _ => false,
        };
        self.ended.iter().filter(|ended| !over(ended)).collect()
    }

    /// Transactions that ended with a typed reason instead of a SingleProof at the tip.
    pub fn given_up(&self) -> usize {
        self.ended.iter().filter(|ended| matches!(ended.found[..], [(_, Place::Undone)])).count()
    }

    /// The results that keep them from more, each of one upgrade; how many of the transactions each has taken in.
    pub fn undone(&self) -> BTreeMap<TxId, usize> {
        let mut undone = BTreeMap::new();
        for ended in &self.ended {
            if let [(result, Place::Undone)] = ended.found[..] {
                *undone.entry(result).or_default() += 1;
            }
        }
        undone
    }

    /// Proofs made of a claim that was proven before, or that nobody waited for any more.
    pub fn duplicates(&self) -> usize {
        self.proofs.saturating_sub(self.claims)
    }
}

/// Runs it. `say` is told what happens.
///
/// # Errors
/// When something does not start, or a wave does not end in time.
pub async fn run(scenario: &Scenario, mut say: impl FnMut(String)) -> Result<Summary> {
    let began = Instant::now();
    let most = scenario.waves.iter().map(|wave| wave.transactions).sum::<usize>();
    let mut fleet = Fleet::start(most + 4, scenario.pods).await?;
    let mut summary = Summary::default();
    let mut dead_proofs = 0.0;
    let mut dead: Vec<(Shard, Upgrader)> = Vec::new();
    let shards: Vec<Shard> =
        (0..scenario.shards).map(|remainder| Shard::new(scenario.shards, remainder)).collect::<Result<_, _>>()?;
    for shard in &shards {
        start(&mut fleet, *shard, scenario.proof_time)?;
    }
    say(format!("{} upgraders and {} pods are up", shards.len(), scenario.pods));
    fleet.node.chain().mine(0)?;

    for (number, wave) in scenario.waves.iter().enumerate() {
        if wave.reorganize > 0 {
            // Blocks are minutes apart: what came before one is answered before the next, and before anybody sends anew.
            fleet.node.answered().await;
            fleet.node.chain().reorganize(wave.reorganize)?;
            fleet.node.answered().await;
            say(format!("reorganization: {} block(s) undone, the node clears its mempool", wave.reorganize));
        }
        fleet.node.fault((0..wave.faults).map(|i| match i % 3 {
            0 => Fault::Error,
            1 => Fault::Truncate,
            _ => Fault::Delay(Duration::from_millis(50)),
        }));
        let sent = send(&fleet, wave.transactions)?;
        say(format!("wave {}: {} transactions with a ProofCollection each", number + 1, sent.len()));
        tokio::time::sleep(Duration::from_millis(700)).await;
        if wave.kill_upgrader {
            let index = number % shards.len();
            fleet.upgraders[index].kill()?;
            say(format!("SIGKILL to the upgrader of shard {}; another one is started", shards[index]));
            start(&mut fleet, shards[index], scenario.proof_time)?;
            let successor = fleet.upgraders.pop().ok_or_else(|| anyhow::anyhow!("just started"))?;
            dead.push((shards[index], std::mem::replace(&mut fleet.upgraders[index], successor)));
            summary.killed.0 += 1;
        }
        if wave.kill_pod && fleet.pods.len() > 1 {
            dead_proofs += made(fleet.pods[0].url()).await?;
            let mut pod = fleet.pods.remove(0);
            pod.kill()?;
            say(format!("SIGKILL to the pod at {}", pod.url()));
            summary.killed.1 += 1;
        }
        for _ in 0..wave.blocks {
            tokio::time::sleep(Duration::from_millis(500)).await;
            fleet.node.chain().mine(0)?;
            say(format!("block {}", fleet.node.chain().height()));
        }
        let settled = |fleet: &Fleet| {
            sent.iter().all(|(_, input)| matches!(spenders(fleet, *input)[..], [(_, Place::Tip | Place::Undone)]))
        };
        let took = match fleet.until("all upgraded", scenario.patience, settled).await {
            Ok(took) => took,
            Err(error) => return Err(error.context(why(&fleet, &sent).await)),
        };
        say(format!("all of them are upgraded after {:.1} s", took.as_secs_f64()));
        let mut results = BTreeSet::new();
        for (txid, input) in &sent {
            let found = spenders(&fleet, *input);
            results.extend(found.iter().map(|(txid, _)| *txid));
            let why_not = match found[..] {
                [(stuck, Place::Undone)] => why_not(&fleet, stuck).await?,
                _ => None,
            };
            summary.ended.push(Ended { txid: *txid, found, why_not });
        }
        for result in results {
            let chain = fleet.node.chain();
            let Some(transaction) = chain.transaction(result) else { continue };
            for fee in upgraders::fee_key().scan_for_announced_utxos(&transaction.kernel) {
                summary.fees += fee.utxo.get_native_currency_amount();
            }
        }
        summary.stuck.extend(stuck(&fleet));
        fleet.node.chain().mine(usize::MAX)?;
    }

    let living = shards.iter().copied().zip(fleet.upgraders.iter());
    let all = living.chain(dead.iter().map(|(shard, upgrader)| (*shard, upgrader)));
    let mut claims = BTreeSet::new();
    for (shard, upgrader) in all {
        let log = upgrader.log();
        let count = log.lines().filter(|line| line.contains("Successfully handled proof upgrade")).count();
        *summary.by_upgrader.entry(shard.to_string()).or_default() += count;
        claims.extend(claims_in(&log));
    }
    summary.claims = claims.len();
    summary.proofs = (fleet.proofs_made().await? + dead_proofs).round() as usize;
    summary.seconds = began.elapsed().as_secs_f64();
    ensure!(summary.claims > 0, "the upgraders' logs name no job");
    Ok(summary)
}

fn start(fleet: &mut Fleet, shard: Shard, proof_time: Duration) -> Result<()> {
    let (shard, time) = (shard.to_string(), format!("{}ms", proof_time.as_millis()));
    let address = upgraders::fee_address()?;
    fleet.upgrade(&["--fee-address", &address, "--tx-upgrade-filter", &shard, "--mock-proof-time", &time])?;
    Ok(())
}

/// Sends transactions with fees of one coin and more. Gives their ids and what they spend.
fn send(fleet: &Fleet, count: usize) -> Result<Vec<(TxId, AbsoluteIndexSet)>> {
    (0..count)
        .map(|i| {
            let mut chain = fleet.node.chain();
            let txid = chain.send(NativeCurrencyAmount::coins(1 + (i % 5) as u32))?;
            let input = chain.transaction(txid).and_then(|transaction| transaction.kernel.inputs.first());
            let input = input.ok_or_else(|| anyhow::anyhow!("{txid} is not in the mempool"))?;
            Ok((txid, input.absolute_indices))
        })
        .collect()
}

/// Transactions of the mempool that spend this, and where each stands.
fn spenders(fleet: &Fleet, input: AbsoluteIndexSet) -> Vec<(TxId, Place)> {
    let chain = fleet.node.chain();
    let found = chain.mempool().with_matching_absolute_index_sets(&[input].into());
    let found = found.iter().map(|(kernel, _)| upgrader::node::txid_of(kernel));
    found.filter_map(|txid| Some((txid, place(&chain, chain.transaction(txid)?)))).collect()
}

fn place(chain: &Chain, transaction: &Transaction) -> Place {
    let synced_to = transaction.kernel.mutator_set_hash;
    match transaction.proof {
        TransactionProof::SingleProof(_) if synced_to == chain.recent().tip_mutator_set_hash() => Place::Tip,
        TransactionProof::SingleProof(_) if !chain.has_mutator_set(synced_to) => Place::Undone,
        _ => Place::Elsewhere,
    }
}

/// Transactions of the mempool that nobody can update.
fn stuck(fleet: &Fleet) -> Vec<TxId> {
    let chain = fleet.node.chain();
    let all = chain.mempool().fee_density_iter().map(|(txid, _)| TxId::from(txid));
    all.filter(|txid| chain.transaction(*txid).is_some_and(|found| place(&chain, found) == Place::Undone)).collect()
}

/// What the upgrader of the transaction's shard says why it does nothing for it. It needs a look at the mempool first.
async fn why_not(fleet: &Fleet, txid: TxId) -> Result<Option<String>> {
    for _ in 0..50 {
        for upgrader in &fleet.upgraders {
            let said = upgrader.get(&format!("/explain/{txid}")).await?;
            if said["in_this_shard"] == true
                && let Some(why) = said["why_not"]["reason"].as_str()
            {
                return Ok(Some(why.to_owned()));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(None)
}

/// Of everything that is not a SingleProof at the tip: what the mempool has and what each upgrader says about it.
async fn why(fleet: &Fleet, sent: &[(TxId, AbsoluteIndexSet)]) -> String {
    let height = fleet.node.chain().height();
    let mut lines = vec![format!("at height {height}, not in one SingleProof at the tip:")];
    for (txid, input) in sent {
        let found = spenders(fleet, *input);
        if matches!(found[..], [(_, Place::Tip | Place::Undone)]) {
            continue;
        }
        lines.push(format!("{txid}: found {found:?}"));
        for (subject, _) in found {
            for upgrader in &fleet.upgraders {
                let said = upgrader.get(&format!("/explain/{subject}")).await;
                lines.push(said.map_or_else(|error| format!("  {error}"), |said| format!("  {said}")));
            }
        }
    }
    lines.join("\n")
}

async fn made(url: &str) -> Result<f64> {
    upgraders::metric(url, "prover_pod_stage_duration_seconds_count{backend=\"mock\",stage=\"prove\"}").await
}

/// The claims whose proofs an upgrader received, by its log.
pub fn claims_in(log: &str) -> BTreeSet<String> {
    log.lines().filter(|line| line.contains("proof is there")).filter_map(job_in).collect()
}

fn job_in(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("job=")?;
    Some(rest.split_whitespace().next()?.to_owned())
}

//! Our upgraders and a real neptune-core. Runs when `make real-node` has built the node; says so when not.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use neptune_consensus::transaction::transaction_kernel::TransactionKernel;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_wallet::address::SpendingKey;
use neptune_wallet::address::generation_address::GenerationSpendingKey;
use tasm_lib::prelude::Tip5;
use upgrader::policy::Policy;
use upgrader_fleet_tests::pods::Pod;
use upgrader_fleet_tests::realnode::RealNode;
use upgrader_fleet_tests::upgraders::{NETWORK, Upgrader};

const SOON: Duration = Duration::from_mins(1);

fn key(seed: u64) -> SpendingKey {
    SpendingKey::from(GenerationSpendingKey::derive_from_seed(Tip5::hash(&seed)))
}

fn coins(text: &str) -> NativeCurrencyAmount {
    NativeCurrencyAmount::coins_from_str(text).expect("is an amount")
}

async fn pod() -> Result<Pod> {
    let mut pod = Pod::start(&["--backend", "mock", "--network", "regtest"])?;
    pod.ready().await?;
    Ok(pod)
}

/// An upgrader whose fees go to the wallet of `seed`.
fn upgrade(node: &RealNode, pod: &Pod, seed: u64, arguments: &[&str]) -> Result<Upgrader> {
    let address = key(seed).to_address().to_bech32m(NETWORK)?;
    let node = node.url();
    let all = [&["--node", &node, "--provers", pod.url(), "--fee-address", &address], arguments].concat();
    Upgrader::start(&all.into_iter().map(str::to_owned).collect::<Vec<_>>())
}

/// What the wallet of `seed` finds in these.
fn found(seed: u64, kernels: &[TransactionKernel]) -> NativeCurrencyAmount {
    kernels
        .iter()
        .flat_map(|kernel| key(seed).scan_for_announced_utxos(kernel))
        .fold(NativeCurrencyAmount::from_nau(0), |sum, fee| sum + fee.utxo.get_native_currency_amount())
}

/// What may be kept of these fees.
fn potential(fees: &[&str]) -> NativeCurrencyAmount {
    let kept = fees.iter().map(|fee| Policy::default().gobbling_potential(coins(fee)));
    kept.fold(NativeCurrencyAmount::from_nau(0), |sum, fee| sum + fee)
}

/// Whether everything that these pay is in what was confirmed.
fn ensure_pays(confirmed: &TransactionKernel, kernels: &[TransactionKernel]) -> Result<()> {
    let paid: HashSet<_> = confirmed.outputs.iter().collect();
    for kernel in kernels {
        ensure!(kernel.outputs.iter().all(|output| paid.contains(output)), "{kernel:?} is not in the block");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_receives_is_raised_merged_updated_and_mined() -> Result<()> {
    const FEES: [&str; 4] = ["0.5", "1", "1.5", "2"];
    let Some(mut node) = RealNode::start(8).await? else { return Ok(()) };
    let mut sent = vec![];
    for fee in FEES {
        let txid = node.send(fee).await?;
        sent.push(node.kernel(txid).await?);
    }
    let pod = pod().await?;
    let upgraders = ["2:0", "2:1"]
        .into_iter()
        .map(|shard| upgrade(&node, &pod, 1, &["--tx-upgrade-filter", shard]))
        .collect::<Result<Vec<_>>>()?;
    let logs = || upgraders.iter().map(Upgrader::log).collect::<Vec<_>>().join("\n\n");
    let upgraded = node.until_upgraded(SOON).await.with_context(logs)?;
    ensure!(found(1, &upgraded) == potential(&FEES), "{} of {}", found(1, &upgraded), potential(&FEES));

    let blocks = mine_all(&mut node, &upgraders).await.with_context(logs)?;
    for kernel in &sent {
        let pays = |block: &&TransactionKernel| ensure_pays(block, std::slice::from_ref(kernel)).is_ok();
        ensure!(blocks.iter().filter(pays).count() == 1, "{kernel:?}");
    }
    let mut mined = 0.0;
    for _ in 0..100 {
        mined = 0.0;
        for upgrader in &upgraders {
            mined += upgrader.metric("upgrader_fees_coins{state=\"mined\"}").await?;
        }
        if mined > 2.99 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!((mined - 3.0).abs() < 1e-6, "{mined}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_in_the_middle_of_a_raise_becomes_an_update() -> Result<()> {
    let Some(mut node) = RealNode::start(4).await? else { return Ok(()) };
    let txid = node.send("1").await?;
    let sent = node.kernel(txid).await?;
    let pod = pod().await?;
    let upgrader = upgrade(&node, &pod, 2, &["--mock-proof-time", "3s"])?;
    until_log(&upgrader, "job running").await?;
    node.mine(1)?;
    let upgraded = node.until_upgraded(SOON).await?;
    ensure!(upgraded.len() == 1 && upgraded[0].mutator_set_hash != sent.mutator_set_hash, "{upgraded:?}");
    ensure!(upgrader.log().contains("node=Update"), "{}", upgrader.log());
    node.mine(1)?;
    ensure_pays(&node.confirmed().await?, &[sent])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_survives_the_restart_of_the_node_under_its_raise() -> Result<()> {
    let Some(mut node) = RealNode::start(4).await? else { return Ok(()) };
    let txid = node.send("1").await?;
    let sent = node.kernel(txid).await?;
    let pod = pod().await?;
    let upgrader = upgrade(&node, &pod, 3, &["--mock-proof-time", "3s"])?;
    until_log(&upgrader, "job running").await?;
    node.restart("KILL").await?;
    // Its mempool was lost, and the collection with it: what stands there now is ours.
    let upgraded = node.until_upgraded(SOON).await?;
    ensure!(found(3, &upgraded) == potential(&["1"]), "{upgraded:?}");
    node.mine(1)?;
    ensure_pays(&node.confirmed().await?, &[sent])
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fleets_compete_for_one_mempool_and_every_fee_goes_to_one_of_them() -> Result<()> {
    const FEES: [&str; 6] = ["0.5", "0.6", "0.7", "0.8", "0.9", "1"];
    let Some(mut node) = RealNode::start(10).await? else { return Ok(()) };
    let mut sent = vec![];
    for fee in FEES {
        let txid = node.send(fee).await?;
        sent.push(node.kernel(txid).await?);
    }
    let (one, other) = (pod().await?, pod().await?);
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "not a secret either: the other fleet of a test")?;
    let secret = secret.to_str().context("is text")?;
    let upgraders = [
        upgrade(&node, &one, 4, &["--mock-proof-time", "1s"])?,
        upgrade(&node, &other, 5, &["--mock-proof-time", "1s", "--fleet-secret-file", secret])?,
    ];
    let logs = || upgraders.each_ref().map(Upgrader::log).join("\n\n");
    let upgraded = node.until_upgraded(SOON).await.with_context(logs)?;
    let spent: Vec<_> = upgraded.iter().flat_map(|kernel| &kernel.inputs).map(|input| input.absolute_indices).collect();
    for kernel in &sent {
        for input in &kernel.inputs {
            let times = spent.iter().filter(|indices| **indices == input.absolute_indices).count();
            ensure!(times == 1, "an input of a transaction stands {times} times in the mempool");
        }
    }
    let gained = [found(4, &upgraded), found(5, &upgraded)];
    ensure!(gained[0] + gained[1] == potential(&FEES), "{gained:?} of {}", potential(&FEES));
    for upgrader in &upgraders {
        let metrics = upgrader.text("/metrics").await?;
        let failed = |line: &&str| {
            line.starts_with("upgrader_upgrades_total") && !["submitted", "superseded"].iter().any(|fine| line.contains(fine))
        };
        ensure!(metrics.lines().filter(failed).count() == 0, "losing is not failing:\n{metrics}");
    }
    mine_all(&mut node, &upgraders).await.with_context(logs)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganization_is_followed() -> Result<()> {
    let Some(mut node) = RealNode::start(6).await? else { return Ok(()) };
    let pod = pod().await?;
    let upgrader = upgrade(&node, &pod, 6, &[])?;
    node.send("1").await?;
    node.until_upgraded(SOON).await.with_context(|| upgrader.log())?;
    node.mine(1)?;
    node.undo_tip().await?;
    node.mine(2)?;
    let txid = node.send("2").await?;
    let sent = node.kernel(txid).await?;
    node.until_upgraded(SOON).await.with_context(|| upgrader.log())?;
    node.mine(1)?;
    ensure_pays(&node.confirmed().await?, &[sent])?;
    ensure!(!upgrader.log().contains("panicked"), "{}", upgrader.log());
    Ok(())
}

/// Waits until the upgraders have nothing under way and the mempool stays as it is through several of their looks.
///
/// neptune-core 0.19.4 judges a submitted transaction and inserts it some time later, without a second look. If a block comes in
/// between that confirms an input, a double spend stays in its mempool for good, in place of what it was merged from, and no
/// upgrader can do anything about it.
async fn at_rest(node: &RealNode, upgraders: &[Upgrader]) -> Result<()> {
    let began = Instant::now();
    let (mut listed, mut since) = (node.listed().await?, Instant::now());
    while since.elapsed() < Duration::from_secs(1) {
        ensure!(began.elapsed() < SOON, "they do not come to rest: {listed:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut busy = false;
        for upgrader in upgraders {
            let upgrades = upgrader.get("/upgrades").await?;
            busy |= !upgrades["running"].as_array().context("what runs")?.is_empty();
        }
        let now = node.listed().await?;
        if busy || now != listed {
            (listed, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// Mines until nothing is left; what a block leaves is updated to the next one. Gives what each block confirmed.
async fn mine_all(node: &mut RealNode, upgraders: &[Upgrader]) -> Result<Vec<TransactionKernel>> {
    let mut blocks = vec![];
    loop {
        at_rest(node, upgraders).await?;
        node.mine(1)?;
        blocks.push(node.confirmed().await?);
        let (done, others) = node.mempool().await?;
        if done.is_empty() && others.is_empty() {
            return Ok(blocks);
        }
        ensure!(blocks.len() < 6, "the node does not mine what we gave it:\n{}", node.log());
        node.until_upgraded(SOON).await?;
    }
}

async fn until_log(upgrader: &Upgrader, what: &str) -> Result<()> {
    for _ in 0..600 {
        if upgrader.log().contains(what) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("{what:?} does not come:\n{}", upgrader.log())
}

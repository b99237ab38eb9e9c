//! Upgraders, prover pods with mock proofs and a dev node: every kind of upgrade to its end, as the node itself judges it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use neptune_consensus::transaction::TransactionProof;
use neptune_consensus::transaction::validity::neptune_proof::NeptuneProof;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_primitives::network::Network;
use tasm_lib::prelude::Tip5;
use upgrader::policy::Policy;
use upgrader_fleet_tests::devnode::Fault;
use upgrader_fleet_tests::scenario;
use upgrader_fleet_tests::upgraders::{self, Fleet};

const SOON: Duration = Duration::from_secs(30);

const FREE: [&str; 2] = ["--min-gobbling-fee", "0"];

fn coins(text: &str) -> NativeCurrencyAmount {
    NativeCurrencyAmount::coins_from_str(text).expect("is an amount")
}

/// `simple_raise` of upstream's tests `upgrade_foreign_proof_collection`.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_collection_is_raised_for_free() -> Result<()> {
    let mut fleet = Fleet::start(2, 1).await?;
    let txid = fleet.send("1")?;
    fleet.upgrade(&FREE)?;
    fleet.until("raised", SOON, |fleet| fleet.is_done(txid)).await?;
    ensure!(fleet.mempool() == [txid], "a free raise keeps the id");
    let transaction = fleet.node.chain().transaction(txid).context("is there")?.clone();
    ensure!(transaction.is_valid(Network::RegTest, fleet::transaction::RULE_SET).await);
    ensure!(fleet.node.submissions() == (1, 0));
    ensure!(fleet.node.chain().mine(5)? == [txid], "a block takes it");

    let log = fleet.upgraders[0].log();
    for line in [
        "[GPU-UPGRADER] CPU-only mode",
        "[GPU-UPGRADER] Starting ProofCollection→SingleProof upgrade (CPU-only)",
        &format!("Attempting to upgrade transaction proofs of: {txid}"),
        "JobQueue: job running: #1 - ",
        &format!("[GPU-UPGRADER] Successfully upgraded transaction {txid}"),
        "Successfully handled proof upgrade.",
    ] {
        ensure!(log.contains(line), "{line:?} is not in\n{log}");
    }
    Ok(())
}

/// What a node's own wallet sends is in the mempool before its collection is proven.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_proven_later_is_raised_without_waiting_for_a_block() -> Result<()> {
    let mut fleet = Fleet::start(2, 1).await?;
    let txid = fleet.node.chain().send_unproven(coins("1"))?;
    fleet.upgrade(&FREE)?;
    let mut why_not = String::new();
    for _ in 0..100 {
        let explained = fleet.upgraders[0].get(&format!("/explain/{txid}")).await?;
        why_not = explained["why_not"]["reason"].as_str().unwrap_or_default().to_owned();
        if !why_not.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ensure!(why_not == "no-proof-shown", "{why_not}");
    ensure!(fleet.node.chain().prove(txid));
    fleet.until("raised", SOON, |fleet| fleet.is_done(txid)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_raise_moves_the_fee_to_the_address_and_its_owner_can_claim_it() -> Result<()> {
    let mut fleet = Fleet::start(2, 1).await?;
    let txid = fleet.send("10")?;
    let address = upgraders::fee_address()?;
    fleet.upgrade(&["--fee-address", &address])?;
    fleet.until("merged", SOON, |fleet| fleet.mempool().iter().any(|other| *other != txid && fleet.is_done(*other))).await?;
    let mempool = fleet.mempool();
    ensure!(mempool.len() == 1 && !mempool.contains(&txid), "the result took its place: {mempool:?}");
    let merged = fleet.node.chain().transaction(mempool[0]).context("is there")?.clone();
    let gobbled = Policy::default().gobbling_potential(coins("10"));
    ensure!(merged.kernel.fee + gobbled == coins("10"), "{}", merged.kernel.fee);
    ensure!(merged.is_valid(Network::RegTest, fleet::transaction::RULE_SET).await);

    // The wallet of the address finds the fee by its announcement and could spend it.
    let found = upgraders::fee_key().scan_for_announced_utxos(&merged.kernel);
    ensure!(found.len() == 1 && found[0].utxo.get_native_currency_amount() == gobbled, "{found:?}");
    ensure!(merged.kernel.outputs.contains(&found[0].addition_record()));
    ensure!(found[0].receiver_preimage.hash() == upgraders::fee_key().to_address().privacy_digest());
    ensure!(found[0].utxo.lock_script_hash() == upgraders::fee_key().to_address().lock_script_hash());

    let upgrader = &fleet.upgraders[0];
    ensure!(upgrader.metric("upgrader_upgrades_total{kind=\"paid-raise\",outcome=\"submitted\"}").await? >= 1.0);
    ensure!((upgrader.metric("upgrader_fees_coins{state=\"submitted\"}").await? - 6.0).abs() < 1e-6);
    fleet.node.chain().mine(5)?;
    let mut mined = 0.0;
    for _ in 0..100 {
        mined = upgrader.metric("upgrader_fees_coins{state=\"mined\"}").await?;
        if mined > 0.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!((mined - 6.0).abs() < 1e-6, "{mined}");
    Ok(())
}

/// `raise_followed_by_update` of upstream's tests, with the block in the middle of the raise.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_in_the_middle_of_a_raise_turns_into_an_update() -> Result<()> {
    let mut fleet = Fleet::start(2, 1).await?;
    let txid = fleet.send("1")?;
    fleet.upgrade(&["--min-gobbling-fee", "0", "--mock-proof-time", "4s"])?;
    fleet.until("raising", SOON, |fleet| fleet.upgraders[0].log().contains("job running")).await?;
    fleet.node.chain().mine(0)?;
    fleet.until("raised and updated", SOON, |fleet| fleet.is_done(txid)).await?;
    ensure!(fleet.node.submissions() == (2, 0), "once behind the tip, once at it: {:?}", fleet.node.submissions());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_single_proofs_are_merged_and_a_result_of_ours_is_updated_after_each_block() -> Result<()> {
    let mut fleet = Fleet::start(4, 1).await?;
    let (one, other) = (fleet.send("2")?, fleet.send("3")?);
    fleet.upgrade(&FREE)?;
    let merged = |fleet: &Fleet| fleet.mempool().len() == 1 && fleet.mempool().iter().all(|txid| fleet.is_done(*txid));
    fleet.until("merged", SOON, merged).await?;
    let result = fleet.mempool()[0];
    ensure!(result != one && result != other);
    ensure!(fleet.node.chain().transaction(result).context("is there")?.kernel.fee == coins("5"));
    for _ in 0..2 {
        fleet.node.chain().mine(0)?;
        fleet.until("updated", SOON, |fleet| fleet.is_done(result)).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_proof_stops_ours_within_a_second_or_so() -> Result<()> {
    let mut fleet = Fleet::start(2, 1).await?;
    let txid = fleet.send("1")?;
    fleet.upgrade(&["--min-gobbling-fee", "0", "--mock-proof-time", "10m"])?;
    fleet.until("raising", SOON, |fleet| fleet.upgraders[0].log().contains("job running")).await?;
    let mut rival = fleet.node.chain().transaction(txid).context("is there")?.clone();
    rival.proof = TransactionProof::SingleProof(NeptuneProof::valid_mock());
    fleet.node.chain().insert(rival);
    fleet.until("given up", Duration::from_secs(2), |fleet| fleet.upgraders[0].log().contains("not needed any more")).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(fleet.proofs_running().await? == 0.0, "the pod still proves");
    let explained = fleet.upgraders[0].get(&format!("/explain/{txid}")).await?;
    ensure!(
        explained["history"][0]["outcome"] == "superseded" && explained["history"][0]["why"] == "better-proof",
        "{explained}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn upgraders_of_one_fleet_with_the_same_shard_prove_everything_once() -> Result<()> {
    let mut fleet = Fleet::start(6, 2).await?;
    let txids = (0..4).map(|_| fleet.send("10")).collect::<Result<Vec<_>>>()?;
    let address = upgraders::fee_address()?;
    for _ in 0..2 {
        fleet.upgrade(&["--fee-address", &address, "--max-parallel-upgrades", "8", "--mock-proof-time", "1s"])?;
    }
    let none_left = |fleet: &Fleet| !fleet.mempool().iter().any(|txid| txids.contains(txid));
    fleet.until("all gobbled", SOON, none_left).await?;
    // Five leaf proofs, two raises and a merge for each, whoever asks. Results are merged among each other too; those merges may
    // differ between upgraders that look at different moments, and are then different claims.
    fleet.until("merged to one", SOON, |fleet| fleet.mempool().len() == 1).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let made = fleet.proofs_made().await?;
    let received: Vec<_> = fleet.upgraders.iter().map(|upgrader| scenario::claims_in(&upgrader.log())).collect();
    let together = received[0].union(&received[1]).count();
    ensure!(received[0].intersection(&received[1]).count() >= 4 * 5, "they worked on the same transactions");
    // One may have been made for somebody who no longer wanted it.
    ensure!(made >= 32.0 && made <= together as f64 + 1.0, "{made} proofs of {together} claims");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_upgrader_knows_its_own_and_loses_no_proof() -> Result<()> {
    let mut fleet = Fleet::start(3, 1).await?;
    let txid = fleet.send("10")?;
    let address = upgraders::fee_address()?;
    let slow = ["--fee-address", &address, "--mock-proof-time", "3s"];
    fleet.upgrade(&slow)?;
    fleet.until("proving", SOON, |fleet| fleet.upgraders[0].log().contains("RaiseGobbler")).await?;
    let before = fleet.proofs_made().await?;
    ensure!(before >= 5.0, "the leaf proofs are made");
    fleet.upgraders[0].kill()?;
    fleet.upgrade(&slow)?;
    let is_merged = |fleet: &Fleet| fleet.mempool().iter().any(|other| *other != txid && fleet.is_done(*other));
    fleet.until("merged", SOON, is_merged).await?;
    let made = fleet.proofs_made().await?;
    ensure!(made <= 8.0 + 2.0, "{made} proofs for one paid raise and a restart");
    let result = fleet.mempool()[0];

    // A third process, which has never seen the transaction, keeps the fee's transaction at the tip.
    fleet.upgraders[1].kill()?;
    fleet.upgrade(&["--fee-address", &address])?;
    fleet.node.chain().mine(0)?;
    fleet.until("updated", SOON, |fleet| fleet.is_done(result)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_trouble_is_waited_for() -> Result<()> {
    let mut fleet = Fleet::start(3, 1).await?;
    fleet.node.fault([Fault::Error, Fault::Truncate, Fault::Delay(Duration::from_millis(300)), Fault::Error]);
    fleet.upgrade(&FREE)?;
    for _ in 0..2 {
        fleet.node.fault([Fault::Truncate, Fault::Error, Fault::Drip(Duration::from_millis(1))]);
        let txid = fleet.send("1")?;
        fleet.node.fault([Fault::Error, Fault::Error, Fault::Truncate]);
        fleet
            .until("raised", SOON, |fleet| {
                fleet.is_done(txid) || fleet.mempool().len() == 1 && fleet.is_done(fleet.mempool()[0])
            })
            .await?;
    }
    ensure!(fleet.upgraders[0].metric("upgrader_node_errors_total").await? > 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganization_is_followed() -> Result<()> {
    let mut fleet = Fleet::start(4, 1).await?;
    fleet.upgrade(&FREE)?;
    fleet.node.chain().mine(0)?;
    let first = fleet.send("1")?;
    fleet.until("raised", SOON, |fleet| fleet.is_done(first)).await?;
    fleet.node.chain().reorganize(1)?;
    ensure!(fleet.mempool().is_empty(), "as a node's");
    let second = fleet.send("2")?;
    fleet.until("raised on the other branch", SOON, |fleet| fleet.is_done(second)).await?;
    ensure!(fleet.upgraders[0].log().contains("reorganized=true"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_whether_it_is_ready_and_why_it_does_nothing() -> Result<()> {
    let mut fleet = Fleet::start(4, 1).await?;
    let cheap = fleet.send("0.001")?;
    let (rest, address) = (fleet.send("10")?, upgraders::fee_address()?);
    let shard = 1 - rest.last_byte() % 2;
    fleet.upgrade(&["--fee-address", &address, "--tx-upgrade-filter", &format!("2:{shard}")])?;
    let upgrader = &fleet.upgraders[0];
    let mut ready = upgrader.get("/readyz").await?;
    for _ in 0..100 {
        if ready["ready"] == true {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        ready = upgrader.get("/readyz").await?;
    }
    ensure!(ready["ready"] == true && ready["height"] == 1, "{ready}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let other = upgrader.get(&format!("/explain/{rest}")).await?;
    ensure!(other["why_not"]["reason"] == "other-shard" && other["in_this_shard"] == false, "{other}");
    ensure!(other["owner"] == format!("2:{}", 1 - shard), "{other}");
    if cheap.last_byte() % 2 == shard {
        let poor = upgrader.get(&format!("/explain/{cheap}")).await?;
        ensure!(poor["why_not"]["reason"] == "fee-too-low", "{poor}");
    }
    let unknown = upgrader.get(&format!("/explain/{}", Tip5::hash(&1_u64).to_hex())).await?;
    ensure!(unknown["state"] == "unknown", "{unknown}");
    let malformed = upgrader.get("/explain/xyz").await?;
    ensure!(malformed["status"] == 400, "{malformed}");
    Ok(())
}

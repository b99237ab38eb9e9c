//! Eight shards, two hundred transactions, deaths of upgraders and pods, a failing node, three reorganizations.

use std::time::Duration;

use anyhow::{Result, ensure};
use upgrader_fleet_tests::scenario::{Scenario, Wave, run};

#[tokio::test(flavor = "multi_thread")]
async fn every_transaction_ends_upgraded_exactly_once_whatever_dies() -> Result<()> {
    let wave =
        |reorganize, kill_pod| Wave { transactions: 50, reorganize, blocks: 2, kill_upgrader: true, kill_pod, faults: 30 };
    let scenario = Scenario {
        shards: 8,
        pods: 4,
        proof_time: Duration::from_millis(200),
        waves: vec![wave(0, true), wave(1, false), wave(2, true), wave(1, false)],
        patience: Duration::from_mins(2),
    };
    let summary = run(&scenario, |line| println!("{line}")).await?;
    println!(
        "{} given up with a reason in {} results of {} stuck ones, {} claims, {} proofs, {} duplicates, {:.1} s",
        summary.given_up(),
        summary.undone().len(),
        summary.stuck.len(),
        summary.claims,
        summary.proofs,
        summary.duplicates(),
        summary.seconds
    );
    ensure!(summary.ended.len() == 200 && summary.unfinished().is_empty(), "{:?}", summary.unfinished());
    // Only what was on its way to the node while a block was undone. A result may have merged several: the message says.
    let (given_up, all, undone) = (summary.given_up(), summary.ended.len(), summary.undone());
    ensure!(given_up * 50 <= all, "{given_up} of {all}: {undone:?}");
    ensure!(summary.killed == (4, 2));
    ensure!(summary.fees.is_positive());
    // An upper bound: what was proven for an upgrader that died meanwhile counts as a duplicate too.
    ensure!(summary.duplicates() * 50 < summary.proofs, "{} duplicates of {}", summary.duplicates(), summary.proofs);
    Ok(())
}

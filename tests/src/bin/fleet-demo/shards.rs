//! The first part of the demo: a fleet of four shards on a dev node with mock proofs, with deaths, blocks and a reorganization.

use std::time::Duration;

use anyhow::{Result, ensure};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use upgrader_fleet_tests::scenario::{Scenario, Summary, Wave, run};

/// Forty transactions in two waves: an upgrader and a pod die in the first, a reorganization and a block come in the second.
fn scenario() -> Scenario {
    let wave = Wave { transactions: 20, blocks: 1, ..Wave::default() };
    Scenario {
        shards: 4,
        pods: 2,
        proof_time: Duration::from_millis(400),
        waves: vec![Wave { kill_upgrader: true, kill_pod: true, ..wave }, Wave { reorganize: 1, ..wave }],
        patience: Duration::from_mins(2),
    }
}

/// Runs it and says what came of it.
pub async fn show() -> Result<()> {
    println!("A fleet of four shards, on a dev node with mock proofs:");
    let summary = run(&scenario(), |line| println!("   {line}")).await?;
    ensure!(
        summary.unfinished().is_empty() && summary.given_up() == 0,
        "not upgraded exactly once: {:?}, given up with a reason: {}",
        summary.unfinished(),
        summary.given_up()
    );
    println!("\n{}\n", table(&summary));
    println!(
        "   {} transactions, each in exactly one SingleProof at the tip. {} proofs of {} claims: {} made twice or for an upgrader\n   \
         that died. Fees of {} coins, found by the key of their address. {:.0} s.\n",
        summary.ended.len(),
        summary.proofs,
        summary.claims,
        summary.duplicates(),
        summary.fees.display_n_decimals(4),
        summary.seconds,
    );
    Ok(())
}

fn table(summary: &Summary) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["SHARD", "UPGRADES SUBMITTED"]);
    for (shard, upgrades) in &summary.by_upgrader {
        table.add_row([shard.clone(), upgrades.to_string()]);
    }
    table
}

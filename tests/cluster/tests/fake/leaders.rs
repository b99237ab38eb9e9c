//! Several operators, and operators that die.

use std::time::Duration;

use anyhow::Result;
use cluster::objects::spec;
use cluster::wait::until;
use nix::sys::signal::Signal;

use crate::support::coverage::{Auditor, expected, shards_of};
use crate::support::{Stage, is_ready, is_ready_with, tail, uids};

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_writes_also_when_it_is_stopped_and_goes_on() -> Result<()> {
    let Some(mut stage) = Stage::new("leaders").await else { return Ok(()) };
    stage.apply("prod", spec(2)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    let second = cluster::Operator::start(stage.cluster, "leaders-second", &stage.options(&[]))?;
    second.ready().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(second.metric("upgrader_fleet_operator_leader").await? < 0.5, "two leaders");
    stage.operator.signal(Signal::SIGSTOP)?;
    until("the second to lead", Duration::from_secs(30), || async {
        let leads = second.metric("upgrader_fleet_operator_leader").await?;
        Ok(if leads > 0.5 { Ok(()) } else { Err("it does not".to_owned()) })
    })
    .await?;
    stage.apply("prod", spec(4)).await?;
    stage.until("prod", "resized fleet", |status| status.ready_shards.as_deref() == Some("4/4")).await?;
    let before = uids(&stage).await?;
    stage.operator.signal(Signal::SIGCONT)?;
    // The first finds that it leads no more, writes nothing and ends.
    assert_eq!(stage.operator.end(Duration::from_secs(20)).await?, Some(1));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(uids(&stage).await?, before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_crashes_after_any_write_loses_nothing() -> Result<()> {
    let Some(mut stage) = Stage::new("crashes").await else { return Ok(()) };
    stage.apply("prod", spec(2)).await?;
    stage.until("prod", "ready fleet", is_ready).await?;
    stage.operator.signal(Signal::SIGTERM)?;
    assert_eq!(
        stage.operator.end(Duration::from_secs(30)).await?,
        Some(0),
        "it ends in order:\n{}",
        tail(&stage.operator.log())
    );
    let auditor = Auditor::start(stage.pods());
    let mut target = 2;
    for writes in 0..12 {
        // To and fro, so that each crash falls into a change.
        target = if target == 2 { 5 } else { 2 };
        let before = uids(&stage).await?;
        stage.apply("prod", spec(target)).await?;
        let mut crashing =
            cluster::Operator::start(stage.cluster, "crashes", &stage.options(&[&format!("--abort-after-writes={writes}")]))?;
        // Few writes: it may come to rest before.
        let _ = crashing.end(Duration::from_secs(8)).await;
        drop(crashing);
        stage.operator = cluster::Operator::start(stage.cluster, "crashes", &stage.options(&[]))?;
        stage.until("prod", "resized fleet", is_ready_with(target)).await?;
        let after = uids(&stage).await?;
        for survivor in before.keys().filter(|name| after.contains_key(*name)) {
            assert_eq!(before[survivor].0, after[survivor].0, "{survivor} was deleted on the way");
        }
        assert_eq!(shards_of(&stage.workloads("prod").await?, "prod"), expected(i64::from(target)));
        stage.operator.signal(Signal::SIGTERM)?;
        let _ = stage.operator.end(Duration::from_secs(30)).await?;
    }
    auditor.assert_never_uncovered();
    Ok(())
}

//! What a fleet looks like, as text: one line for the whole, a row for each upgrader, a row for each prover pod.

use comfy_table::Table;
use fleet_api::shard::Coverage;
use serde::Serialize;

use super::life::Phase;
use super::plan::Role;
use super::record::{FleetRecord, ProcessRecord};
use super::sight::{Counts, Sight, UpgraderAnswer};
use crate::status::{Answer, table};

/// A fleet in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// Upgraders that are ready.
    pub ready_shards: usize,
    /// Upgraders.
    pub shards: usize,
    /// Values of a transaction id's last byte that have a ready upgrader, of 256.
    pub coverage: u16,
    /// The same, a bit for each, as 64 hexadecimal digits, byte 255 first.
    pub coverage_mask: String,
    /// Prover pods that are ready.
    pub ready_provers: usize,
    /// Prover pods.
    pub provers: usize,
    /// Proofs that run.
    pub running: usize,
    /// Proofs that wait.
    pub queued: usize,
    /// Transactions in the mempool, as the upgrader sees it that sees most.
    pub mempool: f64,
    /// Upgrades that were submitted.
    pub upgrades: f64,
    /// Fees in what was submitted, in coins.
    pub fees_submitted: f64,
    /// Fees that are in a block, in coins.
    pub fees_mined: f64,
    /// Processes that were started again.
    pub restarts: u32,
}

/// Sums up. `counts` are those of each upgrader, in the record's order.
pub fn summary(record: &FleetRecord, sight: &Sight, counts: &[Counts]) -> Summary {
    let is_ready = |role: Role| {
        let ready = record.processes.iter().zip(&sight.ready);
        ready.filter(move |(process, ready)| process.role == role && **ready == Some(true)).map(|(process, _)| process)
    };
    let covered = is_ready(Role::Upgrader).filter_map(|upgrader| upgrader.class).collect::<Coverage>().covered;
    let mut summary = Summary {
        name: record.name.clone(),
        network: record.network.clone(),
        ready_shards: is_ready(Role::Upgrader).count(),
        shards: record.of(Role::Upgrader).count(),
        coverage: covered.count(),
        coverage_mask: covered.to_string(),
        ready_provers: is_ready(Role::Prover).count(),
        provers: record.of(Role::Prover).count(),
        running: 0,
        queued: 0,
        mempool: counts.iter().map(|counts| counts.mempool).fold(0.0, f64::max),
        upgrades: counts.iter().map(|counts| counts.upgrades).sum(),
        fees_submitted: counts.iter().map(|counts| counts.fees_submitted).sum(),
        fees_mined: counts.iter().map(|counts| counts.fees_mined).sum(),
        restarts: record.processes.iter().map(|process| process.restarts).sum(),
    };
    for pod in &sight.pods {
        if let Answer::Up { capacity, .. } = &pod.answer {
            summary.running += capacity.running;
            summary.queued += capacity.queue.values().map(|waiting| waiting.jobs).sum::<usize>();
        }
    }
    summary
}

impl Summary {
    /// One line.
    pub fn line(&self) -> String {
        format!(
            "{} on {}: shards {}/{}, coverage {}/256, provers {}/{}, proofs {} running and {} queued, mempool {}, upgrades {}, \
             fees {} ({} mined), restarts {}",
            self.name,
            self.network,
            self.ready_shards,
            self.shards,
            self.coverage,
            self.ready_provers,
            self.provers,
            self.running,
            self.queued,
            self.mempool,
            self.upgrades,
            coins(self.fees_submitted),
            coins(self.fees_mined),
            self.restarts,
        )
    }
}

/// Four decimals, as the node prints fees; a sum of no fees is no negative one.
fn coins(amount: f64) -> String {
    format!("{:.4}", amount.max(0.0) + 0.0)
}

/// The upgraders, a row each; after `most` rows only those that are not ready, and how many were left out.
pub fn upgraders(record: &FleetRecord, sight: &Sight, counts: &[Counts], most: usize) -> String {
    let header = ["UPGRADER", "SHARD", "STATE", "HEIGHT", "RUNNING", "UPGRADES", "FEES", "MINED", "RESTARTS"];
    let mut table = table(header, &[3, 4, 5, 6, 7, 8]);
    let (mut rows, mut left_out) = (0, 0);
    for ((process, report), counts) in record.of(Role::Upgrader).zip(&sight.upgraders).zip(counts) {
        let (height, trouble) = match &report.answer {
            UpgraderAnswer::Up(state) => (state.height, state.trouble.as_deref()),
            UpgraderAnswer::Down { .. } => (None, None),
        };
        let is_ready = matches!(&report.answer, UpgraderAnswer::Up(state) if state.ready);
        if rows >= most && is_ready {
            left_out += 1;
            continue;
        }
        rows += 1;
        let state = match trouble {
            Some(trouble) if !is_ready => format!("{}: {trouble}", state(process, is_ready)),
            _ => state(process, is_ready),
        };
        table.add_row([
            process.name.clone(),
            process.class.map_or(String::new(), |class| class.to_string()),
            state,
            height.map_or("-".to_owned(), |height| height.to_string()),
            counts.in_progress.to_string(),
            counts.upgrades.to_string(),
            coins(counts.fees_submitted),
            coins(counts.fees_mined),
            process.restarts.to_string(),
        ]);
    }
    with_rest(&table, left_out)
}

/// The prover pods, a row each; after `most` rows only those that are not ready.
pub fn provers(record: &FleetRecord, sight: &Sight, most: usize) -> String {
    let header = ["PROVER", "DEVICE", "STATE", "PROVING", "QUEUED", "MAX HEIGHT", "RESTARTS"];
    let mut table = table(header, &[3, 4, 5, 6]);
    let (mut rows, mut left_out) = (0, 0);
    for (process, pod) in record.of(Role::Prover).zip(&sight.pods) {
        let capacity = match &pod.answer {
            Answer::Up { capacity, .. } => Some(capacity),
            Answer::Down { .. } => None,
        };
        let is_ready = capacity.is_some_and(|capacity| capacity.ready);
        if rows >= most && is_ready {
            left_out += 1;
            continue;
        }
        rows += 1;
        let queued = capacity.map(|capacity| capacity.queue.values().map(|waiting| waiting.jobs).sum::<usize>());
        table.add_row([
            process.name.clone(),
            process.device.clone().unwrap_or_default(),
            state(process, is_ready),
            capacity.map_or("-".to_owned(), |capacity| format!("{}/{}", capacity.running, capacity.slots)),
            queued.map_or("-".to_owned(), |queued| queued.to_string()),
            capacity
                .and_then(|capacity| capacity.max_log2_padded_height)
                .map_or("-".to_owned(), |height| format!("2^{height}")),
            process.restarts.to_string(),
        ]);
    }
    with_rest(&table, left_out)
}

/// What it just said counts before what was written down.
fn state(process: &ProcessRecord, is_ready: bool) -> String {
    match process.phase {
        Phase::Starting | Phase::Unready if is_ready => Phase::Ready,
        Phase::Ready if !is_ready => Phase::Unready,
        phase => phase,
    }
    .name()
    .to_owned()
}

fn with_rest(table: &Table, left_out: usize) -> String {
    let text = table.trim_fmt();
    if left_out == 0 { text } else { format!("{text}\n … and {left_out} more, all ready") }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

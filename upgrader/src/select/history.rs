//! What happened to transactions before: failures rest, poison stays away.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::TxId;

/// Until when a transaction is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Until {
    /// The first height at which it is tried again: the next block may change what went wrong with it.
    #[serde(rename = "until_height")]
    Height(u64),
    /// A time since the epoch: what went wrong has nothing to do with it.
    #[serde(rename = "until_time", serialize_with = "seconds")]
    Time(Duration),
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_secs())
}

impl Until {
    fn is_over(self, height: u64, now: Duration) -> bool {
        match self {
            Self::Height(until) => height >= until,
            Self::Time(until) => now >= until,
        }
    }
}

/// How long a transaction is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// When it is tried again.
    pub until: Until,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure.
    pub because: String,
}

/// Memory of one upgrader. Bounded: what is no longer in the mempool is forgotten, poison last.
#[derive(Debug, Clone, Default)]
pub struct History {
    resting: HashMap<TxId, Rest>,
    poison: HashMap<TxId, (u64, String)>,
}

impl History {
    /// The longest rest, in blocks.
    pub const LONGEST_REST: u64 = 32;

    /// The first rest when it was not the transaction's fault; doubles.
    pub const FIRST_PAUSE: Duration = Duration::from_secs(5);

    /// The longest one.
    pub const LONGEST_PAUSE: Duration = Duration::from_mins(5);

    /// Blocks for which poison is remembered at least.
    pub const POISON_BLOCKS: u64 = 1_000;

    /// An attempt failed at this height. It rests until the next block, the second time for two, then for four, and so on.
    pub fn failed(&mut self, txid: TxId, height: u64, because: impl Into<String>) {
        self.rests(txid, because.into(), |failures| {
            let blocks = 1_u64.checked_shl(failures).unwrap_or(u64::MAX).min(Self::LONGEST_REST);
            Until::Height(height.saturating_add(blocks))
        });
    }

    /// An attempt failed for want of a node or of provers. Blocks are minutes apart and a fee is waiting: it rests for seconds.
    pub fn held_up(&mut self, txid: TxId, now: Duration, because: impl Into<String>) {
        self.rests(txid, because.into(), |failures| {
            let pause = Self::FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
            Until::Time(now.saturating_add(pause.min(Self::LONGEST_PAUSE)))
        });
    }

    fn rests(&mut self, txid: TxId, because: String, until: impl FnOnce(u32) -> Until) {
        let failures = self.resting.get(&txid).map_or(0, |rest| rest.failures);
        let rest = Rest { until: until(failures), failures: failures.saturating_add(1), because };
        self.resting.insert(txid, rest);
    }

    /// It can never be proven.
    pub fn poisoned(&mut self, txid: TxId, height: u64, because: impl Into<String>) {
        self.resting.remove(&txid);
        self.poison.insert(txid, (height, because.into()));
    }

    /// It went well.
    pub fn succeeded(&mut self, txid: TxId) {
        self.resting.remove(&txid);
    }

    /// Whether it rests at this height and time. A reorganization to a lower height ends no rest, nor does it start one.
    pub fn rest(&self, txid: TxId, height: u64, now: Duration) -> Option<&Rest> {
        self.resting.get(&txid).filter(|rest| !rest.until.is_over(height, now))
    }

    /// Why it is never tried.
    pub fn poison(&self, txid: TxId) -> Option<&str> {
        self.poison.get(&txid).map(|(_, because)| because.as_str())
    }

    /// Forgets what is neither in the mempool nor recent.
    pub fn forget(&mut self, is_in_mempool: impl Fn(TxId) -> bool, height: u64, now: Duration) {
        self.resting.retain(|&txid, rest| is_in_mempool(txid) || !rest.until.is_over(height, now));
        self.poison.retain(|&txid, (since, _)| is_in_mempool(txid) || height < since.saturating_add(Self::POISON_BLOCKS));
    }

    /// Transactions remembered: resting, poisoned.
    pub fn lengths(&self) -> (usize, usize) {
        (self.resting.len(), self.poison.len())
    }
}

#[cfg(test)]
mod tests {
    use triton_vm::prelude::{Digest, Tip5};

    use super::*;

    fn txid(n: u64) -> TxId {
        TxId::new(Tip5::hash(&n))
    }

    #[test]
    fn a_failure_rests_until_the_next_block_and_then_ever_longer() {
        let mut history = History::default();
        let mut height = 100;
        for blocks in [1, 2, 4, 8, 16, 32, 32, 32] {
            history.failed(txid(1), height, "no prover");
            assert!(history.rest(txid(1), height + blocks - 1, NOW).is_some(), "{blocks}");
            assert!(history.rest(txid(1), height + blocks, NOW).is_none(), "{blocks}");
            height += blocks;
        }
        history.succeeded(txid(1));
        history.failed(txid(1), height, "again");
        assert_eq!(history.rest(txid(1), height, NOW).map(|rest| rest.until), Some(Until::Height(height + 1)));
        assert!(history.rest(txid(2), height, NOW).is_none());
    }

    const NOW: Duration = Duration::from_secs(1_000_000);

    #[test]
    fn a_node_that_does_not_answer_costs_seconds_and_no_block() {
        let mut history = History::default();
        let (height, mut now) = (100, NOW);
        for pause in [5, 10, 20, 40, 80, 160, 300, 300] {
            history.held_up(txid(1), now, "no node");
            let pause = Duration::from_secs(pause);
            assert!(history.rest(txid(1), height + 50, now + pause.mul_f64(0.99)).is_some(), "{pause:?}");
            now += pause;
            assert!(history.rest(txid(1), height, now).is_none(), "{pause:?}");
        }
        history.forget(|_| false, height, now);
        assert_eq!(history.lengths(), (0, 0));
        history.held_up(txid(2), now, "no node");
        let until = history.rest(txid(2), height, now).map(|rest| serde_json::to_value(rest.until).expect("is JSON"));
        assert_eq!(until, Some(serde_json::json!({"until_time": (now + History::FIRST_PAUSE).as_secs()})));
    }

    #[test]
    fn poison_outlives_its_absence_from_the_mempool_and_memory_is_bounded() {
        let mut history = History::default();
        for n in 0..100 {
            history.failed(txid(n), 5, "");
        }
        history.poisoned(TxId::new(Digest::default()), 5, "panics");
        history.forget(|id| id == txid(3), 50, NOW);
        assert_eq!(history.lengths(), (1, 1));
        assert_eq!(history.poison(TxId::new(Digest::default())), Some("panics"));
        history.forget(|_| false, 5 + History::POISON_BLOCKS, NOW);
        assert_eq!(history.lengths(), (0, 0));
    }
}

//! What happened to transactions before: failures rest, poison stays away.

use std::collections::HashMap;

use crate::TxId;

/// How long a transaction is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rest {
    /// First height at which it is tried again.
    pub until_height: u64,
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

    /// Blocks for which poison is remembered at least.
    pub const POISON_BLOCKS: u64 = 1_000;

    /// An attempt failed at this height. It rests until the next block, the second time for two, then for four, and so on.
    pub fn failed(&mut self, txid: TxId, height: u64, because: impl Into<String>) {
        let rest = self.resting.entry(txid).or_insert(Rest { until_height: 0, failures: 0, because: String::new() });
        let blocks = 1_u64.checked_shl(rest.failures).unwrap_or(u64::MAX).min(Self::LONGEST_REST);
        rest.failures = rest.failures.saturating_add(1);
        rest.until_height = height.saturating_add(blocks);
        rest.because = because.into();
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

    /// Whether it rests at this height. A reorganization to a lower height ends no rest, nor does it start one.
    pub fn rest(&self, txid: TxId, height: u64) -> Option<&Rest> {
        self.resting.get(&txid).filter(|rest| height < rest.until_height)
    }

    /// Why it is never tried.
    pub fn poison(&self, txid: TxId) -> Option<&str> {
        self.poison.get(&txid).map(|(_, because)| because.as_str())
    }

    /// Forgets what is neither in the mempool nor recent.
    pub fn forget(&mut self, is_in_mempool: impl Fn(TxId) -> bool, height: u64) {
        self.resting.retain(|&txid, rest| is_in_mempool(txid) || height < rest.until_height);
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
            assert!(history.rest(txid(1), height + blocks - 1).is_some(), "{blocks}");
            assert!(history.rest(txid(1), height + blocks).is_none(), "{blocks}");
            height += blocks;
        }
        history.succeeded(txid(1));
        history.failed(txid(1), height, "again");
        assert_eq!(history.rest(txid(1), height).map(|rest| rest.until_height), Some(height + 1));
        assert!(history.rest(txid(2), height).is_none());
    }

    #[test]
    fn poison_outlives_its_absence_from_the_mempool_and_memory_is_bounded() {
        let mut history = History::default();
        for n in 0..100 {
            history.failed(txid(n), 5, "");
        }
        history.poisoned(TxId::new(Digest::default()), 5, "panics");
        history.forget(|id| id == txid(3), 50);
        assert_eq!(history.lengths(), (1, 1));
        assert_eq!(history.poison(TxId::new(Digest::default())), Some("panics"));
        history.forget(|_| false, 5 + History::POISON_BLOCKS);
        assert_eq!(history.lengths(), (0, 0));
    }
}

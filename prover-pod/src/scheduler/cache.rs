//! Which proofs are kept, least recently used out first. The bytes themselves live in the shell.

use std::collections::{BTreeMap, HashMap};

use prover_api::JobId;

/// A bounded set of finished claims.
#[derive(Debug, Clone, Default)]
pub struct ProofCache {
    limit: u64,
    bytes: u64,
    clock: u64,
    entries: HashMap<JobId, (u64, u64)>,
    by_use: BTreeMap<u64, JobId>,
}

impl ProofCache {
    /// An empty cache for proofs of `limit` bytes in total.
    pub fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Keeps a proof and returns those that must go for it. A proof larger than the whole cache is kept alone: its callers
    /// have not fetched it yet.
    pub fn insert(&mut self, job: JobId, bytes: u64) -> Vec<JobId> {
        self.remove(job);
        let mut out = Vec::new();
        while self.bytes + bytes > self.limit {
            let Some((_, oldest)) = self.by_use.pop_first() else { break };
            if let Some((_, size)) = self.entries.remove(&oldest) {
                self.bytes -= size;
            }
            out.push(oldest);
        }
        self.clock += 1;
        self.bytes += bytes;
        self.entries.insert(job, (self.clock, bytes));
        self.by_use.insert(self.clock, job);
        out
    }

    /// Whether the proof is here; marks it as used.
    pub fn touch(&mut self, job: JobId) -> bool {
        let Some((used, _)) = self.entries.get_mut(&job) else { return false };
        self.by_use.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.by_use.insert(self.clock, job);
        true
    }

    /// Whether the proof is here.
    pub fn contains(&self, job: JobId) -> bool {
        self.entries.contains_key(&job)
    }

    /// Bytes kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Proofs kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn remove(&mut self, job: JobId) {
        if let Some((used, size)) = self.entries.remove(&job) {
            self.by_use.remove(&used);
            self.bytes -= size;
        }
    }
}

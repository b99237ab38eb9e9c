//! What is known of the node's mempool: a summary of each transaction, so that unchanged ones are not downloaded again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use neptune_consensus::transaction::transaction_kernel::TransactionKernel;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use neptune_mutator_set::removal_record::absolute_index_set::AbsoluteIndexSet;
use neptune_primitives::timestamp::Timestamp;
use triton_vm::prelude::{Digest, Tip5};

use crate::node::{NodeError, Nodes, Shown};
use crate::recipient::FeeAddress;
use crate::ring::Ring;
use crate::select::{Candidate, ProofKind, Sync};
use crate::{Shard, TxId};

/// How long before its retirement a transaction is left alone. Nodes admit none that retires within 100 minutes; a proof takes
/// some of that time away.
const RETIREMENT_MARGIN: Timestamp = Timestamp::minutes(110);

/// A transaction, without its bulk.
#[derive(Debug, Clone)]
struct Known {
    fee: NativeCurrencyAmount,
    mutator_set: Digest,
    inputs: Vec<Digest>,
    outputs: usize,
    announcements: usize,
    retires: Option<Timestamp>,
    carries_our_fee: bool,
    proof: ProofKind,
    first_seen: Duration,
    /// The tip for which it was looked at last, and when.
    looked_at_tip: Digest,
    looked: Duration,
}

impl Known {
    /// Whether it may have changed since: with a new tip whatever it is. What shows no proof is the node's own, and its proof
    /// comes whenever the node has made it.
    fn is_stale(&self, tip: Digest, now: Duration) -> bool {
        // The clock of the machine may be set back.
        let rested = now.checked_sub(self.looked).is_none_or(|passed| passed >= HIDDEN_FOR);
        let may_be_proven = self.proof == ProofKind::Hidden && rested;
        self.looked_at_tip != tip || may_be_proven
    }
}

/// The mempool as last seen.
#[derive(Debug, Clone, Default)]
pub struct Mempool {
    order: Vec<TxId>,
    known: HashMap<TxId, Known>,
    /// Transactions that carry a fee that we gobbled, with its amount; remembered beyond their absence.
    own: HashMap<TxId, NativeCurrencyAmount>,
}

/// At most this many transactions are looked at in one round, so that a round ends.
const LOOKS_PER_ROUND: usize = 64;

/// How often a transaction without a proof is looked at again.
const HIDDEN_FOR: Duration = Duration::from_secs(2);

impl Mempool {
    /// Looks at the mempool again: the list, and what is new in it of this shard, or may have changed with the tip.
    ///
    /// # Errors
    /// [`NodeError`] of the first call that failed; what was learned until then stays.
    pub async fn refresh(
        &mut self,
        nodes: &Nodes,
        shard: Shard,
        address: Option<&FeeAddress>,
        tip: Digest,
        now: Duration,
    ) -> Result<bool, NodeError> {
        self.order = nodes.mempool().await?;
        let listed: HashSet<TxId> = self.order.iter().copied().collect();
        self.known.retain(|txid, _| listed.contains(txid));
        let stale = |txid: &TxId| {
            (shard.matches(*txid) || self.own.contains_key(txid))
                && self.known.get(txid).is_none_or(|known| known.is_stale(tip, now))
        };
        let mut todo: Vec<TxId> = self.order.iter().copied().filter(stale).collect();
        // Last what may be hidden for long: it must not keep out what is new.
        todo.sort_by_key(|txid| self.known.get(txid).is_some_and(|known| known.proof == ProofKind::Hidden));
        for txid in todo.iter().take(LOOKS_PER_ROUND) {
            self.look(nodes, *txid, address, tip, now).await?;
        }
        Ok(todo.len() <= LOOKS_PER_ROUND)
    }

    async fn look(
        &mut self,
        nodes: &Nodes,
        txid: TxId,
        address: Option<&FeeAddress>,
        tip: Digest,
        now: Duration,
    ) -> Result<(), NodeError> {
        let shown = nodes.shown(txid).await?;
        let exact = self.known.get(&txid).map(|known| known.proof);
        if let (Shown::Collection, Some(known)) = (shown, self.known.get_mut(&txid))
            && matches!(known.proof, ProofKind::Collection { .. })
        {
            // As long as it is a collection nobody can have changed its kernel.
            (known.looked_at_tip, known.looked) = (tip, now);
            return Ok(());
        }
        let Some(kernel) = nodes.kernel(txid).await? else {
            self.known.remove(&txid);
            return Ok(());
        };
        let first_seen = self.known.get(&txid).map_or(now, |known| known.first_seen);
        let proof = match (shown, exact) {
            (Shown::Nothing, _) => ProofKind::Hidden,
            (Shown::Single, _) => ProofKind::Single,
            (Shown::Collection, Some(proof @ ProofKind::Collection { .. })) => proof,
            // Four about the kernel, one lock script per input, one type script at least.
            (Shown::Collection, _) => ProofKind::Collection { at_least_proofs: 5 + kernel.inputs.len() },
        };
        let known = Known {
            fee: kernel.fee,
            mutator_set: kernel.mutator_set_hash,
            inputs: kernel.inputs.iter().map(|input| input_id(&input.absolute_indices)).collect(),
            outputs: kernel.outputs.len(),
            announcements: kernel.announcements.len(),
            retires: kernel.earliest_retirement(),
            carries_our_fee: address.is_some_and(|address| address.is_in(&kernel)),
            proof,
            first_seen,
            looked_at_tip: tip,
            looked: now,
        };
        self.known.insert(txid, known);
        Ok(())
    }

    /// A result of ours is in the mempool, carrying this much of ours.
    pub fn is_ours(&mut self, txid: TxId, amount: NativeCurrencyAmount) {
        self.own.insert(txid, amount);
    }

    /// A downloaded proof showed what it is.
    pub fn learned(&mut self, txid: TxId, proof: ProofKind) {
        if let Some(known) = self.known.get_mut(&txid) {
            known.proof = proof;
        }
    }

    /// Something about it changed; it is looked at again.
    pub fn touch(&mut self, txid: TxId) {
        if let Some(known) = self.known.get_mut(&txid) {
            known.looked_at_tip = Digest::default();
        }
    }

    /// Forgets results of ours that are neither in the mempool nor of use any more.
    pub fn forget_own(&mut self, keep: impl Fn(TxId) -> bool) {
        self.own.retain(|txid, _| keep(*txid));
    }

    /// Ids of results of ours.
    pub fn own(&self) -> impl Iterator<Item = (TxId, NativeCurrencyAmount)> {
        self.own.iter().map(|(txid, amount)| (*txid, *amount))
    }

    /// Whether the node lists it.
    pub fn lists(&self, txid: TxId) -> bool {
        self.order.contains(&txid)
    }

    /// Ids as the node lists them.
    pub fn order(&self) -> Vec<TxId> {
        self.order.clone()
    }

    /// Transactions listed.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether the mempool is empty.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// All that is known, for selection. What has not been looked at yet is left out.
    pub fn candidates(&self, ring: &Ring, now: Timestamp, least_own: NativeCurrencyAmount) -> Vec<Candidate> {
        let candidate = |(rank, txid): (usize, &TxId)| {
            let known = self.known.get(txid)?;
            let sync = ring.lag(known.mutator_set).map_or(Sync::Unknown, |lag| {
                let is_input = |indices: &AbsoluteIndexSet| known.inputs.contains(&input_id(indices));
                if lag > 0 && ring.spent_since(known.mutator_set, is_input) { Sync::Spent } else { Sync::Behind(lag) }
            });
            // How much of it is ours is known only of what this process made; of what it finds, the least it would have taken.
            let own = self.own.get(txid).copied().or_else(|| known.carries_our_fee.then_some(least_own));
            Some(Candidate {
                txid: *txid,
                fee: known.fee,
                rank,
                proof: known.proof,
                sync,
                inputs: known.inputs.clone(),
                outputs: known.outputs,
                announcements: known.announcements,
                retires_soon: known.retires.is_some_and(|retires| retires < now + RETIREMENT_MARGIN),
                own,
                first_seen: known.first_seen,
            })
        };
        self.order.iter().enumerate().filter_map(candidate).collect()
    }
}

/// The id of an input: the UTXO that it spends, whatever the mutator set.
pub fn input_id(indices: &AbsoluteIndexSet) -> Digest {
    Tip5::hash(indices)
}

/// The ids of a kernel's inputs.
pub fn input_ids(kernel: &TransactionKernel) -> Vec<Digest> {
    kernel.inputs.iter().map(|input| input_id(&input.absolute_indices)).collect()
}

//! What became of the fees that we gobbled.

use std::collections::HashMap;

use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use triton_vm::prelude::Digest;

use super::Submitted;
use crate::TxId;
use crate::mempool::{Mempool, input_id};
use crate::metrics::Metrics;
use crate::ring::Ring;

#[derive(Debug, Clone)]
struct Pending {
    txid: TxId,
    amount: NativeCurrencyAmount,
    inputs: Vec<Digest>,
}

/// Fees that were submitted and are in no block yet, by the commitment of their UTXO.
#[derive(Debug, Default)]
pub struct Fees {
    pending: HashMap<Digest, Pending>,
    /// Results of ours whose inputs are spent.
    settled: Vec<TxId>,
    last_height: u64,
}

impl Fees {
    /// A result was submitted. Its fee counts once, however often it is submitted again after an update.
    pub fn submitted(&mut self, result: &Submitted, metrics: &Metrics) {
        let Some((amount, commitment)) = result.fee else { return };
        let pending = Pending { txid: result.txid, amount, inputs: result.inputs.clone() };
        if self.pending.insert(commitment, pending).is_none() {
            metrics.fee("submitted", amount);
        }
    }

    /// Looks into the blocks that are new. A fee whose UTXO a block adds is mined; one whose transaction's inputs a block spends
    /// without adding it is lost to another version of the transaction.
    pub fn on_tip(&mut self, ring: &Ring, metrics: &Metrics) {
        let Some(tip) = ring.tip() else { return };
        let from = self.last_height.min(tip.height.saturating_sub(1)) + 1;
        let changes: Vec<_> = ring.changes_from(from).collect();
        self.last_height = tip.height;
        let settled = &mut self.settled;
        self.pending.retain(|commitment, pending| {
            let mined =
                changes.iter().flat_map(|change| &change.additions).any(|added| added.canonical_commitment == *commitment);
            let spent = changes
                .iter()
                .flat_map(|change| &change.removals)
                .any(|removal| pending.inputs.contains(&input_id(&removal.absolute_indices)));
            if mined {
                metrics.fee("mined", pending.amount);
            } else if spent {
                metrics.fee("lost", pending.amount);
            }
            if mined || spent {
                tracing::info!(txid = %pending.txid, amount = %pending.amount, mined, "fee settled");
                settled.push(pending.txid);
            }
            !(mined || spent)
        });
    }

    /// Lets go of results that are in a block.
    pub fn forget(&mut self, mempool: &mut Mempool) {
        let settled = std::mem::take(&mut self.settled);
        if !settled.is_empty() {
            mempool.forget_own(|txid| !settled.contains(&txid));
        }
    }
}

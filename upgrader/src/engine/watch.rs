//! Whether the upgrades under way are still needed.

use std::time::{Duration, Instant};

use super::Engine;
use crate::TxId;
use crate::dag::{Node, Superseded};
use crate::node::{NodeError, Shown};
use crate::ring::Ring;
use crate::select::Work;

/// How often the node is asked who spends what we upgrade: a second after somebody else's proof ours has stopped.
const LOOK: Duration = Duration::from_millis(500);

/// How often a proof is looked at that the node does not count as ready for a block. The node writes 10 MB for that.
const LOOK_CLOSER: Duration = Duration::from_secs(3);

/// How long a transaction may be missing from the mempool, with no rival in sight, before its upgrade is given up. A restarted
/// node begins with an empty mempool and takes our result none the less.
const ABSENCE: Duration = Duration::from_mins(2);

impl Engine {
    pub(super) async fn watch_running(&mut self, ring: &Ring) -> Result<(), NodeError> {
        let tip_mutator_set = ring.tip_mutator_set_hash();
        let nodes = &self.context.nodes;
        let mut verdicts = Vec::new();
        for (number, handle) in &mut self.running {
            let stage = handle.stage.borrow().clone();
            if stage.state != "proving" {
                continue; // a submission is seen through, and before there are proofs there is nothing to save
            }
            // Once something of ours was submitted, that is what others may replace.
            let subjects: Vec<TxId> = stage.submitted.map_or_else(|| handle.planned.work.txids().collect(), |txid| vec![txid]);
            if !subjects.iter().all(|txid| self.mempool.lists(*txid)) {
                let since = *handle.absent_since.get_or_insert_with(Instant::now);
                let spenders = if stage.inputs.is_empty() { vec![] } else { nodes.spenders(stage.inputs.to_vec()).await? };
                if spenders.iter().any(|spender| !subjects.contains(&spender.txid)) {
                    verdicts.push((*number, Superseded::BetterProof));
                } else if since.elapsed() >= ABSENCE {
                    verdicts.push((*number, Superseded::Gone));
                }
                continue;
            }
            handle.absent_since = None;
            if stage.inputs.is_empty() || handle.looked.elapsed() < LOOK {
                continue;
            }
            handle.looked = Instant::now();
            let spenders = nodes.spenders(stage.inputs.to_vec()).await?;
            let subject = subjects[0];
            let raising = matches!(handle.planned.work, Work::Raise { .. }) && stage.submitted.is_none();
            let rival = if stage.proving.contains(&Node::Update) {
                spenders.iter().any(|spender| spender.txid == subject && Some(spender.mutator_set) == tip_mutator_set)
            } else if raising && spenders.iter().any(|spender| spender.txid == subject && spender.is_minable) {
                true
            } else if raising && handle.looked_closer.elapsed() >= LOOK_CLOSER {
                handle.looked_closer = Instant::now();
                nodes.shown(subject).await? == Shown::Single
            } else {
                false
            };
            if rival {
                verdicts.push((*number, Superseded::BetterProof));
            }
        }
        for (number, why) in verdicts {
            if let Some(handle) = self.running.get(&number) {
                // A receiver that is gone has ended by itself.
                let _ = handle.control.send(why);
            }
        }
        Ok(())
    }
}

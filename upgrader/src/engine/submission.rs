//! Gives a result to a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use tokio::sync::watch;
use triton_vm::prelude::Digest;

use super::context::Context;
use crate::TxId;
use crate::jobs::CheckedProof;
use crate::mempool::input_ids;
use crate::node::{NodeError, txid_of};
use crate::ring::Ring;

/// Attempts to submit when nodes do not answer.
const SUBMISSIONS: u32 = 6;

/// Pause before the second; doubles.
const SUBMISSION_PAUSE: Duration = Duration::from_millis(500);

/// How long the node's tip may be another one than ours before a submission counts as not answered.
const AGREEMENT: Duration = Duration::from_secs(10);

/// Pause between two questions for the node's tip, if ours does not move before.
const AGREEMENT_PAUSE: Duration = Duration::from_millis(200);

/// A transaction that we gave to the node.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// Its id.
    pub txid: TxId,
    /// How much of it is ours.
    pub own: NativeCurrencyAmount,
    /// The fee that was gobbled in this upgrade, and the commitment of its UTXO.
    pub fee: Option<(NativeCurrencyAmount, Digest)>,
    /// What it spends.
    pub inputs: Vec<Digest>,
}

/// Why a result was not taken.
pub(super) enum NotTaken {
    /// A node refused it, or none answered.
    Node(NodeError),
    /// The block that it is synced to is no longer on the chain.
    Orphaned,
}

impl From<NodeError> for NotTaken {
    fn from(error: NodeError) -> Self {
        Self::Node(error)
    }
}

/// Gives the result to a node, again and again if none answers.
pub(super) async fn submit(
    context: Arc<Context>,
    mut ring: watch::Receiver<Ring>,
    result: CheckedProof,
    own: NativeCurrencyAmount,
    fee: Option<(NativeCurrencyAmount, Digest)>,
    unsure: Arc<AtomicBool>,
) -> Result<Submitted, NotTaken> {
    let (kernel, proof) = result.into_parts();
    let submitted = Submitted { txid: txid_of(&kernel), own, fee, inputs: input_ids(&kernel) };
    let transaction = Transaction { kernel, proof: TransactionProof::SingleProof(proof) };
    let mut pause = SUBMISSION_PAUSE;
    let mut attempt = 1;
    loop {
        let error = match offer(&context, &mut ring, &transaction, &unsure).await {
            Ok(()) => return Ok(submitted),
            Err(NotTaken::Node(error)) if error.is_transient() && attempt < SUBMISSIONS => error,
            Err(error) => return Err(error),
        };
        tracing::warn!(txid = %submitted.txid, %error, "could not submit, trying again");
        context.metrics.node_error(error.name());
        tokio::time::sleep(pause).await;
        pause *= 2;
        attempt += 1;
    }
}

/// Submits once the node's tip is ours and the result stands on its chain. A node takes what is synced to a block that a
/// reorganization has undone (it judges mutator sets that it does not know as if they were its tip's), and nobody could ever
/// update that, while it keeps out whatever spends the same coins.
///
/// One moment remains: neptune-core 0.19.4 inserts a transaction some time after it has judged it, without a second look. If a
/// block that spends an input comes in between, the result stays in the node's mempool as a double spend.
async fn offer(
    context: &Context,
    ring: &mut watch::Receiver<Ring>,
    transaction: &Transaction,
    unsure: &AtomicBool,
) -> Result<(), NotTaken> {
    let began = Instant::now();
    loop {
        let theirs = context.nodes.tip_hash().await?;
        {
            let ours = ring.borrow_and_update();
            if ours.tip().is_some_and(|tip| tip.hash == theirs) {
                ours.lag(transaction.kernel.mutator_set_hash).ok_or(NotTaken::Orphaned)?;
                break;
            }
        }
        if began.elapsed() >= AGREEMENT {
            return Err(NodeError::Nonsense("its tip is not the one that its blocks lead to".to_owned()).into());
        }
        // An error says that the engine is gone, and so are we, soon.
        let _ = tokio::time::timeout(AGREEMENT_PAUSE, ring.changed()).await;
    }
    let answer = context.nodes.submit(transaction.clone()).await;
    if answer.as_ref().is_err_and(NodeError::is_transient) {
        unsure.store(true, Ordering::Relaxed);
    }
    Ok(answer?)
}

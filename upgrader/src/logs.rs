//! The lines that users of GPU upgraders know, word for word, so that their dashboards and habits keep working. Everything said
//! here is said in structured fields as well.

use crate::TxId;
use crate::dag::{Kind, Node};

fn device(gpu: bool) -> &'static str {
    if gpu { "GPU-accelerated" } else { "CPU-only" }
}

/// When pods with a GPU come or go.
pub fn available(gpu: bool) {
    if gpu {
        tracing::info!("[GPU-UPGRADER] GPU acceleration available - upgrades will use GPU for single proofs and merges");
    } else {
        tracing::info!("[GPU-UPGRADER] CPU-only mode - no prover pod with a GPU answers");
    }
}

/// An upgrade begins.
pub fn starting(kind: Kind, gpu: bool) {
    let what = match kind {
        Kind::FreeRaise | Kind::PaidRaise { .. } => "ProofCollection→SingleProof upgrade",
        Kind::Merge => "Merge upgrade",
        Kind::Update => "MutatorSet update",
    };
    tracing::info!(kind = kind.name(), "[GPU-UPGRADER] Starting {what} ({})", device(gpu));
}

/// Transactions were chosen.
pub fn attempting(txids: &[TxId]) {
    let list = txids.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    tracing::info!("Attempting to upgrade transaction proofs of: {list}");
}

/// An upgrade was submitted.
pub fn upgraded(txid: TxId, kind: &str, seconds: f64, gpu: bool) {
    if kind == Kind::Update.name() {
        tracing::info!(%txid, kind, seconds, "[GPU-UPGRADER] MutatorSet update completed ({})", device(gpu));
    }
    tracing::info!(%txid, kind, seconds, "[GPU-UPGRADER] Successfully upgraded transaction {txid} ({})", device(gpu));
}

/// A proof goes out to the pods, whose table of measured speeds decides between CPU and GPU.
pub fn job_running(number: u64, node: Node, priority: prover_api::Priority, running: usize, gpu: bool) {
    match (node, gpu) {
        (_, false) => tracing::debug!("[HYBRID] Using CPU execution (no pod with a GPU answers)"),
        (Node::GobblerLeaf(_), true) => tracing::info!("[HYBRID] Leaf proof of a proof collection: pods prefer CPU execution"),
        (_, true) => tracing::info!("[HYBRID] Using GPU execution"),
    }
    tracing::info!(?node, "JobQueue: job running: #{number} - priority: {priority}, running: {running}");
}

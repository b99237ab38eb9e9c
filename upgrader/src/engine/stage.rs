//! How far an upgrade is, for people and for the engine.

use std::sync::Arc;
use std::time::Instant;

use neptune_mutator_set::removal_record::absolute_index_set::AbsoluteIndexSet;
use serde::Serialize;

use crate::TxId;
use crate::dag::{Dag, Node};

/// A moment of an upgrade.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// `preparing`, `proving` or `submitting`.
    pub state: &'static str,
    /// What is being proven.
    pub proving: Vec<Node>,
    /// Proofs done.
    pub done: usize,
    /// Proofs in all, as far as is known.
    pub of: usize,
    /// Seconds since it began.
    pub seconds: f64,
    /// What was submitted last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted: Option<TxId>,
    /// What the transaction spends.
    #[serde(skip)]
    pub inputs: Arc<[AbsoluteIndexSet]>,
}

impl Stage {
    /// Before there is a DAG: downloads and checks.
    pub fn preparing() -> Self {
        let (proving, inputs) = (vec![], Arc::default());
        Self { state: "preparing", proving, done: 0, of: 0, seconds: 0.0, submitted: None, inputs }
    }

    /// The stage that the DAG is in.
    pub fn of(dag: &Dag, began: Instant, submitted: Option<TxId>, inputs: Arc<[AbsoluteIndexSet]>) -> Self {
        let (done, of) = dag.progress();
        Self {
            state: if dag.is_submitting() { "submitting" } else { "proving" },
            proving: dag.running().collect(),
            done,
            of,
            seconds: began.elapsed().as_secs_f64(),
            submitted,
            inputs,
        }
    }
}

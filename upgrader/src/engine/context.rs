//! What every upgrade of this process shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::time::Duration;

use neptune_primitives::network::Network;
use prover_api::client::Client;
use tokio::sync::Semaphore;

use crate::choices::Choices;
use crate::metrics::Metrics;
use crate::node::Nodes;
use crate::policy::Policy;
use crate::recipient::FeeAddress;

/// How proofs are made on this network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proving {
    /// For real.
    Real,
    /// By mock pods, which take this long for 2^22 rows and half for each power of two less.
    Mock {
        /// Time for 2^22 rows.
        time: Duration,
    },
}

impl Proving {
    /// What this network has.
    pub fn of(network: Network, mock_time: Duration) -> Self {
        if network.use_mock_proof() { Self::Mock { time: mock_time } } else { Self::Real }
    }

    /// How long a mock pod takes for this height.
    pub fn mock_duration(time: Duration, log2_padded_height: u8) -> Duration {
        time.mul_f64(f64::from(i32::from(log2_padded_height) - 22).exp2())
    }
}

/// What every upgrade shares.
#[derive(Debug)]
pub struct Context {
    /// The nodes.
    pub nodes: Nodes,
    /// The provers.
    pub provers: Client,
    /// Which network.
    pub network: Network,
    /// How proofs are made there.
    pub proving: Proving,
    /// What the operator wants.
    pub policy: Policy,
    /// Who gets the fees. Without an address nothing is gobbled.
    pub address: Option<FeeAddress>,
    /// What is chosen freely.
    pub choices: Choices,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// One stranger's proof is checked, and one job built, at a time: each may take a gigabyte or two.
    pub heavy: Semaphore,
    /// Whether some pod has a GPU.
    pub gpu: AtomicBool,
    /// Proofs sent out so far.
    pub jobs: AtomicU64,
    /// Proofs that are out now.
    pub running: AtomicUsize,
}

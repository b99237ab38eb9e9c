//! One or more nodes, asked over JSON-RPC, with failover.
//!
//! Types and wire format are neptune-rpc-api's: [`Nodes`] is a `Transport`, through which that crate gives every call of the
//! node. What neptune-rpc-client's transport lacks is here: several URLs, time-outs, a limit on what is read, and counters.

mod error;
mod probe;
mod transport;

pub use error::{NodeError, refusal_name};
pub use probe::Shown;
pub use transport::{NodeStats, Nodes};

use neptune_consensus::transaction::transaction_kernel::TransactionKernel;
use neptune_consensus::transaction::{Transaction, TransactionProof};
use neptune_mempool::transaction_kernel_id::{TransactionKernelId, Txid};
use neptune_primitives::network::Network;
use neptune_rpc_api::api::rpc::RpcApi;
use neptune_rpc_api::model::block::header::TransactionKernelWithPriority;
use neptune_rpc_api::model::block::transaction_kernel::{RpcAbsoluteIndexSet, RpcTransactionKernelId};
use neptune_rpc_api::model::wallet::block::RpcWalletBlock;
use neptune_rpc_api::model::wallet::transaction::RpcTransaction;
use triton_vm::prelude::Digest;

use crate::TxId;

impl From<TxId> for RpcTransactionKernelId {
    fn from(txid: TxId) -> Self {
        Self(txid.digest())
    }
}

impl From<RpcTransactionKernelId> for TxId {
    fn from(id: RpcTransactionKernelId) -> Self {
        Self::new(id.0)
    }
}

impl From<TransactionKernelId> for TxId {
    fn from(id: TransactionKernelId) -> Self {
        Self::new(id.into())
    }
}

/// A mempool transaction that spends an input that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spender {
    /// Its id.
    pub txid: TxId,
    /// The mutator set that it is synced to.
    pub mutator_set: Digest,
    /// Whether it is a SingleProof at the node's tip: those alone have a place in the queue for the next block.
    pub is_minable: bool,
}

/// The id of a kernel, by upstream's own rule.
pub fn txid_of(kernel: &TransactionKernel) -> TxId {
    kernel.txid().into()
}

impl Nodes {
    /// The network that the node is on.
    ///
    /// # Errors
    /// [`NodeError`], as for all calls here.
    pub async fn network_id(&self) -> Result<Network, NodeError> {
        let name = self.network().await?.network;
        name.parse().map_err(|_| NodeError::Nonsense(format!("the node is on an unknown network {name:?}")))
    }

    /// Hash of the tip.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn tip_hash(&self) -> Result<Digest, NodeError> {
        Ok(self.tip_digest().await?.digest)
    }

    /// Height of the tip.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn tip_height(&self) -> Result<u64, NodeError> {
        Ok(self.height().await?.height.value())
    }

    /// The blocks of these heights, both included; never genesis.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn blocks(&self, from: u64, to: u64) -> Result<Vec<RpcWalletBlock>, NodeError> {
        Ok(self.get_blocks(from.into(), to.into()).await?.blocks)
    }

    /// Ids of all transactions in the mempool, highest fee density first.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn mempool(&self) -> Result<Vec<TxId>, NodeError> {
        Ok(self.transactions().await?.transactions.into_iter().map(TxId::from).collect())
    }

    /// A transaction's kernel, if the mempool has it. A kernel with another id than asked for is an error.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn kernel(&self, txid: TxId) -> Result<Option<TransactionKernel>, NodeError> {
        let Some(kernel) = self.get_transaction_kernel(txid.into()).await?.kernel else { return Ok(None) };
        let kernel = TransactionKernel::from(kernel);
        if txid_of(&kernel) == txid {
            Ok(Some(kernel))
        } else {
            Err(NodeError::Nonsense("the kernel has another id".to_owned()))
        }
    }

    /// A transaction's proof, if the mempool has the transaction and shows the proof.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn proof(&self, txid: TxId) -> Result<Option<TransactionProof>, NodeError> {
        Ok(self.get_transaction_proof(txid.into()).await?.proof.map(TransactionProof::from))
    }

    /// Mempool transactions that spend one of these inputs.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn spenders(&self, inputs: Vec<RpcAbsoluteIndexSet>) -> Result<Vec<Spender>, NodeError> {
        let spenders = self.get_transactions_by_absolute_index_sets(inputs).await?.transactions;
        let spender = |found: TransactionKernelWithPriority| {
            let kernel = TransactionKernel::from(found.kernel);
            Spender { txid: txid_of(&kernel), mutator_set: kernel.mutator_set_hash, is_minable: found.priority.is_some() }
        };
        Ok(spenders.into_iter().map(spender).collect())
    }

    /// Gives a transaction to the node.
    ///
    /// # Errors
    /// [`NodeError::Refused`] when the node does not want it.
    pub async fn submit(&self, transaction: Transaction) -> Result<(), NodeError> {
        let transaction = RpcTransaction::try_from(transaction).map_err(NodeError::Nonsense)?;
        let response = self.submit_transaction(transaction).await?;
        if response.success { Ok(()) } else { Err(NodeError::Nonsense("the node neither took nor refused it".to_owned())) }
    }
}

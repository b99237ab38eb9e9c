//! Why a node did not do what it was asked.

use neptune_rpc_api::api::rpc::{RpcError, SubmitTransactionError};
use neptune_rpc_api::model::json::JsonError;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No node answered.
    #[error("no node answers: {0}")]
    Unreachable(String),
    /// The node runs without the namespace of this call.
    #[error("the node does not know the call; start it with --rpc-modules Node,Chain,Archival,Mempool,Wallet")]
    MethodMissing,
    /// The node refuses the transaction.
    #[error("the node refuses the transaction: {0}")]
    Refused(SubmitTransactionError),
    /// The node says something else than the protocol has it.
    #[error("the node's answer makes no sense: {0}")]
    Nonsense(String),
}

impl NodeError {
    /// A word for labels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::MethodMissing => "method-missing",
            Self::Refused(_) => "refused",
            Self::Nonsense(_) => "nonsense",
        }
    }

    /// Whether the same call may go well a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Nonsense(_))
    }
}

/// The names of the node's refusals, as its type has them; labels and messages.
pub fn refusal_name(refusal: SubmitTransactionError) -> &'static str {
    match refusal {
        SubmitTransactionError::InvalidTransaction => "InvalidTransaction",
        SubmitTransactionError::CoinbaseTransaction => "CoinbaseTransaction",
        SubmitTransactionError::FeeNegative => "FeeNegative",
        SubmitTransactionError::FutureDated => "FutureDated",
        SubmitTransactionError::TooOld => "TooOld",
        SubmitTransactionError::Retired => "Retired",
        SubmitTransactionError::NotConfirmable => "NotConfirmable",
        SubmitTransactionError::TooBig => "TooBig",
        SubmitTransactionError::MissingLustration => "MissingLustration",
        SubmitTransactionError::LustrationMakesCounterNegative => "LustrationMakesCounterNegative",
        _ => "Other",
    }
}

impl From<RpcError> for NodeError {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::SubmitTransaction(refusal) => Self::Refused(refusal),
            RpcError::Server(JsonError::MethodNotFound) => Self::MethodMissing,
            RpcError::Server(JsonError::ConnectionFailed { message } | JsonError::HttpError { message }) => {
                Self::Unreachable(message)
            }
            other => Self::Nonsense(other.to_string()),
        }
    }
}

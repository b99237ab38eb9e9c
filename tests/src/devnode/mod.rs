//! A node for tests and demos: a chain, a wallet that pays itself, and the node's JSON-RPC, wire for wire. Transactions have mock
//! proofs on a mock network and real ones on others; blocks are never proven.
//!
//! What a node decides is decided by the node's own code: the mempool and its admission rules are neptune-mempool's, routing and
//! encoding of calls neptune-rpc-api's. Ours is only what a test has to command: when blocks come, who is in them, which block
//! is undone, and which answers go wrong.

mod api;
mod chain;
mod faults;
mod server;
mod wallet;

pub use chain::{Chain, MineError};
pub use faults::Fault;
pub use server::DevNode;
pub use wallet::{SpendError, prove};

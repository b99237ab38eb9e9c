//! Follows the chain of a node, reorganizations included, as far as an upgrader needs it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use neptune_consensus::block::Block;
use neptune_consensus::block::block_kernel::BlockKernel;
use neptune_consensus::consensus_rule_set::ConsensusRuleSet;
use neptune_primitives::block_height::BlockHeight;
use neptune_primitives::network::Network;
use neptune_primitives::timestamp::Timestamp;
use neptune_rpc_api::model::wallet::block::RpcWalletBlock;
use triton_vm::prelude::Digest;

use crate::node::{NodeError, Nodes};
use crate::ring::{Link, Ring, RingError};

/// Blocks per call: a full block is a few megabytes of JSON.
const BATCH: u64 = 10;

/// Why the chain cannot be followed now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// The node.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The node's blocks contradict each other.
    #[error("block {height} of the node: {why}")]
    BadBlock {
        /// Its height.
        height: u64,
        /// What is wrong.
        why: String,
    },
}

/// What following brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Followed {
    /// The tip is the one that was known.
    Same,
    /// Blocks were added on top.
    Extended,
    /// Blocks were replaced, or the ring was begun anew.
    Reorganized,
}

/// Brings the ring to the node's tip.
///
/// # Errors
/// [`FollowError`]; the ring then holds what was read so far, or nothing.
pub async fn follow(ring: &mut Ring, nodes: &Nodes, network: Network) -> Result<Followed, FollowError> {
    let tip = nodes.tip_hash().await?;
    let before = ring.tip().map(|link| (link.hash, link.height));
    if before.is_some_and(|(hash, _)| hash == tip) {
        return Ok(Followed::Same);
    }
    let height = nodes.tip_height().await?;
    let oldest_wanted = (height + 1).saturating_sub(Ring::CAPACITY as u64);
    // From the first block that is not known, going back until one fits on what is.
    let mut from = before.map_or(oldest_wanted, |(_, known)| known.min(height.saturating_sub(1)) + 1);
    if from + Ring::CAPACITY as u64 <= height {
        ring.clear();
        from = oldest_wanted;
    }
    let mut reorganized = before.is_none() || ring.is_empty();
    let mut step = 1;
    loop {
        match read(ring, nodes, network, from, height).await {
            Ok(()) => break,
            Err(Read::Gap) if from > oldest_wanted.max(1) => {
                reorganized = true;
                from = from.saturating_sub(step).max(oldest_wanted).max(1);
                step *= 2;
            }
            Err(Read::Gap) => {
                // Nothing that we hold is on this chain.
                reorganized = true;
                ring.clear();
                from = oldest_wanted;
            }
            Err(Read::Failed(error)) => return Err(error),
        }
    }
    let kept = before.is_some_and(|(hash, _)| ring.contains(hash));
    Ok(if reorganized || !kept { Followed::Reorganized } else { Followed::Extended })
}

enum Read {
    Gap,
    Failed(FollowError),
}

impl From<NodeError> for Read {
    fn from(error: NodeError) -> Self {
        Self::Failed(error.into())
    }
}

async fn read(ring: &mut Ring, nodes: &Nodes, network: Network, from: u64, to: u64) -> Result<(), Read> {
    let mut push = |link: Link| {
        let height = link.height;
        ring.push(link).map_err(|error| match error {
            RingError::Gap => Read::Gap,
            other => Read::Failed(FollowError::BadBlock { height, why: other.to_string() }),
        })
    };
    let mut next = from;
    if next == 0 {
        // Nodes do not send genesis; everybody has it.
        push(genesis(network).map_err(Read::Failed)?)?;
        next = 1;
    }
    while next <= to {
        let last = (next + BATCH - 1).min(to);
        let blocks = nodes.blocks(next, last).await?;
        if blocks.is_empty() {
            return Err(Read::Failed(FollowError::BadBlock { height: next, why: "the node does not send it".to_owned() }));
        }
        for block in blocks {
            push(link(block, network).map_err(Read::Failed)?)?;
        }
        next = last + 1;
    }
    Ok(())
}

fn genesis(network: Network) -> Result<Link, FollowError> {
    let block = Block::genesis(network);
    let bad = |why: String| FollowError::BadBlock { height: 0, why };
    Ok(Link {
        hash: block.hash(),
        parent: Digest::default(),
        height: 0,
        timestamp: block.header().timestamp,
        mutator_set: block.mutator_set_accumulator_after().map_err(|error| bad(error.to_string()))?,
        change: block.mutator_set_update(network).map_err(|error| bad(error.to_string()))?,
    })
}

/// A node's block as a link.
///
/// # Errors
/// [`FollowError::BadBlock`].
pub fn link(block: RpcWalletBlock, network: Network) -> Result<Link, FollowError> {
    let height = block.kernel.header.height.value();
    let bad = |why: String| FollowError::BadBlock { height, why };
    // Conversion and arithmetic are upstream's and not meant for blocks that lie.
    catch_unwind(AssertUnwindSafe(|| {
        let hash = block.hash();
        let kernel = BlockKernel::from(block.kernel);
        let guesser_fees = kernel.guesser_fee_addition_records(hash).map_err(|error| bad(error.to_string()))?;
        let change = kernel.mutator_set_update(hash, network).map_err(|error| bad(error.to_string()))?;
        let mutator_set = kernel.body.mutator_set_accumulator_after(guesser_fees);
        let (parent, timestamp) = (kernel.header.prev_block_digest, kernel.header.timestamp);
        Ok(Link { hash, parent, height, timestamp, mutator_set, change })
    }))
    .unwrap_or_else(|_| Err(bad("it is malformed".to_owned())))
}

/// Whether this build can prove for the block after this height.
pub fn can_prove_after(network: Network, height: u64) -> bool {
    ConsensusRuleSet::infer_from(network, BlockHeight::from(height + 1)) == fleet::transaction::RULE_SET
}

/// Target intervals without a block that say that the node is behind and not that the chain is slow: at the target rate such a
/// gap comes once in 65 million blocks, that is in twelve centuries.
const GAP: u64 = 18;

/// How old the node's tip is, if that is too old for a synced node: nodes have no call that says whether they are. Only public
/// networks are mined all the time.
pub fn behind(network: Network, tip: Timestamp, now: Timestamp) -> Option<Duration> {
    let age = Duration::from_millis(now.to_millis().saturating_sub(tip.to_millis()));
    let longest = Duration::from_millis(network.target_block_interval().to_millis().saturating_mul(GAP));
    (matches!(network, Network::Main | Network::Testnet(0)) && age > longest).then_some(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_tip_means_that_the_node_is_behind() {
        let now = Timestamp::now();
        let at = |network, age| behind(network, now - age, now);
        assert_eq!(at(Network::Main, Timestamp::hours(2)), None, "a slow block");
        assert_eq!(at(Network::Main, Timestamp::hours(3)), Some(Duration::from_hours(3)));
        assert_eq!(at(Network::Testnet(0), Timestamp::hours(30)), Some(Duration::from_hours(30)));
        assert_eq!(at(Network::Testnet(7), Timestamp::hours(30)), None, "a network of one's own may rest");
        assert_eq!(at(Network::RegTest, Timestamp::hours(30)), None, "nobody mines unless asked");
        assert_eq!(behind(Network::Main, now + Timestamp::hours(30), now), None, "a clock that is wrong is another matter");
    }
}

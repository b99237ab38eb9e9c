//! The last blocks of the chain, as far as an upgrader needs them: the mutator set after each, and what each changed.
//!
//! Nodes have no call that gives a mutator set by its hash, and an update needs the mutator set that a transaction is valid for
//! and all changes since. So the last [`Ring::CAPACITY`] blocks are kept, as a node's own upgrader searches that many. Removal
//! records are the bulk of it; a block of a quiet chain is some kilobytes, a full one a few megabytes.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use neptune_consensus::block::mutator_set_update::MutatorSetUpdate;
use neptune_mutator_set::mutator_set_accumulator::MutatorSetAccumulator;
use neptune_mutator_set::removal_record::absolute_index_set::AbsoluteIndexSet;
use neptune_primitives::timestamp::Timestamp;
use triton_vm::prelude::Digest;

/// One block.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its hash.
    pub hash: Digest,
    /// The hash of the block before it.
    pub parent: Digest,
    /// Its height.
    pub height: u64,
    /// When it was made, as its header says.
    pub timestamp: Timestamp,
    /// The mutator set after it.
    pub mutator_set: MutatorSetAccumulator,
    /// What it changed.
    pub change: MutatorSetUpdate,
}

#[derive(Debug, Clone)]
struct Entry {
    link: Link,
    mutator_set_hash: Digest,
}

/// Why a block is not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// It extends no block in the ring; older ones are needed first.
    #[error("the block extends none that is known; the ones before it are needed first")]
    Gap,
    /// Its change does not lead from the mutator set before to the one after.
    #[error("the block's changes do not lead to its mutator set; the node's answers contradict each other")]
    Inconsistent,
}

/// The last blocks, oldest first, without gaps. Clones share the blocks.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    blocks: VecDeque<Arc<Entry>>,
}

impl Ring {
    /// How many blocks back a transaction may be synced.
    pub const CAPACITY: usize = 100;

    /// The tip.
    pub fn tip(&self) -> Option<&Link> {
        self.blocks.back().map(|entry| &entry.link)
    }

    /// Hash of the mutator set at the tip.
    pub fn tip_mutator_set_hash(&self) -> Option<Digest> {
        self.blocks.back().map(|entry| entry.mutator_set_hash)
    }

    /// Whether the ring holds the block.
    pub fn contains(&self, hash: Digest) -> bool {
        self.blocks.iter().any(|entry| entry.link.hash == hash)
    }

    /// Blocks held.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The hash of the block at this height.
    pub fn hash_at(&self, height: u64) -> Option<Digest> {
        self.blocks.iter().find(|entry| entry.link.height == height).map(|entry| entry.link.hash)
    }

    /// Takes on a block on top of one that is held, and drops all that stood there before: a reorganization. Into an empty
    /// ring any block may go.
    ///
    /// # Errors
    /// [`RingError`], and the ring is as before.
    pub fn push(&mut self, link: Link) -> Result<(), RingError> {
        let mutator_set_hash = link.mutator_set.hash();
        if !self.blocks.is_empty() {
            let parent = self.blocks.iter().rposition(|entry| entry.link.hash == link.parent).ok_or(RingError::Gap)?;
            let mut after = self.blocks[parent].link.mutator_set.clone();
            let applied = catch_unwind(AssertUnwindSafe(|| link.change.apply_to_accumulator(&mut after)));
            if !matches!(applied, Ok(Ok(()))) || after.hash() != mutator_set_hash {
                return Err(RingError::Inconsistent);
            }
            self.blocks.truncate(parent + 1);
        }
        self.blocks.push_back(Arc::new(Entry { link, mutator_set_hash }));
        while self.blocks.len() > Self::CAPACITY {
            self.blocks.pop_front();
        }
        Ok(())
    }

    /// Goes back to a block that is held.
    pub fn rewind(&mut self, hash: Digest) -> bool {
        let position = self.blocks.iter().rposition(|entry| entry.link.hash == hash);
        if let Some(position) = position {
            self.blocks.truncate(position + 1);
        }
        position.is_some()
    }

    /// Forgets everything: the chain is another one.
    pub fn clear(&mut self) {
        self.blocks.clear();
    }

    fn position(&self, mutator_set: Digest) -> Option<usize> {
        // Equal mutator sets of several blocks cannot be: each block adds its guesser's outputs.
        self.blocks.iter().rposition(|entry| entry.mutator_set_hash == mutator_set)
    }

    /// Blocks between the mutator set with this hash and the tip.
    pub fn lag(&self, mutator_set: Digest) -> Option<usize> {
        self.position(mutator_set).map(|position| self.blocks.len() - 1 - position)
    }

    /// The mutator set with this hash.
    pub fn mutator_set(&self, hash: Digest) -> Option<&MutatorSetAccumulator> {
        self.position(hash).map(|position| &self.blocks[position].link.mutator_set)
    }

    /// The mutator set with this hash and all that changed from there to the tip, as one change.
    pub fn change_since(&self, mutator_set: Digest) -> Option<(MutatorSetAccumulator, MutatorSetUpdate)> {
        let position = self.position(mutator_set)?;
        let newest_first: Vec<_> = (position + 1..self.blocks.len())
            .rev()
            .map(|i| (self.blocks[i - 1].link.mutator_set.clone(), self.blocks[i].link.change.clone()))
            .collect();
        let change = catch_unwind(AssertUnwindSafe(|| MutatorSetUpdate::compose(&newest_first))).ok()?;
        Some((self.blocks[position].link.mutator_set.clone(), change))
    }

    /// What the blocks from this height on changed, oldest first.
    pub fn changes_from(&self, height: u64) -> impl Iterator<Item = &MutatorSetUpdate> {
        self.blocks.iter().filter(move |entry| entry.link.height >= height).map(|entry| &entry.link.change)
    }

    /// Whether a block after the mutator set with this hash spent what one of these index sets stands for.
    pub fn spent_since(&self, mutator_set: Digest, is_input: impl Fn(&AbsoluteIndexSet) -> bool) -> bool {
        let Some(position) = self.position(mutator_set) else { return false };
        let since = self.blocks.iter().skip(position + 1);
        since.flat_map(|entry| &entry.link.change.removals).any(|removal| is_input(&removal.absolute_indices))
    }
}

#[cfg(test)]
mod tests {
    use neptune_mutator_set::commit;
    use neptune_mutator_set::removal_record::RemovalRecord;
    use triton_vm::prelude::Tip5;

    use super::*;

    fn item(seed: u64) -> (Digest, Digest, Digest) {
        (Tip5::hash(&(3 * seed)), Tip5::hash(&(3 * seed + 1)), Tip5::hash(&(3 * seed + 2)))
    }

    /// A block of two new items.
    fn extend(link: &Link, seed: u64, removals: Vec<RemovalRecord>) -> Link {
        let addition = |(item, randomness, preimage): (Digest, Digest, Digest)| commit(item, randomness, Tip5::hash(&preimage));
        let change = MutatorSetUpdate::new(removals, vec![addition(item(2 * seed)), addition(item(2 * seed + 1))]);
        let mut mutator_set = link.mutator_set.clone();
        change.apply_to_accumulator(&mut mutator_set).expect("applies");
        let (hash, timestamp) = (Tip5::hash(&(seed + 1_000_000)), link.timestamp);
        Link { hash, parent: link.hash, height: link.height + 1, timestamp, mutator_set, change }
    }

    /// Genesis and this many blocks.
    fn chain(length: u64) -> Vec<Link> {
        let mut links = vec![Link {
            hash: Tip5::hash(&1_000_000_u64),
            parent: Digest::default(),
            height: 0,
            timestamp: Timestamp::now(),
            mutator_set: MutatorSetAccumulator::default(),
            change: MutatorSetUpdate::default(),
        }];
        for seed in 1..=length {
            links.push(extend(&links[links.len() - 1], seed, vec![]));
        }
        links
    }

    /// The spending of the first item of the last block.
    fn spend_first_of(links: &[Link]) -> RemovalRecord {
        let [.., before, last] = links else { panic!("two blocks at least") };
        let (item, randomness, preimage) = item(2 * last.height);
        let mut state = before.mutator_set.clone();
        let mut proof = state.prove(item, randomness, preimage);
        state.add(&last.change.additions[0]);
        proof.update_from_addition(item, &state, &last.change.additions[1]).expect("is a member");
        last.mutator_set.drop(item, &proof)
    }

    fn ring(links: &[Link]) -> Ring {
        let mut ring = Ring::default();
        for link in links {
            ring.push(link.clone()).expect("extends");
        }
        ring
    }

    #[test]
    fn it_holds_a_hundred_blocks_and_knows_how_far_back_each_is() {
        let links = chain(130);
        let ring = ring(&links);
        assert_eq!(ring.len(), Ring::CAPACITY);
        for back in 0..130 {
            let link = &links[130 - back];
            let expected = (back < Ring::CAPACITY).then_some(back);
            assert_eq!(ring.lag(link.mutator_set.hash()), expected);
            assert_eq!(ring.hash_at(link.height).is_some(), expected.is_some());
        }
    }

    #[test]
    fn the_change_since_any_block_leads_to_the_tip() {
        let mut links = chain(6);
        let spending = spend_first_of(&links);
        links.push(extend(&links[6], 7, vec![spending]));
        let ring = ring(&links);
        let spent = links[7].change.removals[0].absolute_indices;
        for link in &links {
            let (mut state, change) = ring.change_since(link.mutator_set.hash()).expect("is held");
            assert_eq!(state.hash(), link.mutator_set.hash());
            change.apply_to_accumulator(&mut state).expect("applies");
            assert_eq!(state.hash(), links[7].mutator_set.hash());
            assert_eq!(ring.spent_since(link.mutator_set.hash(), |input| *input == spent), link.height < 7);
        }
    }

    #[test]
    fn a_reorganization_replaces_what_stood_on_the_fork() {
        let links = chain(5);
        let mut ring = ring(&links);
        let other = extend(&links[3], 99, vec![]);
        ring.push(other.clone()).expect("its parent is held");
        assert_eq!(ring.tip().map(|tip| tip.hash), Some(other.hash));
        assert_eq!(ring.lag(links[5].mutator_set.hash()), None);
        assert_eq!(ring.lag(links[3].mutator_set.hash()), Some(1));
        assert!(ring.rewind(links[2].hash));
        assert_eq!(ring.lag(other.mutator_set.hash()), None);
    }

    #[test]
    fn gaps_and_lies_are_refused_and_change_nothing() {
        let links = chain(5);
        let mut ring = ring(&links[..3]);
        assert_eq!(ring.push(links[4].clone()), Err(RingError::Gap));
        let mut lie = links[3].clone();
        lie.change.additions.pop();
        assert_eq!(ring.push(lie), Err(RingError::Inconsistent));
        let mut lie = links[3].clone();
        lie.mutator_set = MutatorSetAccumulator::default();
        assert_eq!(ring.push(lie), Err(RingError::Inconsistent));
        assert_eq!(ring.tip().map(|tip| tip.height), Some(2));
        ring.push(links[3].clone()).expect("extends");
    }
}

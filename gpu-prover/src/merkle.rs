//! Merkle trees with all their nodes, as a binary heap.

use rayon::prelude::*;
use triton_vm::prelude::{Digest, Tip5};

/// Digests per task: enough work to be worth a task.
const NODES_PER_TASK: usize = 256;

/// A Merkle tree: node 1 is the root, nodes `2 i` and `2 i + 1` are the children of node `i`, leaf `i` is node
/// `leaves + i`. Node 0 is unused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    nodes: Vec<Digest>,
}

impl Tree {
    /// The tree over these leaves.
    ///
    /// # Panics
    /// If the number of leaves is not a power of two.
    pub fn new(leaves: &[Digest]) -> Self {
        assert!(leaves.len().is_power_of_two(), "a Merkle tree has a power of two of leaves");
        let mut nodes = vec![Digest::default(); 2 * leaves.len()];
        nodes[leaves.len()..].copy_from_slice(leaves);
        let mut length = leaves.len() / 2;
        while length > 0 {
            let (parents, children) = nodes[length..4 * length].split_at_mut(length);
            parents.par_chunks_mut(NODES_PER_TASK).zip(children.par_chunks(2 * NODES_PER_TASK)).for_each(
                |(parents, children)| {
                    let pairs: Vec<_> = children.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
                    parents.copy_from_slice(&Tip5::hash_pair_many(&pairs));
                },
            );
            length /= 2;
        }
        Self { nodes }
    }

    /// The root.
    pub fn root(&self) -> Digest {
        self.nodes[1]
    }

    /// All nodes in heap order, the unused node 0 included.
    pub fn nodes(&self) -> &[Digest] {
        &self.nodes
    }

    /// Copies of the nodes with these indices.
    ///
    /// # Panics
    /// If an index is out of range.
    pub fn gather(&self, indices: &[usize]) -> Vec<Digest> {
        indices.iter().map(|&index| self.nodes[index]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use twenty_first::prelude::MerkleTree;

    #[test]
    fn trees_agree_with_twenty_first() {
        for log2 in [0, 1, 2, 9, 11] {
            let leaves: Vec<Digest> = (0..1_u64 << log2).map(|i| Tip5::hash(&i)).collect();
            let ours = Tree::new(&leaves);
            let theirs = MerkleTree::par_new(&leaves).expect("a power of two of leaves");
            assert_eq!(ours.root(), theirs.root());
            for index in 1..2 * leaves.len() {
                assert_eq!(Some(ours.nodes()[index]), theirs.node(index), "node {index} of 2^{log2} leaves");
            }
        }
    }
}

//! Putting a ProofCollection together, and the proof that it is one.

use std::collections::BTreeMap;

use neptune_consensus::transaction::TransactionProof;
use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use neptune_consensus::transaction::transaction_kernel::TransactionKernelField;
use neptune_consensus::transaction::validity::proof_collection::ProofCollection;
use neptune_primitives::mast_hash::MastHash;
use neptune_primitives::network::Network;
use serde::{Deserialize, Serialize};
use triton_vm::prelude::{Digest, Proof, Tip5};

use super::{Leaf, RULE_SET};

/// All that a ProofCollection says beside its proofs. Public: nothing here lets anybody spend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Root of the Merkle tree over the kernel's fields; the transaction's identity in every claim.
    pub kernel_mast_hash: Digest,
    /// Salted hash of the inputs' UTXOs.
    pub salted_inputs_hash: Digest,
    /// Salted hash of the outputs' UTXOs.
    pub salted_outputs_hash: Digest,
    /// One for each input.
    pub lock_script_hashes: Vec<Digest>,
    /// One for each kind of coin.
    pub type_script_hashes: Vec<Digest>,
    /// Merkle path that shows the merge bit to be unset.
    pub merge_bit_mast_path: Vec<Digest>,
}

/// Why proofs do not make a collection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// A job was not proven, or its proof got lost on the way.
    #[error("the proof `{0}` is missing; prove that job again")]
    Missing(Leaf),
    /// A proof that this transaction has no place for: it belongs to another one.
    #[error("the transaction has no proof `{0}`; it belongs to another transaction")]
    Superfluous(Leaf),
}

impl Frame {
    /// The frame of a transaction.
    pub fn of(witness: &PrimitiveWitness) -> Self {
        Self {
            kernel_mast_hash: witness.kernel.mast_hash(),
            salted_inputs_hash: Tip5::hash(&witness.input_utxos),
            salted_outputs_hash: Tip5::hash(&witness.output_utxos),
            lock_script_hashes: witness.lock_scripts_and_witnesses.iter().map(|s| s.program.hash()).collect(),
            type_script_hashes: witness.type_scripts_and_witnesses.iter().map(|s| s.program.hash()).collect(),
            merge_bit_mast_path: witness.kernel.mast_path(TransactionKernelField::MergeBit),
        }
    }

    /// The proofs that this collection needs, in the order in which neptune-core makes them.
    pub fn leaves(&self) -> impl Iterator<Item = Leaf> {
        [Leaf::RemovalRecordsIntegrity, Leaf::CollectLockScripts, Leaf::KernelToOutputs, Leaf::CollectTypeScripts]
            .into_iter()
            .chain((0..self.lock_script_hashes.len()).map(Leaf::LockScript))
            .chain((0..self.type_script_hashes.len()).map(Leaf::TypeScript))
    }

    /// Puts the proofs in their places. Whether they are *true* is [`VerifiedCollection::check`]'s to say.
    ///
    /// # Errors
    ///
    /// [`AssembleError`] unless there is exactly one proof for each of [`Self::leaves`].
    pub fn assemble(self, mut proofs: BTreeMap<Leaf, Proof>) -> Result<ProofCollection, AssembleError> {
        let mut take = |leaf| proofs.remove(&leaf).map(Into::into).ok_or(AssembleError::Missing(leaf));
        let collection = ProofCollection {
            removal_records_integrity: take(Leaf::RemovalRecordsIntegrity)?,
            collect_lock_scripts: take(Leaf::CollectLockScripts)?,
            lock_scripts_halt: (0..self.lock_script_hashes.len())
                .map(|i| take(Leaf::LockScript(i)))
                .collect::<Result<_, _>>()?,
            kernel_to_outputs: take(Leaf::KernelToOutputs)?,
            collect_type_scripts: take(Leaf::CollectTypeScripts)?,
            type_scripts_halt: (0..self.type_script_hashes.len())
                .map(|i| take(Leaf::TypeScript(i)))
                .collect::<Result<_, _>>()?,
            lock_script_hashes: self.lock_script_hashes,
            type_script_hashes: self.type_script_hashes,
            kernel_mast_hash: self.kernel_mast_hash,
            salted_inputs_hash: self.salted_inputs_hash,
            salted_outputs_hash: self.salted_outputs_hash,
            merge_bit_mast_path: self.merge_bit_mast_path,
        };
        match proofs.into_keys().next() {
            Some(leaf) => Err(AssembleError::Superfluous(leaf)),
            None => Ok(collection),
        }
    }
}

/// A ProofCollection that neptune-consensus accepts.
///
/// A type of its own because the next step, the witness of a SingleProof, runs the STARK verifier natively over each
/// inner proof and panics on a bad one: only a checked collection may get there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedCollection(ProofCollection);

/// neptune-consensus refuses the collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neptune-consensus refuses the proof collection under the rules of {0}")]
pub struct NotValid(Network);

impl VerifiedCollection {
    /// Checks the collection as a node of `network` does before it lets the transaction into its mempool: the kernel,
    /// the unset merge bit, one proof for each script, every proof, and no superfluous proof items.
    ///
    /// # Errors
    ///
    /// [`NotValid`]: neptune-consensus says no; at log level `debug` it says which proof.
    pub async fn check(collection: ProofCollection, network: Network) -> Result<Self, NotValid> {
        let kernel = collection.kernel_mast_hash;
        let proof = TransactionProof::ProofCollection(collection);
        let valid = proof.verify(kernel, network, RULE_SET).await;
        match proof {
            TransactionProof::ProofCollection(collection) if valid => Ok(Self(collection)),
            _ => Err(NotValid(network)),
        }
    }

    /// The collection, for reading.
    pub fn collection(&self) -> &ProofCollection {
        &self.0
    }

    /// The collection, for sending.
    pub fn into_inner(self) -> ProofCollection {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let digest = Digest::default();
        Frame {
            kernel_mast_hash: digest,
            salted_inputs_hash: digest,
            salted_outputs_hash: digest,
            lock_script_hashes: vec![digest; 2],
            type_script_hashes: vec![digest],
            merge_bit_mast_path: vec![],
        }
    }

    #[test]
    fn a_collection_needs_each_of_its_proofs_exactly_once() {
        let leaves: Vec<_> = frame().leaves().collect();
        assert_eq!(4 + 2 + 1, leaves.len());
        let complete: BTreeMap<_, _> = leaves.iter().map(|&leaf| (leaf, Proof(vec![]))).collect();
        let collection = frame().assemble(complete.clone()).expect("every leaf has its proof");
        assert_eq!(leaves.len(), collection.num_proofs());

        for &leaf in &leaves {
            let mut one_short = complete.clone();
            one_short.remove(&leaf);
            assert_eq!(Err(AssembleError::Missing(leaf)), frame().assemble(one_short));
        }

        let stranger = Leaf::LockScript(2);
        let mut one_more = complete;
        one_more.insert(stranger, Proof(vec![]));
        assert_eq!(Err(AssembleError::Superfluous(stranger)), frame().assemble(one_more));
    }
}

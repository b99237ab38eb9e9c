//! SingleProofs that a witness may be built on.

use std::fmt;

use fleet::transaction::RULE_SET;
use neptune_consensus::transaction::TransactionProof;
use neptune_consensus::transaction::transaction_kernel::TransactionKernel;
use neptune_consensus::transaction::validity::neptune_proof::NeptuneProof;
use neptune_primitives::mast_hash::MastHash;
use neptune_primitives::network::Network;

/// A kernel with a SingleProof that neptune-consensus accepts.
///
/// A type of its own because the witness of the next step runs the verifier natively over the proof and panics on a bad one.
#[derive(Clone, PartialEq, Eq)]
pub struct CheckedProof {
    kernel: TransactionKernel,
    proof: NeptuneProof,
}

/// neptune-consensus refuses the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("neptune-consensus refuses the single proof under the rules of {0}")]
pub struct InvalidProof(pub Network);

impl CheckedProof {
    /// Checks a stranger's proof as a node does: the claim, and no superfluous proof items.
    ///
    /// # Errors
    /// [`InvalidProof`].
    pub async fn check(kernel: TransactionKernel, proof: NeptuneProof, network: Network) -> Result<Self, InvalidProof> {
        let single = TransactionProof::SingleProof(proof);
        let valid = single.verify(kernel.mast_hash(), network, RULE_SET).await;
        match single {
            TransactionProof::SingleProof(proof) if valid => Ok(Self { kernel, proof }),
            _ => Err(InvalidProof(network)),
        }
    }

    /// The kernel.
    pub fn kernel(&self) -> &TransactionKernel {
        &self.kernel
    }

    /// The proof.
    pub fn proof(&self) -> &NeptuneProof {
        &self.proof
    }

    /// Both.
    pub fn into_parts(self) -> (TransactionKernel, NeptuneProof) {
        (self.kernel, self.proof)
    }
}

impl fmt::Debug for CheckedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedProof")
            .field("fee", &self.kernel.fee)
            .field("words", &self.proof.0.len())
            .finish_non_exhaustive()
    }
}

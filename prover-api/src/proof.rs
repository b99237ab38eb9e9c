//! Proofs on the wire, and the one question that counts: do they verify?

use std::panic::{AssertUnwindSafe, catch_unwind};

use triton_vm::prelude::*;

/// Largest encoded proof that is read, in bytes. Real ones have 0.6 to 1.3 MB.
pub const MAX_PROOF_BYTES: usize = 64 << 20;

/// The bytes are no proof, or it proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not `bincode(Proof)`.
    #[error("these {bytes} bytes are no bincode-encoded proof")]
    Malformed {
        /// How many they are.
        bytes: usize,
    },
    /// The verifier says no.
    #[error("the proof does not verify for its claim")]
    Invalid,
    /// The claim is about a proof system that is not linked here.
    #[error("the claim has proof version {got}, this build knows version {known}")]
    Version {
        /// The claim's.
        got: u32,
        /// Ours.
        known: u32,
    },
}

/// `bincode(Proof)` as neptune-core and xnt-core read it: the number of field elements, then each, as little-endian `u64`.
///
/// # Errors
/// None in practice.
pub fn encode(proof: &Proof) -> Result<Vec<u8>, ProofError> {
    bincode::serialize(proof).map_err(|_| ProofError::Malformed { bytes: 0 })
}

/// Reads `bincode(Proof)`. Each element must be canonical: one value has one encoding.
///
/// # Errors
/// [`ProofError::Malformed`], also when bytes follow.
pub fn decode(bytes: &[u8]) -> Result<Proof, ProofError> {
    let malformed = || ProofError::Malformed { bytes: bytes.len() };
    let (length, words) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
    let (words, []) = words.as_chunks::<8>() else { return Err(malformed()) };
    // The length is compared with what is there, never allocated.
    if u64::from_le_bytes(*length) != words.len() as u64 || bytes.len() > MAX_PROOF_BYTES {
        return Err(malformed());
    }
    let element = |word: &[u8; 8]| {
        let value = u64::from_le_bytes(*word);
        (value < BFieldElement::P).then(|| BFieldElement::new(value))
    };
    words.iter().map(element).collect::<Option<Vec<_>>>().map(Proof).ok_or_else(malformed)
}

/// What stands for a proof on networks with mock proofs: the codec's word for the first variant of neptune-consensus'
/// `MockProofBehavior`. Any real verifier refuses it.
pub fn valid_mock() -> Proof {
    Proof(vec![BFieldElement::new(0)])
}

/// Checks an encoded proof with the unmodified verifier. The proof is foreign: a verifier that panics on it has said no.
///
/// # Errors
/// [`ProofError`].
pub fn verify(claim: &Claim, bytes: &[u8]) -> Result<(), ProofError> {
    let known = triton_vm::proof::CURRENT_VERSION;
    if claim.version != known {
        return Err(ProofError::Version { got: claim.version, known });
    }
    let proof = decode(bytes)?;
    let verdict = catch_unwind(AssertUnwindSafe(|| triton_vm::verify(Stark::default(), claim, &proof)));
    if verdict.unwrap_or(false) { Ok(()) } else { Err(ProofError::Invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_true_proofs_of_the_very_claim_verify() {
        let program = triton_program!(push 7 write_io 1 halt);
        let claim = Claim::about_program(&program).with_output(bfe_vec![7]);
        let (aet, _) = VM::trace_execution(program, PublicInput::default(), NonDeterminism::default()).expect("runs");
        let proof = Stark::default().prove(&claim, &aet).expect("proves");
        let bytes = encode(&proof).expect("encodes");
        assert_eq!(bytes, bincode::serialize(&proof).expect("encodes"));
        assert_eq!(decode(&bytes).expect("decodes"), proof);
        assert_eq!(verify(&claim, &bytes), Ok(()));
        assert_eq!(verify(&claim.clone().with_output(bfe_vec![8]), &bytes), Err(ProofError::Invalid));
        assert_eq!(verify(&claim.clone().about_version(5), &bytes), Err(ProofError::Version { got: 5, known: 8 }));
        let malformed = |bytes: &[u8]| matches!(verify(&claim, bytes), Err(ProofError::Malformed { .. }));
        assert!(malformed(&[]) && malformed(&bytes[..bytes.len() - 1]) && malformed(&[bytes.as_slice(), &[0]].concat()));
        let mut huge = bytes.clone();
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(malformed(&huge));
        let mut not_canonical = bytes.clone();
        not_canonical[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(malformed(&not_canonical));
    }
}

//! The *raise*: the SingleProof job of a ProofCollection.

use neptune_consensus::transaction::validity::single_proof::SingleProofWitness;
use prover_api::ProverJob;

use super::{RULE_SET, VerifiedCollection};

/// The job that raises a collection to a SingleProof.
///
/// Building it runs the STARK verifier over every inner proof (about a second for six) and gives 0.5 M words of
/// non-determinism: 25 MB as JSON. It holds no secrets: all of it derives from the public collection.
///
/// Proving it takes 2^21 rows for up to two inner script proofs and 2^22 beyond; [`crate::trace::heights`] says
/// exactly.
pub fn raise_job(collection: VerifiedCollection) -> ProverJob {
    let witness = SingleProofWitness::from_collection(collection.into_inner());
    ProverJob::new(witness.program(RULE_SET), witness.claim(RULE_SET), witness.nondeterminism(RULE_SET))
}

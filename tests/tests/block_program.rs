//! The one constant that prover-api takes from the chain's own code.

use neptune_consensus::block::validity::block_program::BlockProgram;
use neptune_consensus::proof_abstractions::tasm::program::TritonProgram;
use prover_api::{BLOCK_PROGRAM_DIGEST, Priority};

#[test]
fn block_proofs_are_recognised() {
    assert_eq!(BlockProgram.hash().to_hex(), BLOCK_PROGRAM_DIGEST);
    assert_eq!(Priority::of_program(BlockProgram.hash()), Priority::High);
}

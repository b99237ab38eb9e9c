//! A real, valid transaction that spends nothing: for trying things out, for demos and for tests.

use neptune_consensus::transaction::primitive_witness::PrimitiveWitness;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

/// The shape of an example transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Spent UTXOs. Each adds a lock-script proof and about 30,000 rows to the removal-records proof.
    pub inputs: usize,
    /// New UTXOs.
    pub outputs: usize,
    /// Public announcements.
    pub announcements: usize,
}

/// Why there is no such example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExampleError {
    /// neptune's generator spreads the inputs' money over the outputs and divides by their number.
    #[error("an example transaction needs at least one input and one output")]
    Empty,
    /// Larger ones take minutes to make and no machine without a GPU to prove.
    #[error("an example transaction has at most {0} inputs, outputs and announcements each")]
    TooLarge(usize),
    /// The generator of neptune-consensus refused every sample.
    #[error("neptune-consensus makes no transaction of this shape; try another number of inputs or outputs")]
    NoSample,
}

/// More than that no example needs: 16 inputs are 2^19 rows in one leaf proof.
const MAX: usize = 16;

/// The transaction of neptune-consensus' deterministic generator for this shape.
///
/// It is the same on every machine and in every run, claims included, so proofs of it can be stored and compared. Its
/// coins exist in no mutator set but its own: no network accepts it, and its keys guard nothing. Otherwise it is as
/// real as any, with a mutator set of about 2^62 leafs, so that its Merkle paths are the longest that can occur.
///
/// # Errors
///
/// [`ExampleError`] when the shape is empty or too large.
pub fn transaction(shape: Shape) -> Result<PrimitiveWitness, ExampleError> {
    let Shape { inputs, outputs, announcements } = shape;
    if inputs == 0 || outputs == 0 {
        return Err(ExampleError::Empty);
    }
    if [inputs, outputs, announcements].into_iter().any(|count| count > MAX) {
        return Err(ExampleError::TooLarge(MAX));
    }
    PrimitiveWitness::arbitrary_with_size_numbers(Some(inputs), outputs, announcements)
        .new_tree(&mut TestRunner::deterministic())
        .map(|tree| tree.current())
        .map_err(|_| ExampleError::NoSample)
}

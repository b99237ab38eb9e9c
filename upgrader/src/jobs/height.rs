//! How high a step's proof will be, before it is traced.

use prover_api::JobKind;

/// log2 of the padded height that a job of this kind has, by the number of inner proofs (raise) or of inputs (merge, update).
///
/// From exact traces with neptune-consensus 0.19.4 of transactions with the longest Merkle paths that can occur; a real
/// transaction may come out one lower, never higher.
pub fn expected_log2_padded_height(kind: JobKind, size: usize) -> u8 {
    match (kind, size) {
        (JobKind::Raise, ..=6) => 21,
        (JobKind::Raise, 7..=14) => 22,
        (JobKind::Raise, 15..=28) => 23,
        (JobKind::Raise, _) => 24,
        (JobKind::Merge, ..=7) => 20,
        (JobKind::Merge, 8..=23) => 21,
        (JobKind::Merge, _) => 22,
        (JobKind::Update, ..=3) => 19,
        (JobKind::Update, 4..=12) => 20,
        (JobKind::Update, 13..=29) => 21,
        (JobKind::Update, _) => 22,
        (JobKind::Leaf | JobKind::Block | JobKind::Other, _) => 17,
    }
}

//! How high a step's proof will be, before it is traced.

use prover_api::JobKind;

/// log2 of the padded height that a job of this kind has, by the number of inner proofs (raise) or of inputs (merge, update).
///
/// From exact traces with neptune-consensus 0.19.4 of transactions with the longest Merkle paths that can occur; a real
/// transaction may come out one lower, never higher.
pub fn expected_log2_padded_height(kind: JobKind, size: usize) -> u8 {
    // The first height, and the sizes past which it is one more.
    let (least, cuts): (u8, &[usize]) = match kind {
        JobKind::Raise => (21, &[6, 14, 28]),
        JobKind::Merge => (20, &[7, 23]),
        JobKind::Update => (19, &[3, 12, 29]),
        JobKind::Leaf | JobKind::Block | JobKind::Other => (17, &[]),
    };
    least + cuts.iter().filter(|&&cut| size > cut).count() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_are_those_of_traced_jobs() {
        for (kind, size, height) in [
            (JobKind::Raise, 5, 21),
            (JobKind::Raise, 6, 21),
            (JobKind::Raise, 7, 22),
            (JobKind::Raise, 15, 23),
            (JobKind::Merge, 2, 20),
            (JobKind::Merge, 8, 21),
            (JobKind::Update, 2, 19),
            (JobKind::Update, 4, 20),
        ] {
            assert_eq!(expected_log2_padded_height(kind, size), height, "{kind:?} {size}");
        }
    }
}

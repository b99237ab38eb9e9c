//! The prover's randomness: everything that hides the witness, from one 32-byte seed.
//!
//! Layout of triton-vm 9.0.1: each consumer reads its own ChaCha12 stream, seeded with `seed + offset` (256-bit
//! little-endian addition). With a given seed the proof is therefore byte-identical to the crate's; with a fresh seed
//! of the operating system it is zero-knowledge.
//!
//! | offset | stream |
//! |---|---|
//! | 0..379 | 105 randomizer coefficients of each main column |
//! | 379..469 | 105 randomizer coefficients of each auxiliary column |
//! | 469 | `n` randomizer coefficients of the batch randomizer column |
//! | 470 | `n` values of the batch randomizer column |
//! | 471 | 530 coefficients of the last quotient segment |

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use triton_vm::prelude::{BFieldElement, XFieldElement};
use triton_vm::table::master_table::{MasterAuxTable, MasterMainTable};

use crate::domain::{NUM_QUOTIENT_RANDOMIZERS, NUM_TRACE_RANDOMIZERS};
use crate::matrix::Matrix;

const MAIN_COLUMNS: usize = MasterMainTable::NUM_COLUMNS;
const AUX_COLUMNS: usize = MasterAuxTable::NUM_COLUMNS;

/// Where a proof's randomness comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Randomness {
    /// A fresh seed of the operating system: what every real proof uses.
    Os,
    /// A caller's seed, **for tests only**: whoever knows or repeats the seed breaks zero-knowledge. It exists so that
    /// proofs can be compared byte by byte.
    Seed([u8; 32]),
}

impl std::fmt::Debug for Randomness {
    /// The seed is as secret as the witness and stays out of every log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Os => "Os",
            Self::Seed(_) => "Seed(..)",
        })
    }
}

impl Randomness {
    /// Fix the seed of one proof.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn into_streams(self) -> Result<RandomStreams, rand::rngs::SysError> {
        let seed = match self {
            Self::Os => {
                let mut seed = [0; 32];
                rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut seed)?;
                seed
            }
            Self::Seed(seed) => seed,
        };
        Ok(RandomStreams { seed })
    }
}

/// The random streams of one proof. A device may draw from [`Self::batch_value_seed`] and
/// [`Self::batch_randomizer_seed`] itself (two ChaCha12 words a field element, see [`column`]) instead of uploading the
/// long streams.
pub struct RandomStreams {
    seed: [u8; 32],
}

impl std::fmt::Debug for RandomStreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RandomStreams(..)")
    }
}

impl RandomStreams {
    /// Randomizer coefficients of all 379 main columns: 105 rows, one column each, lowest degree first.
    pub fn main_randomizers(&self) -> Matrix<BFieldElement> {
        let data = (0..MAIN_COLUMNS).into_par_iter().flat_map_iter(|i| column(self.seed_at(i), NUM_TRACE_RANDOMIZERS));
        Matrix::from_column_major(NUM_TRACE_RANDOMIZERS, data.collect()).expect("every column has the same length")
    }

    /// Randomizer coefficients of the first 90 auxiliary columns: 105 rows, one column each, lowest degree first. The
    /// batch randomizer, column 90, has its own: [`Self::batch_randomizer`].
    pub fn aux_randomizers(&self) -> Matrix<XFieldElement> {
        let columns = (0..AUX_COLUMNS - 1).into_par_iter();
        let data = columns.flat_map_iter(|i| column(self.seed_at(MAIN_COLUMNS + i), NUM_TRACE_RANDOMIZERS));
        Matrix::from_column_major(NUM_TRACE_RANDOMIZERS, data.collect()).expect("every column has the same length")
    }

    /// The `n` values of the batch randomizer column on the trace domain.
    pub fn batch_values(&self, n: usize) -> Vec<XFieldElement> {
        column(self.batch_value_seed(), n)
    }

    /// The `n` randomizer coefficients of the batch randomizer column, lowest degree first.
    pub fn batch_randomizer(&self, n: usize) -> Vec<XFieldElement> {
        column(self.batch_randomizer_seed(), n)
    }

    /// The 530 coefficients of the last randomized quotient segment, lowest degree first.
    pub fn quotient_randomizer(&self) -> Vec<XFieldElement> {
        column(self.seed_at(MAIN_COLUMNS + AUX_COLUMNS + 1), NUM_QUOTIENT_RANDOMIZERS)
    }

    /// ChaCha12 key of the stream behind [`Self::batch_values`].
    pub fn batch_value_seed(&self) -> [u8; 32] {
        self.seed_at(MAIN_COLUMNS + AUX_COLUMNS)
    }

    /// ChaCha12 key of the stream behind [`Self::batch_randomizer`].
    pub fn batch_randomizer_seed(&self) -> [u8; 32] {
        self.seed_at(MAIN_COLUMNS + AUX_COLUMNS - 1)
    }

    fn seed_at(&self, offset: usize) -> [u8; 32] {
        add_little_endian(self.seed, offset as u64)
    }
}

/// `length` uniform field elements of the ChaCha12 stream with this key. One base field element consumes two 64-bit
/// words of the stream (Canon's method of rand 0.10), except with probability `2^-32` only one.
pub fn column<F>(seed: [u8; 32], length: usize) -> Vec<F>
where
    rand::distr::StandardUniform: rand::distr::Distribution<F>,
{
    let mut rng = StdRng::from_seed(seed);
    std::iter::repeat_with(|| rng.random()).take(length).collect()
}

/// `seed + offset` modulo `2^256`, both little-endian.
fn add_little_endian(mut seed: [u8; 32], offset: u64) -> [u8; 32] {
    let mut carry = u128::from(offset);
    for limb in seed.chunks_exact_mut(8) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(limb);
        carry += u128::from(u64::from_le_bytes(bytes));
        limb.copy_from_slice(&(carry as u64).to_le_bytes());
        carry >>= 64;
    }
    seed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_carry_across_the_whole_seed() {
        let mut expected = [0; 32];
        expected[0] = 4;
        assert_eq!(add_little_endian([0xff; 32], 5), expected);
        let mut low_limbs_full = [0; 32];
        low_limbs_full[..16].fill(0xff);
        let sum = add_little_endian(low_limbs_full, 1);
        assert_eq!((sum[15], sum[16], sum[17]), (0, 1, 0));
    }

    #[test]
    fn fresh_seeds_differ_and_given_ones_repeat() {
        let streams = |r: Randomness| r.into_streams().expect("the system has randomness").quotient_randomizer();
        assert_ne!(streams(Randomness::Os), streams(Randomness::Os));
        assert_eq!(streams(Randomness::Seed([3; 32])), streams(Randomness::Seed([3; 32])));
    }

    #[test]
    fn debug_output_hides_the_seed() {
        assert_eq!(format!("{:?}", Randomness::Seed([0xab; 32])), "Seed(..)");
    }
}

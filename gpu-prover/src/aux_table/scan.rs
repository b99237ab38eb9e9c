//! Prefix scans in parallel over chunks of rows: reduce each chunk, carry over the chunks, write each chunk.

use rayon::prelude::*;
use triton_vm::prelude::{FiniteField, XFieldElement};

use super::{X_ONE, X_ZERO};

/// Rows per task.
const CHUNK: usize = 1 << 11;

/// The affine map `x -> factor x + addend`, one row's effect on a running value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affine {
    /// Multiplies the running value.
    pub factor: XFieldElement,
    /// Added after the multiplication.
    pub addend: XFieldElement,
}

impl Affine {
    /// A row without effect.
    pub const IDENTITY: Self = Self { factor: X_ONE, addend: X_ZERO };

    /// The map to a constant, which forgets everything before.
    pub fn constant(value: XFieldElement) -> Self {
        Self { factor: X_ZERO, addend: value }
    }

    /// A factor of a running product.
    pub fn product(factor: XFieldElement) -> Self {
        Self { factor, addend: X_ZERO }
    }

    /// A summand of a running sum.
    pub fn sum(addend: XFieldElement) -> Self {
        Self { factor: X_ONE, addend }
    }

    /// A symbol of a running evaluation in `indeterminate`.
    pub fn evaluation(indeterminate: XFieldElement, symbol: XFieldElement) -> Self {
        Self { factor: indeterminate, addend: symbol }
    }

    /// The value after this row, for value `x` before it.
    pub fn apply(self, x: XFieldElement) -> XFieldElement {
        self.factor * x + self.addend
    }

    /// First this map, then the other.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        Self { factor: next.factor * self.factor, addend: next.apply(self.addend) }
    }
}

/// Write the running value after each row, starting from `initial`. `None` is a row without effect.
pub fn running(column: &mut [XFieldElement], initial: XFieldElement, map: impl Fn(usize) -> Option<Affine> + Send + Sync) {
    let chunks = (0..column.len().div_ceil(CHUNK)).into_par_iter();
    let height = column.len();
    let totals: Vec<_> = chunks
        .map(|chunk| {
            let rows = chunk * CHUNK..((chunk + 1) * CHUNK).min(height);
            rows.filter_map(&map).fold(Affine::IDENTITY, Affine::then)
        })
        .collect();
    let mut value = initial;
    let starts: Vec<_> = totals
        .into_iter()
        .map(|total| {
            let start = value;
            value = total.apply(value);
            start
        })
        .collect();
    column.par_chunks_mut(CHUNK).zip(starts).enumerate().for_each(|(chunk, (column, start))| {
        let mut value = start;
        for (offset, cell) in column.iter_mut().enumerate() {
            if let Some(map) = map(chunk * CHUNK + offset) {
                value = map.apply(value);
            }
            *cell = value;
        }
    });
}

/// A summand of a log-derivative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    /// Usually a multiplicity.
    pub numerator: XFieldElement,
    /// Never zero, but for negligible probability over the challenges.
    pub denominator: XFieldElement,
}

impl Fraction {
    /// `1 / denominator`.
    pub fn inverse_of(denominator: XFieldElement) -> Self {
        Self { numerator: X_ONE, denominator }
    }
}

/// Write the running sum of fractions after each row, starting from `initial`; each row has up to `K` of them.
pub fn running_fractions<const K: usize>(
    column: &mut [XFieldElement],
    initial: XFieldElement,
    fractions: impl Fn(usize) -> [Option<Fraction>; K] + Send + Sync,
) {
    // First each row's own sum, in place, with one inversion a chunk.
    column.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, column)| {
        let fractions: Vec<_> = (0..column.len()).map(|offset| fractions(chunk * CHUNK + offset)).collect();
        let present = || fractions.iter().flatten().flatten();
        let inverses = XFieldElement::batch_inversion(present().map(|fraction| fraction.denominator).collect());
        let mut quotients = present().zip(inverses).map(|(fraction, inverse)| fraction.numerator * inverse);
        for (cell, fractions) in column.iter_mut().zip(&fractions) {
            *cell = fractions.iter().flatten().zip(&mut quotients).map(|(_, quotient)| quotient).sum();
        }
    });
    let totals: Vec<XFieldElement> = column.par_chunks(CHUNK).map(|chunk| chunk.iter().copied().sum()).collect();
    let mut value = initial;
    let starts: Vec<_> = totals
        .into_iter()
        .map(|total| {
            let start = value;
            value += total;
            start
        })
        .collect();
    column.par_chunks_mut(CHUNK).zip(starts).for_each(|(column, mut value)| {
        for cell in column {
            value += *cell;
            *cell = value;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::randomness;

    const LENGTHS: [usize; 6] = [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5];

    #[test]
    fn running_values_agree_with_the_sequential_definition() {
        for length in LENGTHS {
            let random: Vec<XFieldElement> = randomness::column([length as u8; 32], 2 * length);
            let map = |row: usize| {
                let map = Affine { factor: random[2 * row], addend: random[2 * row + 1] };
                (row % 5 != 3).then_some(map)
            };
            let mut scanned = vec![X_ZERO; length];
            running(&mut scanned, random[0], map);
            let mut value = random[0];
            for (row, scanned) in scanned.into_iter().enumerate() {
                value = map(row).map_or(value, |map| map.factor * value + map.addend);
                assert_eq!(scanned, value, "row {row} of {length}");
            }
        }
    }

    #[test]
    fn running_fractions_agree_with_the_sequential_definition() {
        for length in LENGTHS {
            let random: Vec<XFieldElement> = randomness::column([length as u8; 32], 4 * length);
            let fractions = |row: usize| {
                let fraction = |i: usize| Fraction { numerator: random[4 * row + i], denominator: random[4 * row + i + 1] };
                [(!row.is_multiple_of(3)).then(|| fraction(0)), row.is_multiple_of(4).then(|| fraction(2))]
            };
            let mut scanned = vec![X_ZERO; length];
            running_fractions(&mut scanned, random[0], fractions);
            let mut value = random[0];
            for (row, scanned) in scanned.into_iter().enumerate() {
                for fraction in fractions(row).into_iter().flatten() {
                    value += fraction.numerator / fraction.denominator;
                }
                assert_eq!(scanned, value, "row {row} of {length}");
            }
        }
    }
}

//! Low-degree extension: from columns on the trace domain to codewords on the cosets of the FRI domain.
//!
//! A column `c` with randomizer `r` stands for the polynomial `C(X) + (X^n - 1) r(X)`, where `C` interpolates `c` on the
//! trace domain. On coset `j`, `X^n - 1` is constant, so that one NTT of length `n` over
//! `(c_i + z_j r_i) offset_j^i` gives the whole coset.

use std::ops::{Mul, MulAssign};

use rayon::prelude::*;
use triton_vm::prelude::{BFieldElement, FiniteField, XFieldElement};
use twenty_first::math::ntt::{intt, ntt};

use crate::domain::{Domains, FRI_OFFSET, NUM_COSETS, powers};
use crate::matrix::Matrix;

/// What can be a table's element: it can be scaled by base field elements.
pub trait Element: FiniteField + MulAssign<BFieldElement> + Mul<BFieldElement, Output = Self> + Send + Sync + Copy {}

impl Element for BFieldElement {}

impl Element for XFieldElement {}

/// Coefficients of the interpolants of all columns on the trace domain, lowest degree first: same shape as the table.
pub fn interpolate<F: Element>(table: &Matrix<F>) -> Matrix<F> {
    let mut coefficients = table.clone();
    coefficients.par_columns_mut().for_each(intt);
    coefficients
}

/// Values of all randomized columns on coset `coset`: `n` rows, same number of columns.
///
/// `coefficients` holds the interpolants, `randomizers` the coefficients of each column's `r`, both by column.
///
/// # Panics
/// If there are fewer randomizers than columns.
pub fn extend_coset<F: Element>(domains: &Domains, coset: usize, coefficients: &Matrix<F>, randomizers: &[&[F]]) -> Matrix<F> {
    assert!(randomizers.len() >= coefficients.columns(), "each column needs a randomizer");
    let n = domains.trace_length();
    let zerofier = domains.coset_zerofier(coset);
    let offsets = powers(BFieldElement::new(1), domains.coset_offset(coset), n);
    let mut values = coefficients.clone();
    values.par_columns_mut().zip(randomizers).for_each(|(column, randomizer)| {
        column.iter_mut().zip(*randomizer).for_each(|(c, &r)| *c += r * zerofier);
        column.iter_mut().zip(&offsets).for_each(|(c, &offset)| *c *= offset);
        ntt(column);
    });
    values
}

/// Values on the FRI domain, in its natural order, of the polynomial with these coefficients (at most `8 n`).
pub fn evaluate_on_fri_domain<F: Element>(domains: &Domains, coefficients: &[F]) -> Vec<F> {
    let mut values = coefficients.to_vec();
    values.resize(domains.fri_length(), F::ZERO);
    scale(&mut values, FRI_OFFSET);
    ntt(&mut values);
    values
}

/// Coefficients of the polynomial with these values on the FRI domain: the inverse of [`evaluate_on_fri_domain`].
pub fn interpolate_on_fri_domain<F: Element>(mut values: Vec<F>) -> Vec<F> {
    intt(&mut values);
    scale(&mut values, FRI_OFFSET.inverse());
    values
}

/// From values on the eight cosets to values on the FRI domain in its natural order.
pub fn interleave_cosets<F: Copy + Send + Sync>(cosets: &[Vec<F>; NUM_COSETS]) -> Vec<F> {
    (0..NUM_COSETS * cosets[0].len()).into_par_iter().map(|row| cosets[row % NUM_COSETS][row / NUM_COSETS]).collect()
}

/// Multiply coefficient `i` by `factor^i`.
pub fn scale<F: Element>(coefficients: &mut [F], factor: BFieldElement) {
    const CHUNK: usize = 1 << 12;
    coefficients.par_chunks_mut(CHUNK).enumerate().for_each(|(index, chunk)| {
        let mut power = factor.mod_pow((index * CHUNK) as u64);
        for coefficient in chunk {
            *coefficient *= power;
            power *= factor;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::randomness;
    use twenty_first::prelude::Polynomial;

    #[test]
    fn cosets_agree_with_the_crates_randomized_interpolant() {
        let domains = Domains::new(512).expect("a legal height");
        let values: Vec<XFieldElement> = randomness::column([1; 32], 2 * 512);
        let randomizers: Vec<XFieldElement> = randomness::column([2; 32], 2 * 105);
        let table = Matrix::from_column_major(512, values).expect("two whole columns");
        let randomizers: Vec<_> = randomizers.chunks_exact(105).collect();
        let coefficients = interpolate(&table);
        let cosets: [_; NUM_COSETS] = std::array::from_fn(|j| extend_coset(&domains, j, &coefficients, &randomizers));
        for (column, randomizer) in randomizers.iter().enumerate() {
            let randomizer = Polynomial::new(randomizer.to_vec());
            let interpolant = domains.trace().randomized_interpolant(table.column(column), &randomizer);
            let expected = domains.fri().evaluate(&interpolant);
            let of_column: [_; NUM_COSETS] = std::array::from_fn(|j| cosets[j].column(column).to_vec());
            assert_eq!(interleave_cosets(&of_column), expected);
            assert_eq!(evaluate_on_fri_domain(&domains, interpolant.coefficients()), expected);
            let mut back = interpolate_on_fri_domain(expected);
            back.truncate(interpolant.coefficients().len());
            assert_eq!(back, interpolant.coefficients());
        }
    }

    #[test]
    fn scaling_is_the_same_in_every_chunk() {
        let factor = BFieldElement::new(11);
        let mut scaled = vec![BFieldElement::new(1); 10_000];
        scale(&mut scaled, factor);
        assert_eq!(scaled, powers(BFieldElement::new(1), factor, 10_000));
    }
}

//! Linear combination of all columns and the DEEP codeword ("domain extension for eliminating pretenders",
//! <https://eprint.iacr.org/2019/336>).

use rayon::prelude::*;
use triton_vm::prelude::{BFieldElement, FiniteField, XFieldElement};
use triton_vm::table::{NUM_QUOTIENT_SEGMENTS, NUM_RANDOMIZED_QUOTIENT_SEGMENTS};

use crate::domain::{Domains, FRI_OFFSET, powers};
use crate::field::X_ZERO;
use crate::lde::Element;
use crate::matrix::Matrix;
use crate::stages::{CombinationValues, NUM_DEEP_COMPONENTS, OutOfDomainPoints};

/// Add `sum weights_i (C_i + (X^n - 1) r_i)` to the `2 n` coefficients of `sum`.
///
/// # Panics
/// If `sum` is shorter than `2 n`, or a randomizer longer than `n`.
pub fn add_weighted_columns<F>(
    sum: &mut [XFieldElement],
    coefficients: &Matrix<F>,
    randomizers: &[&[F]],
    weights: &[XFieldElement],
) where
    F: Element,
    XFieldElement: std::ops::Mul<F, Output = XFieldElement>,
{
    const CHUNK: usize = 1 << 10;
    let n = coefficients.rows();
    let (low, high) = sum.split_at_mut(n);
    low.par_chunks_mut(CHUNK).zip(high.par_chunks_mut(CHUNK)).enumerate().for_each(|(chunk, (low, high))| {
        let start = chunk * CHUNK;
        for ((column, randomizer), &weight) in coefficients.iter_columns().zip(randomizers).zip(weights) {
            low.iter_mut().zip(&column[start..]).for_each(|(sum, &c)| *sum += weight * c);
            let randomizer = randomizer.get(start..).unwrap_or_default();
            for ((low, high), &r) in low.iter_mut().zip(high.iter_mut()).zip(randomizer) {
                let term = weight * r;
                *low -= term;
                *high += term;
            }
        }
    });
}

/// The combinations `P = sum_{i<4} w_i s_i` and `R = sum_{i>=1} w_i s_i` of the randomized quotient segments.
pub fn combine_segments(
    segments: &[Vec<XFieldElement>; NUM_RANDOMIZED_QUOTIENT_SEGMENTS],
    weights: &[XFieldElement; NUM_RANDOMIZED_QUOTIENT_SEGMENTS],
) -> [Vec<XFieldElement>; 2] {
    let combine = |range: std::ops::Range<usize>| {
        let mut sum = vec![X_ZERO; segments[0].len()];
        for i in range {
            sum.par_iter_mut().zip(&segments[i]).for_each(|(sum, &s)| *sum += s * weights[i]);
        }
        sum
    };
    [combine(0..NUM_QUOTIENT_SEGMENTS), combine(1..NUM_RANDOMIZED_QUOTIENT_SEGMENTS)]
}

/// The DEEP codeword on the FRI domain from the codewords of `W`, `P` and `R`; see
/// [`crate::stages::Stages::commit_deep`] for the formula.
///
/// # Panics
/// If a point of `points` lies in the FRI domain, which for challenges from the extension field has negligible
/// probability.
pub fn codeword(
    domains: &Domains,
    [table, segments, shifted_segments]: [&[XFieldElement]; 3],
    points: &OutOfDomainPoints,
    values: &CombinationValues,
    weights: &[XFieldElement; NUM_DEEP_COMPONENTS],
) -> Vec<XFieldElement> {
    const CHUNK: usize = 1 << 10;
    let generator = domains.fri_generator();
    let components = [
        (table, points.current, values.current),
        (table, points.next, values.next),
        (segments, points.segments, values.segments),
        (shifted_segments, points.shifted_segments, values.shifted_segments),
    ];
    let mut codeword = vec![X_ZERO; domains.fri_length()];
    codeword.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, codeword)| {
        let start = chunk * CHUNK;
        let first = FRI_OFFSET * generator.mod_pow(start as u64);
        let domain: Vec<BFieldElement> = powers(first, generator, codeword.len());
        for ((values, point, value_at_point), &weight) in components.into_iter().zip(weights) {
            let denominators = domain.iter().map(|&x| -(point - x)).collect();
            let inverses = XFieldElement::batch_inversion(denominators);
            for ((sum, &value), inverse) in codeword.iter_mut().zip(&values[start..]).zip(inverses) {
                *sum += (value - value_at_point) * inverse * weight;
            }
        }
    });
    codeword
}

//! The quotient: all constraints in one polynomial, cut into segments and randomized.

use rayon::prelude::*;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, Stark, XFieldElement};
use triton_vm::table::master_table::all_quotients_combined;
use triton_vm::table::{NUM_QUOTIENT_SEGMENTS, NUM_RANDOMIZED_QUOTIENT_SEGMENTS};

use crate::domain::Domains;
use crate::lde;
use crate::matrix::Matrix;

/// Values of the quotient on coset `coset`, from the values of all columns there: the sum of all constraints, each times
/// its weight and the inverse of its zerofier. The next row is the next point of the same coset.
///
/// # Panics
/// If the tables do not have `n` rows and all their columns, or there are not 611 weights.
pub fn codeword_on_coset(
    domains: &Domains,
    coset: usize,
    main: &Matrix<BFieldElement>,
    aux: &Matrix<XFieldElement>,
    challenges: &Challenges,
    weights: &[XFieldElement],
) -> Vec<XFieldElement> {
    // The crate's function serves any domain on which "next row" is a fixed distance; on one coset that distance is 1.
    all_quotients_combined(main.view(), aux.view(), domains.trace(), domains.coset(coset), challenges, weights)
}

/// Cut the quotient's coefficients into segments of `2 n`: coefficient `k` goes to segment `k mod 4`.
pub fn segments(coefficients: &[XFieldElement]) -> [Vec<XFieldElement>; NUM_QUOTIENT_SEGMENTS] {
    std::array::from_fn(|segment| coefficients.iter().skip(segment).step_by(NUM_QUOTIENT_SEGMENTS).copied().collect())
}

/// Randomize from the right: `s_4 = randomizer`, `s_i(X) = q_i(X) - 3^i s_{i+1}(3^4 X)`. The verifier recovers the
/// quotient in a point from `s_0 .. s_3` there and `s_1 .. s_4` in a shifted one; every opening alone is uniform.
///
/// # Panics
/// If the randomizer is longer than the segments.
pub fn randomize(
    segments: [Vec<XFieldElement>; NUM_QUOTIENT_SEGMENTS],
    randomizer: Vec<XFieldElement>,
) -> [Vec<XFieldElement>; NUM_RANDOMIZED_QUOTIENT_SEGMENTS] {
    assert!(randomizer.len() <= segments[0].len(), "the randomizer must fit into a segment");
    let shift = Stark::ZETA.mod_pow(NUM_QUOTIENT_SEGMENTS as u64);
    let mut randomized = vec![randomizer];
    for (index, mut segment) in segments.into_iter().enumerate().rev() {
        let factor = Stark::ZETA.mod_pow(index as u64);
        let mut shifted = randomized[randomized.len() - 1].clone();
        lde::scale(&mut shifted, shift);
        segment.par_iter_mut().zip(shifted).for_each(|(q, s)| *q -= s * factor);
        randomized.push(segment);
    }
    randomized.reverse();
    randomized.try_into().expect("one more polynomial than segments")
}

/// Values of the randomized segments on the FRI domain: `8 n` rows, 5 columns.
pub fn evaluate_segments(
    domains: &Domains,
    segments: &[Vec<XFieldElement>; NUM_RANDOMIZED_QUOTIENT_SEGMENTS],
) -> Matrix<XFieldElement> {
    let columns: Vec<_> = segments.par_iter().map(|segment| lde::evaluate_on_fri_domain(domains, segment)).collect();
    Matrix::from_column_major(domains.fri_length(), columns.concat()).expect("columns of equal length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::out_of_domain::evaluate;
    use crate::randomness;
    use twenty_first::prelude::ModPowU32;

    #[test]
    fn segments_recompose_to_the_quotient() {
        let coefficients: Vec<XFieldElement> = randomness::column([4; 32], 64);
        let segments = segments(&coefficients);
        let x: XFieldElement = randomness::column([5; 32], 1)[0];
        let recomposed: XFieldElement =
            (0..4).map(|i| x.mod_pow_u32(i) * evaluate(&segments[i as usize], x.mod_pow_u32(4))).sum();
        assert_eq!(recomposed, evaluate(&coefficients, x));
    }

    #[test]
    fn the_randomized_segments_hide_but_keep_the_quotient() {
        let coefficients: Vec<XFieldElement> = randomness::column([6; 32], 64);
        let randomizer: Vec<XFieldElement> = randomness::column([7; 32], 9);
        let plain = segments(&coefficients);
        let s = randomize(plain.clone(), randomizer.clone());
        assert_eq!(s[4], randomizer);
        let zeta = Stark::ZETA;
        let x: XFieldElement = randomness::column([8; 32], 1)[0];
        for (i, q) in plain.iter().enumerate() {
            let recovered = evaluate(&s[i], x) + evaluate(&s[i + 1], x * zeta.mod_pow(4)) * zeta.mod_pow(i as u64);
            assert_eq!(recovered, evaluate(q, x), "segment {i}");
        }
    }
}

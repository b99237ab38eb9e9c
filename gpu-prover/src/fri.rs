//! FRI, the low-degree test, with folding factor 2 (<https://eccc.weizmann.ac.il/report/2017/134>).

use rayon::prelude::*;
use triton_vm::prelude::{BFieldElement, Digest, XFieldElement};

use crate::domain::{FRI_OFFSET, powers, root_of_unity};
use crate::field::X_ZERO;
use crate::merkle::Tree;

/// A codeword of one round and its commitment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// The codeword, on the coset `7^(2^round) <w_len>`.
    pub codeword: Vec<XFieldElement>,
    /// The tree over the codeword.
    pub tree: Tree,
}

impl Round {
    /// Commit to a codeword. Its elements are short enough to be leaves themselves, without hashing.
    pub fn new(codeword: Vec<XFieldElement>) -> Self {
        let leaves: Vec<Digest> = codeword.par_iter().map(|&element| element.into()).collect();
        Self { codeword, tree: Tree::new(&leaves) }
    }
}

/// Fold the codeword of round `round` by `challenge`:
/// `g_i = ((1 + c / x_i) f_i + (1 - c / x_i) f_{i + N/2}) / 2`.
pub fn fold(codeword: &[XFieldElement], round: usize, challenge: XFieldElement) -> Vec<XFieldElement> {
    const CHUNK: usize = 1 << 10;
    let offset_inverse = FRI_OFFSET.mod_pow(1 << round).inverse();
    let generator_inverse = root_of_unity(codeword.len()).inverse();
    let half = BFieldElement::new(2).inverse();
    let (left, right) = codeword.split_at(codeword.len() / 2);
    let mut folded = vec![X_ZERO; left.len()];
    folded.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, folded)| {
        let start = chunk * CHUNK;
        let first = offset_inverse * generator_inverse.mod_pow(start as u64);
        let point_inverses: Vec<BFieldElement> = powers(first, generator_inverse, folded.len());
        for (((folded, &left), &right), inverse) in
            folded.iter_mut().zip(&left[start..]).zip(&right[start..]).zip(point_inverses)
        {
            *folded = ((left + right) + challenge * inverse * (left - right)) * half;
        }
    });
    folded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Domains;
    use crate::lde;
    use crate::out_of_domain::evaluate;
    use crate::randomness;

    #[test]
    fn folding_combines_even_and_odd_coefficients() {
        let domains = Domains::new(512).expect("a legal height");
        let mut coefficients: Vec<XFieldElement> = randomness::column([11; 32], 1024);
        let mut codeword = lde::evaluate_on_fri_domain(&domains, &coefficients);
        for round in 0..domains.num_fri_rounds() {
            let challenge: XFieldElement = randomness::column([round as u8; 32], 1)[0];
            codeword = fold(&codeword, round, challenge);
            coefficients = coefficients.chunks_exact(2).map(|pair| pair[0] + challenge * pair[1]).collect();
            let length = codeword.len();
            for index in [0, 1, length / 2, length - 1] {
                let point = FRI_OFFSET.mod_pow(2 << round) * root_of_unity(length).mod_pow(index as u64);
                assert_eq!(codeword[index], evaluate(&coefficients, point.lift()), "round {round}, point {index}");
            }
        }
        assert_eq!(codeword.len(), 512);
    }
}

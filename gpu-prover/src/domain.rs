//! The arithmetic domains of a proof (triton-vm 9.0.1, specification chapter "STARK").

use triton_vm::arithmetic_domain::ArithmeticDomain;
use triton_vm::prelude::{BFieldElement, Stark};

use crate::error::ProtocolError;

/// Number of cosets of the trace subgroup that make up the FRI domain.
pub const NUM_COSETS: usize = 8;

/// Number of randomizer coefficients of every column but the batch randomizer, for `Stark::default()`.
pub const NUM_TRACE_RANDOMIZERS: usize = 105;

/// Number of random coefficients of the last randomized quotient segment, for `Stark::default()`.
pub const NUM_QUOTIENT_RANDOMIZERS: usize = 530;

/// The verifier refuses proofs of this log2 padded height and above.
pub const LOG2_HEIGHT_LIMIT: u32 = 30;

/// Offset of the FRI domain: 7, the generator of the field's multiplicative group.
pub const FRI_OFFSET: BFieldElement = BFieldElement::new(7);

/// The domains of one proof. For `Stark::default()` the quotient domain *is* the FRI domain: `8 n` points of the coset
/// `7 <w_8n>`, where `n` is the trace domain's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domains {
    padded_height: usize,
    trace_length: usize,
}

impl Domains {
    /// The domains for a trace of `padded_height` rows (a power of two).
    ///
    /// The trace domain has at least 512 points, because the randomizers of the quotient need that much room; from
    /// padded height 512 on the two are equal.
    pub fn new(padded_height: usize) -> Result<Self, ProtocolError> {
        if !padded_height.is_power_of_two() || padded_height.ilog2() >= LOG2_HEIGHT_LIMIT {
            return Err(ProtocolError::PaddedHeight { padded_height });
        }
        // Room for the randomized interpolant (height + 105), for its degree (2 * 105 + 1), for the quotient's
        // randomizers (530); the trace domain is exactly half of the randomized one.
        let randomized = (padded_height + NUM_TRACE_RANDOMIZERS)
            .max(2 * NUM_TRACE_RANDOMIZERS + 1)
            .max(NUM_QUOTIENT_RANDOMIZERS)
            .next_power_of_two();
        Ok(Self { padded_height, trace_length: randomized / 2 })
    }

    /// Rows of the padded execution trace, as announced in the proof.
    pub fn padded_height(&self) -> usize {
        self.padded_height
    }

    /// `log2` of [`Self::padded_height`].
    pub fn log2_padded_height(&self) -> u32 {
        self.padded_height.ilog2()
    }

    /// Length `n` of the trace domain: the number of rows of the main and auxiliary tables.
    pub fn trace_length(&self) -> usize {
        self.trace_length
    }

    /// Length of the FRI domain, `8 n`: the number of leaves of the three table trees.
    pub fn fri_length(&self) -> usize {
        NUM_COSETS * self.trace_length
    }

    /// Number of foldings of FRI, so that the last codeword has 512 elements.
    pub fn num_fri_rounds(&self) -> usize {
        let max_rounds = (2 * self.trace_length).ilog2();
        let too_dense = Self::num_collinearity_checks().ilog2() + 1;
        max_rounds.saturating_sub(too_dense) as usize
    }

    /// Number of indices at which FRI and the tables are opened.
    pub fn num_collinearity_checks() -> usize {
        Stark::default().num_collinearity_checks
    }

    /// Generator `w_n` of the trace domain.
    pub fn trace_generator(&self) -> BFieldElement {
        root_of_unity(self.trace_length)
    }

    /// Generator `w_8n` of the FRI domain.
    pub fn fri_generator(&self) -> BFieldElement {
        root_of_unity(self.fri_length())
    }

    /// Offset `7 w_8n^j` of coset `j`. Coset `j` holds the FRI rows `j, j + 8, j + 16, ..`: its `i`-th point is
    /// `7 w_8n^j w_n^i`, and the "next row" of the AIR is the next point of the same coset.
    pub fn coset_offset(&self, coset: usize) -> BFieldElement {
        FRI_OFFSET * self.fri_generator().mod_pow(coset as u64)
    }

    /// Value of the trace zerofier `X^n - 1` on coset `j`, where it is constant.
    pub fn coset_zerofier(&self, coset: usize) -> BFieldElement {
        self.coset_offset(coset).mod_pow(self.trace_length as u64) - BFieldElement::new(1)
    }

    /// Coset `j` as the triton-vm crate's domain type.
    pub fn coset(&self, coset: usize) -> ArithmeticDomain {
        domain(self.trace_length).with_offset(self.coset_offset(coset))
    }

    /// The trace domain as the triton-vm crate's domain type.
    pub fn trace(&self) -> ArithmeticDomain {
        domain(self.trace_length)
    }

    /// The FRI domain as the triton-vm crate's domain type.
    pub fn fri(&self) -> ArithmeticDomain {
        domain(self.fri_length()).with_offset(FRI_OFFSET)
    }

    /// Point `index` of the FRI domain.
    pub fn fri_point(&self, index: usize) -> BFieldElement {
        FRI_OFFSET * self.fri_generator().mod_pow(index as u64)
    }
}

/// The primitive root of unity of order `length`.
///
/// # Panics
/// If `length` is not a power of two up to `2^32`.
pub fn root_of_unity(length: usize) -> BFieldElement {
    domain(length).generator()
}

fn domain(length: usize) -> ArithmeticDomain {
    ArithmeticDomain::of_length(length).expect("domain lengths are powers of two below the field's two-adicity")
}

/// `factor, factor base, factor base^2, ..`: `length` of them.
pub fn powers(factor: BFieldElement, base: BFieldElement, length: usize) -> Vec<BFieldElement> {
    let mut power = factor;
    let mut next = || {
        let current = power;
        power *= base;
        current
    };
    (0..length).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agree_with_the_crate_at_every_height() {
        let stark = Stark::default();
        assert_eq!(stark.num_trace_randomizers, NUM_TRACE_RANDOMIZERS);
        for log2 in 8..24 {
            let domains = Domains::new(1 << log2).expect("a legal height");
            let fri = stark.fri(1 << log2).expect("a legal height");
            assert_eq!(fri.domain, domains.fri(), "2^{log2}");
            assert_eq!(fri.num_rounds(), domains.num_fri_rounds(), "2^{log2}");
            let quotient = (stark.max_degree(1 << log2) as usize).next_power_of_two();
            assert_eq!(quotient, domains.fri_length(), "2^{log2}");
            assert_eq!(1 << 9, domains.fri_length() >> domains.num_fri_rounds());
        }
    }

    #[test]
    fn short_traces_still_have_a_domain_of_512() {
        let domains = Domains::new(256).expect("a legal height");
        assert_eq!((domains.padded_height(), domains.trace_length()), (256, 512));
    }

    #[test]
    fn cosets_interleave_to_the_fri_domain() {
        let domains = Domains::new(512).expect("a legal height");
        let fri = domains.fri().values();
        for j in 0..NUM_COSETS {
            let of_coset: Vec<_> = fri.iter().copied().skip(j).step_by(NUM_COSETS).collect();
            assert_eq!(domains.coset(j).values(), of_coset);
            assert_eq!(domains.coset_zerofier(j), of_coset[3].mod_pow(512) - BFieldElement::new(1));
        }
        assert_eq!(domains.fri_point(77), fri[77]);
    }

    #[test]
    fn illegal_heights_are_refused() {
        assert!(Domains::new(1000).is_err());
        assert!(Domains::new(1 << 30).is_err());
        assert!(Domains::new(0).is_err());
    }
}

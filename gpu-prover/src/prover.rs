//! The STARK protocol of triton-vm 9.0.1 over any [`Stages`]: Fiat-Shamir, challenges, proof encoding.
//!
//! Order of the transcript (absorbed items marked *): claim\*, log2 padded height\*, root of the main tree\*, 59
//! challenges, root of the auxiliary tree\*, 611 quotient weights, root of the quotient tree\*, out-of-domain point,
//! out-of-domain rows\*, 479 combination weights, FRI roots\* with a folding challenge after each but the last, last
//! codeword, last polynomial\*, 80 indices, FRI openings, one scalar that only the verifier uses, row openings.

use std::collections::HashSet;
use std::ops::ControlFlow;

use triton_vm::aet::AlgebraicExecutionTrace;
use triton_vm::arithmetic_domain::ArithmeticDomain;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, Claim, Proof, Stark, XFieldElement};
use triton_vm::proof_item::{FriResponse, ProofItem};
use triton_vm::proof_stream::ProofStream;
use triton_vm::table::NUM_QUOTIENT_SEGMENTS;
use twenty_first::prelude::{MerkleTree, ModPowU32};

use crate::domain::Domains;
use crate::error::ProtocolError;
use crate::main_table::MainTable;
use crate::randomness::Randomness;
use crate::stages::{
    CombinationValues, CombinationWeights, FriQuery, NUM_CONSTRAINTS, OutOfDomainPoints, OutOfDomainRows, RowQuery, Stages,
};

/// A stage of the proof, as reported to an [`Observer`] when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Filling and padding the main table on the host.
    FillMainTable,
    /// Low-degree extension, hashing and tree of the main table.
    CommitMain,
    /// Extension, low-degree extension, hashing and tree of the auxiliary table.
    CommitAux,
    /// Constraints, segments, hashing and tree of the quotient.
    CommitQuotient,
    /// Out-of-domain evaluation.
    OutOfDomain,
    /// Linear combination and DEEP codeword.
    Deep,
    /// One FRI round; 0 is the DEEP codeword's commitment.
    Fri {
        /// Number of the round, starting at 1.
        round: usize,
    },
    /// Opening of the queried rows.
    Open,
    /// The proof is complete.
    Done,
}

impl Stage {
    /// The stages of one proof in their order.
    pub fn sequence(domains: &Domains) -> impl Iterator<Item = Self> {
        [Self::FillMainTable, Self::CommitMain, Self::CommitAux, Self::CommitQuotient, Self::OutOfDomain, Self::Deep]
            .into_iter()
            .chain((1..=domains.num_fri_rounds()).map(|round| Self::Fri { round }))
            .chain([Self::Open, Self::Done])
    }

    /// A stable name, for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::FillMainTable => "fill-main-table",
            Self::CommitMain => "commit-main",
            Self::CommitAux => "commit-aux",
            Self::CommitQuotient => "commit-quotient",
            Self::OutOfDomain => "out-of-domain",
            Self::Deep => "deep",
            Self::Fri { .. } => "fri",
            Self::Open => "open",
            Self::Done => "done",
        }
    }
}

/// Hears of each stage when it begins, and may end the proof there with `ControlFlow::Break`.
pub trait Observer {
    /// Stage `stage` begins.
    fn stage(&mut self, stage: Stage) -> ControlFlow<()>;
}

impl<F: FnMut(Stage) -> ControlFlow<()>> Observer for F {
    fn stage(&mut self, stage: Stage) -> ControlFlow<()> {
        self(stage)
    }
}

/// Observes nothing, never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn stage(&mut self, _: Stage) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Prove `claim` about the execution recorded in `aet`, filling the main table on the host.
///
/// # Errors
/// If the trace is not about the claim's program, the height is out of range, the observer cancels, the machine fails,
/// or (with negligible probability) the random coins would break zero-knowledge.
pub fn prove<S: Stages>(
    stages: &mut S,
    claim: &Claim,
    aet: &AlgebraicExecutionTrace,
    randomness: Randomness,
    observer: &mut impl Observer,
) -> Result<Proof, S::Error> {
    if claim.program_digest != aet.program.hash() {
        return Err(ProtocolError::ProgramMismatch.into());
    }
    begin(observer, Stage::FillMainTable)?;
    let main = MainTable::from_aet(aet)?;
    prove_main_table(stages, claim, &main, randomness, observer)
}

/// [`prove`] from a main table that is filled already, for example while another proof had the device.
///
/// # Errors
/// As for [`prove`]; whether claim and table belong together is the caller's business.
pub fn prove_main_table<S: Stages>(
    stages: &mut S,
    claim: &Claim,
    main: &MainTable,
    randomness: Randomness,
    observer: &mut impl Observer,
) -> Result<Proof, S::Error> {
    let randomness = randomness.into_streams().map_err(|error| ProtocolError::NoRandomness(error.to_string()))?;
    let domains = *main.domains();
    let mut stream = ProofStream::new();
    stream.alter_fiat_shamir_state_with(claim);
    stream.enqueue(ProofItem::Log2PaddedHeight(domains.log2_padded_height()));
    stages.begin(&domains)?;

    begin(observer, Stage::CommitMain)?;
    stream.enqueue(ProofItem::MerkleRoot(stages.commit_main(main, &randomness)?));
    let challenges = Challenges::new(stream.sample_scalars(Challenges::SAMPLE_COUNT), claim);

    begin(observer, Stage::CommitAux)?;
    stream.enqueue(ProofItem::MerkleRoot(stages.commit_aux(&challenges, &randomness)?));
    let quotient_weights = stream.sample_scalars(NUM_CONSTRAINTS);

    begin(observer, Stage::CommitQuotient)?;
    stream.enqueue(ProofItem::MerkleRoot(stages.commit_quotient(&quotient_weights, &randomness)?));

    begin(observer, Stage::OutOfDomain)?;
    let points = out_of_domain_points(&domains, sample_scalar(&mut stream)?);
    let rows = stages.out_of_domain(&points)?;
    enqueue_out_of_domain_rows(&mut stream, &rows);
    let weights = CombinationWeights::from_scalars(&stream.sample_scalars(CombinationWeights::COUNT))
        .ok_or(ProtocolError::Internal("the sponge gave another number of weights than asked for"))?;

    begin(observer, Stage::Deep)?;
    let values = CombinationValues::new(&rows, &weights);
    stream.enqueue(ProofItem::MerkleRoot(stages.commit_deep(&points, &values, &weights)?));
    let indices = low_degree_test(stages, &domains, &mut stream, observer)?;

    let opened = indices.iter().map(|&index| domains.fri_point(index));
    if zero_knowledge_is_violated(points.segments, opened) {
        return Err(ProtocolError::ZeroKnowledgeViolated.into());
    }

    begin(observer, Stage::Open)?;
    let nodes = authentication_nodes(domains.fri_length(), &indices)?;
    let openings = stages.open_rows(&RowQuery { rows: indices, nodes })?;
    stream.enqueue(ProofItem::MasterMainTableRows(openings.main));
    stream.enqueue(ProofItem::AuthenticationStructure(openings.main_nodes));
    stream.enqueue(ProofItem::MasterAuxTableRows(openings.aux));
    stream.enqueue(ProofItem::AuthenticationStructure(openings.aux_nodes));
    stream.enqueue(ProofItem::QuotientSegmentsElements(openings.quotient));
    stream.enqueue(ProofItem::AuthenticationStructure(openings.quotient_nodes));

    begin(observer, Stage::Done)?;
    Ok(stream.into())
}

fn begin(observer: &mut impl Observer, stage: Stage) -> Result<(), ProtocolError> {
    match observer.stage(stage) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ProtocolError::Cancelled),
    }
}

fn sample_scalar(stream: &mut ProofStream) -> Result<XFieldElement, ProtocolError> {
    stream.sample_scalars(1).pop().ok_or(ProtocolError::Internal("the sponge gave no scalar"))
}

/// The four points derived from the challenge.
pub fn out_of_domain_points(domains: &Domains, challenge: XFieldElement) -> OutOfDomainPoints {
    let exponent = NUM_QUOTIENT_SEGMENTS as u32;
    OutOfDomainPoints {
        current: challenge,
        next: challenge * domains.trace_generator(),
        segments: challenge.mod_pow_u32(exponent),
        shifted_segments: (challenge * Stark::ZETA).mod_pow_u32(exponent),
    }
}

fn enqueue_out_of_domain_rows(stream: &mut ProofStream, rows: &OutOfDomainRows) {
    stream.enqueue(ProofItem::OutOfDomainMainRow(rows.main.clone()));
    stream.enqueue(ProofItem::OutOfDomainAuxRow(rows.aux.clone()));
    stream.enqueue(ProofItem::OutOfDomainMainRow(rows.next_main.clone()));
    stream.enqueue(ProofItem::OutOfDomainAuxRow(rows.next_aux.clone()));
    stream.enqueue(ProofItem::OutOfDomainQuotientSegments(rows.segments));
    stream.enqueue(ProofItem::OutOfDomainQuotientSegments(rows.shifted_segments));
}

/// FRI after the commitment to its first codeword: fold, send the last codeword, open. Returns the indices at which
/// the first codeword was opened.
fn low_degree_test<S: Stages>(
    stages: &mut S,
    domains: &Domains,
    stream: &mut ProofStream,
    observer: &mut impl Observer,
) -> Result<Vec<usize>, S::Error> {
    let num_rounds = domains.num_fri_rounds();
    for round in 1..=num_rounds {
        begin(observer, Stage::Fri { round })?;
        let challenge = sample_scalar(stream)?;
        stream.enqueue(ProofItem::MerkleRoot(stages.fri_fold(challenge)?));
    }

    let last_codeword = stages.fri_last_codeword()?;
    let domain = ArithmeticDomain::of_length(last_codeword.len())
        .map_err(|_| ProtocolError::Internal("the last FRI codeword's length is not a power of two"))?;
    // The polynomial is interpolated on the subgroup, not on the round's coset; the verifier does the same.
    let last_polynomial = domain.interpolate(&last_codeword);
    stream.enqueue(ProofItem::FriCodeword(last_codeword));
    stream.enqueue(ProofItem::FriPolynomial(last_polynomial));

    let indices = stream.sample_indices(domains.fri_length(), Domains::num_collinearity_checks());
    let queries = fri_queries(domains.fri_length(), num_rounds, &indices)?;
    let openings = stages.open_fri(&queries)?;
    if openings.len() != queries.len() {
        return Err(ProtocolError::Internal("another number of FRI openings than queries").into());
    }
    for opening in openings {
        let response = FriResponse { auth_structure: opening.nodes, revealed_leaves: opening.values };
        stream.enqueue(ProofItem::FriResponse(response));
    }
    // Only the verifier needs this scalar, but both sponges must be in the same state.
    sample_scalar(stream)?;
    Ok(indices)
}

/// Round 0 at the indices themselves, then every round but the last at the points where the fold takes its other half.
fn fri_queries(length: usize, num_rounds: usize, indices: &[usize]) -> Result<Vec<FriQuery>, ProtocolError> {
    let query = |round: usize, indices: Vec<usize>| {
        let nodes = authentication_nodes(length >> round, &indices)?;
        Ok(FriQuery { round, indices, nodes })
    };
    let first = std::iter::once(query(0, indices.to_vec()));
    let others = (0..num_rounds).map(|round| {
        let length = length >> round;
        query(round, indices.iter().map(|&a| (a + length / 2) % length).collect())
    });
    first.chain(others).collect()
}

/// The tree nodes that authenticate these leaves, highest index first.
pub fn authentication_nodes(num_leaves: usize, leaves: &[usize]) -> Result<Vec<usize>, ProtocolError> {
    MerkleTree::authentication_structure_node_indices(num_leaves, leaves)
        .map(Iterator::collect)
        .map_err(|_| ProtocolError::Internal("an opened index lies outside of its tree"))
}

/// Whether an out-of-domain evaluation of the last quotient segment coincides with an opened one (specification chapter
/// "Zero-Knowledge", section "Quotient Table Randomization"): whether `a^4 * 3^(4 d) = x` for an opened point `x` and
/// some `-4 < d <= 4`.
fn zero_knowledge_is_violated(challenge_to_the_4: XFieldElement, opened: impl IntoIterator<Item = BFieldElement>) -> bool {
    // Opened points lie in the base field.
    let Some(point) = challenge_to_the_4.unlift() else {
        return false;
    };
    let segments = NUM_QUOTIENT_SEGMENTS as u64;
    let zeta = Stark::ZETA.mod_pow(segments);
    let opened: HashSet<_> = opened.into_iter().collect();
    let lowest = point * zeta.inverse().mod_pow(segments - 1);
    (0..2 * segments).any(|exponent| opened.contains(&(lowest * zeta.mod_pow(exponent))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_knowledge_check_knows_exactly_the_forbidden_ratios() {
        let x = BFieldElement::new(123_456_789);
        let zeta_4 = BFieldElement::new(81);
        let violated = |a_to_the_4: BFieldElement| zero_knowledge_is_violated(a_to_the_4.lift(), [x]);
        // a^4 3^(4 m) for m in 1..=4 meets x 3^(4 m') for m' in 0..=4
        for m in 1..=4 {
            for m_prime in 0..=4 {
                let a_to_the_4 = x * zeta_4.mod_pow(m_prime) / zeta_4.mod_pow(m);
                assert!(violated(a_to_the_4), "{m} {m_prime}");
            }
        }
        assert!(!violated(x * zeta_4.mod_pow(4)));
        assert!(!violated(x / zeta_4.mod_pow(5)));
        assert!(!violated(x + BFieldElement::new(1)));
        let outside = XFieldElement::new([x, BFieldElement::new(1), BFieldElement::new(0)]);
        assert!(!zero_knowledge_is_violated(outside, [x]));
    }

    #[test]
    fn the_last_fri_round_is_not_opened() {
        let queries = fri_queries(4096, 3, &[0, 7, 4095]).expect("indices are in range");
        let rounds: Vec<_> = queries.iter().map(|query| query.round).collect();
        assert_eq!(rounds, [0, 0, 1, 2]);
        assert_eq!(queries[1].indices, [2048, 2055, 2047]);
        assert_eq!(queries[3].indices, [512, 519, 511]);
        assert!(fri_queries(4096, 3, &[4096]).is_err());
    }

    #[test]
    fn stages_are_listed_in_the_order_they_run() {
        let domains = Domains::new(1 << 10).expect("a legal height");
        let stages: Vec<_> = Stage::sequence(&domains).collect();
        assert!(stages.is_sorted());
        assert_eq!(stages.len(), 6 + domains.num_fri_rounds() + 2);
    }
}

//! The stages on the CPU: reference for every other machine, and a prover of its own where none is at hand.
//!
//! All eight cosets of both tables stay in memory (about 54 KiB a row of trace), which keeps each stage a plain call of
//! its module. Work is spread over rayon's current thread pool.

use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, Digest, XFieldElement};
use triton_vm::table::{NUM_QUOTIENT_SEGMENTS, NUM_RANDOMIZED_QUOTIENT_SEGMENTS};

use crate::domain::{Domains, NUM_COSETS};
use crate::error::ProtocolError;
use crate::field::X_ZERO;
use crate::fri::Round;
use crate::lde::{self, Element};
use crate::main_table::MainTable;
use crate::matrix::Matrix;
use crate::merkle::Tree;
use crate::randomness::RandomStreams;
use crate::stages::{
    CombinationValues, CombinationWeights, FriOpening, FriQuery, OutOfDomainPoints, OutOfDomainRows, RowOpenings, RowQuery,
    Stages,
};
use crate::{aux_table, deep, fri, open, out_of_domain, quotient, row_hash};

/// The CPU's implementation of [`Stages`].
#[derive(Debug, Default)]
pub struct CpuStages {
    domains: Option<Domains>,
    /// Values of all 379 main columns on the trace domain, needed until the auxiliary table is extended.
    main_trace: Option<Matrix<BFieldElement>>,
    challenges: Option<Challenges>,
    main: Option<Committed<BFieldElement>>,
    aux: Option<Committed<XFieldElement>>,
    quotient: Option<Quotient>,
    fri: Vec<Round>,
}

/// A table and its commitment.
#[derive(Debug)]
struct Committed<T> {
    /// Coefficients of the columns' interpolants on the trace domain.
    coefficients: Matrix<T>,
    randomizers: Vec<Vec<T>>,
    cosets: [Matrix<T>; NUM_COSETS],
    tree: Tree,
}

/// The randomized segments of the quotient and their commitment.
#[derive(Debug)]
struct Quotient {
    segments: [Vec<XFieldElement>; NUM_RANDOMIZED_QUOTIENT_SEGMENTS],
    /// Their values on the FRI domain.
    values: Matrix<XFieldElement>,
    tree: Tree,
}

impl<T: Element + twenty_first::tip5::ColumnElement> Committed<T> {
    fn new(domains: &Domains, trace: &Matrix<T>, randomizers: Vec<Vec<T>>) -> Self {
        let coefficients = lde::interpolate(trace);
        let slices: Vec<_> = randomizers.iter().map(Vec::as_slice).collect();
        let cosets: [_; NUM_COSETS] = std::array::from_fn(|coset| lde::extend_coset(domains, coset, &coefficients, &slices));
        let tree = Tree::new(&row_hash::hash_rows_of_cosets(&cosets));
        Self { coefficients, randomizers, cosets, tree }
    }
}

impl<T> Committed<T> {
    fn randomizers(&self) -> Vec<&[T]> {
        self.randomizers.iter().map(Vec::as_slice).collect()
    }
}

/// A stage was called before the one it builds on.
const OUT_OF_ORDER: ProtocolError = ProtocolError::Internal("a stage was called before the stage it needs");

impl CpuStages {
    /// A machine without any proof in it.
    pub fn new() -> Self {
        Self::default()
    }

    fn domains(&self) -> Result<Domains, ProtocolError> {
        self.domains.ok_or(OUT_OF_ORDER)
    }

    fn tables(&self) -> Result<(&Committed<BFieldElement>, &Committed<XFieldElement>), ProtocolError> {
        self.main.as_ref().zip(self.aux.as_ref()).ok_or(OUT_OF_ORDER)
    }

    fn quotient(&self) -> Result<&Quotient, ProtocolError> {
        self.quotient.as_ref().ok_or(OUT_OF_ORDER)
    }

    fn push_fri_round(&mut self, codeword: Vec<XFieldElement>) -> Digest {
        let round = Round::new(codeword);
        let root = round.tree.root();
        self.fri.push(round);
        root
    }
}

impl Stages for CpuStages {
    type Error = ProtocolError;

    fn begin(&mut self, domains: &Domains) -> Result<(), ProtocolError> {
        *self = Self { domains: Some(*domains), ..Self::default() };
        Ok(())
    }

    fn commit_main(&mut self, main: &MainTable, randomness: &RandomStreams) -> Result<Digest, ProtocolError> {
        let trace = main.with_derived_columns();
        let randomizers = randomness.main_randomizers().iter_columns().map(<[_]>::to_vec).collect();
        let committed = Committed::new(&self.domains()?, &trace, randomizers);
        let root = committed.tree.root();
        self.main_trace = Some(trace);
        self.main = Some(committed);
        Ok(root)
    }

    fn commit_aux(&mut self, challenges: &Challenges, randomness: &RandomStreams) -> Result<Digest, ProtocolError> {
        let domains = self.domains()?;
        let n = domains.trace_length();
        let main_trace = self.main_trace.take().ok_or(OUT_OF_ORDER)?;
        let trace = aux_table::extend(&main_trace, challenges, &randomness.batch_values(n));
        drop(main_trace);
        let mut randomizers: Vec<_> = randomness.aux_randomizers().iter_columns().map(<[_]>::to_vec).collect();
        randomizers.push(randomness.batch_randomizer(n));
        let committed = Committed::new(&domains, &trace, randomizers);
        let root = committed.tree.root();
        self.challenges = Some(challenges.clone());
        self.aux = Some(committed);
        Ok(root)
    }

    fn commit_quotient(&mut self, weights: &[XFieldElement], randomness: &RandomStreams) -> Result<Digest, ProtocolError> {
        let domains = self.domains()?;
        let (main, aux) = self.tables()?;
        let challenges = self.challenges.as_ref().ok_or(OUT_OF_ORDER)?;
        let cosets: [_; NUM_COSETS] = std::array::from_fn(|coset| {
            quotient::codeword_on_coset(&domains, coset, &main.cosets[coset], &aux.cosets[coset], challenges, weights)
        });
        let coefficients = lde::interpolate_on_fri_domain(lde::interleave_cosets(&cosets));
        let segments = quotient::randomize(quotient::segments(&coefficients), randomness.quotient_randomizer());
        let values = quotient::evaluate_segments(&domains, &segments);
        let tree = Tree::new(&row_hash::hash_rows(&values));
        let root = tree.root();
        self.quotient = Some(Quotient { segments, values, tree });
        Ok(root)
    }

    fn out_of_domain(&mut self, points: &OutOfDomainPoints) -> Result<OutOfDomainRows, ProtocolError> {
        let domains = self.domains()?;
        let (main, aux) = self.tables()?;
        let quotient = self.quotient()?;
        let main_row =
            |point| open::boxed(out_of_domain::evaluate_columns(&domains, &main.coefficients, &main.randomizers(), point));
        let aux_row =
            |point| open::boxed(out_of_domain::evaluate_columns(&domains, &aux.coefficients, &aux.randomizers(), point));
        let segments =
            |first: usize, point| std::array::from_fn(|i| out_of_domain::evaluate(&quotient.segments[first + i], point));
        const { assert!(NUM_QUOTIENT_SEGMENTS + 1 == NUM_RANDOMIZED_QUOTIENT_SEGMENTS) }
        Ok(OutOfDomainRows {
            main: main_row(points.current)?,
            aux: aux_row(points.current)?,
            next_main: main_row(points.next)?,
            next_aux: aux_row(points.next)?,
            segments: segments(0, points.segments),
            shifted_segments: segments(1, points.shifted_segments),
        })
    }

    fn commit_deep(
        &mut self,
        points: &OutOfDomainPoints,
        values: &CombinationValues,
        weights: &CombinationWeights,
    ) -> Result<Digest, ProtocolError> {
        let domains = self.domains()?;
        let (main, aux) = self.tables()?;
        let mut table = vec![X_ZERO; 2 * domains.trace_length()];
        deep::add_weighted_columns(&mut table, &main.coefficients, &main.randomizers(), &weights.main);
        deep::add_weighted_columns(&mut table, &aux.coefficients, &aux.randomizers(), &weights.aux);
        let [segments, shifted] = deep::combine_segments(&self.quotient()?.segments, &weights.segments);
        let [table, segments, shifted] =
            [table, segments, shifted].map(|coefficients| lde::evaluate_on_fri_domain(&domains, &coefficients));
        let codeword = deep::codeword(&domains, [&table, &segments, &shifted], points, values, &weights.deep);
        Ok(self.push_fri_round(codeword))
    }

    fn fri_fold(&mut self, challenge: XFieldElement) -> Result<Digest, ProtocolError> {
        let round = self.fri.len().checked_sub(1).ok_or(OUT_OF_ORDER)?;
        let folded = fri::fold(&self.fri[round].codeword, round, challenge);
        Ok(self.push_fri_round(folded))
    }

    fn fri_last_codeword(&mut self) -> Result<Vec<XFieldElement>, ProtocolError> {
        self.fri.last().map(|round| round.codeword.clone()).ok_or(OUT_OF_ORDER)
    }

    fn open_fri(&mut self, queries: &[FriQuery]) -> Result<Vec<FriOpening>, ProtocolError> {
        let open = |query: &FriQuery| {
            let round = self.fri.get(query.round).ok_or(OUT_OF_ORDER)?;
            Ok(FriOpening {
                values: query.indices.iter().map(|&index| round.codeword[index]).collect(),
                nodes: round.tree.gather(&query.nodes),
            })
        };
        queries.iter().map(open).collect()
    }

    fn open_rows(&mut self, query: &RowQuery) -> Result<RowOpenings, ProtocolError> {
        let (main, aux) = self.tables()?;
        let quotient = self.quotient()?;
        let rows = || query.rows.iter().copied();
        Ok(RowOpenings {
            main: rows().map(|row| open::row_of_cosets(&main.cosets, row)).collect::<Result<_, _>>()?,
            aux: rows().map(|row| open::row_of_cosets(&aux.cosets, row)).collect::<Result<_, _>>()?,
            quotient: rows().map(|row| open::fixed_width(&quotient.values.row(row))).collect::<Result<_, _>>()?,
            main_nodes: main.tree.gather(&query.nodes),
            aux_nodes: aux.tree.gather(&query.nodes),
            quotient_nodes: quotient.tree.gather(&query.nodes),
        })
    }
}

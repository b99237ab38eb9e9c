//! Out-of-domain evaluation, linear combination, the DEEP codeword and FRI on the device.

use triton_vm::prelude::{BFieldElement, Digest, XFieldElement};
use twenty_first::prelude::ModPowU32;

use super::columns::Columns;
use super::job::{self, AUX_BASE_COLUMNS, BATCH_COLUMN, SEGMENT_COLUMNS};
use super::launch::{Tail, X, args};
use super::stages::Parts;
use crate::domain::{FRI_OFFSET, NUM_COSETS};
use crate::error::{GpuError, ProtocolError};
use crate::matrix::Matrix;
use crate::stages::{
    CombinationValues, CombinationWeights, NUM_AUX_COLUMNS, NUM_MAIN_COLUMNS, OutOfDomainPoints, OutOfDomainRows,
};

/// Entries of the low half of a table of extension field powers: see `reversed_powers`.
const POWER_LOW: usize = 1 << 10;

const X_ZERO: XFieldElement = XFieldElement::new([BFieldElement::new(0); 3]);
const X_ONE: XFieldElement = XFieldElement::new([BFieldElement::new(1), BFieldElement::new(0), BFieldElement::new(0)]);

impl Parts<'_> {
    /// Powers of a point in bit-reversed order into one half of `job.powers`.
    fn powers_of(&self, point: XFieldElement, half: usize) -> Result<Columns, GpuError> {
        let job = &self.job;
        let n = job.domains.trace_length();
        let target = job.powers.part(3 * half, 3);
        let low = powers(X_ONE, point, POWER_LOW);
        let step = low[POWER_LOW - 1] * point;
        let high = powers(X_ONE, step, n.div_ceil(POWER_LOW));
        let low_region = job.scratch.slice(0, 3 * low.len());
        let high_region = job.scratch.slice(3 * low.len(), 3 * high.len());
        self.launcher.upload(low_region, job::extension_words(&low))?;
        self.launcher.upload(high_region, job::extension_words(&high))?;
        self.launcher.launch(
            "reversed_powers",
            &self.kernels.reversed_powers,
            self.launcher.blocks(n, 256),
            256,
            0,
            &mut args![low_region.address(), high_region.address(), n.ilog2(), target.address()],
        )?;
        Ok(target)
    }

    /// Values of base columns of coefficients in the two points whose powers are in `job.powers`.
    fn evaluate(&self, columns: Columns) -> Result<Vec<[XFieldElement; 2]>, GpuError> {
        let rows = columns.rows();
        let chunks = rows.div_ceil(1 << 14).clamp(1, 64);
        let out = self.job.scratch.slice(0, 6 * chunks * columns.columns());
        self.launcher.launch(
            "evaluate_columns",
            &self.kernels.evaluate_columns,
            (chunks as u32, columns.columns() as u32),
            256,
            0,
            &mut args![
                columns.address(),
                columns.stride(),
                rows as u64,
                self.job.powers.part(0, 3).address(),
                self.job.powers.part(3, 3).address(),
                out.address()
            ],
        )?;
        let partial = self.launcher.download(out)?;
        let mut values = vec![[X_ZERO; 2]; columns.columns()];
        for chunk in partial.chunks_exact(6 * columns.columns()) {
            for (value, words) in values.iter_mut().zip(chunk.chunks_exact(6)) {
                value[0] += job::extension(&words[..3]);
                value[1] += job::extension(&words[3..]);
            }
        }
        Ok(values)
    }

    pub(super) fn out_of_domain(&self, points: &OutOfDomainPoints) -> Result<OutOfDomainRows, GpuError> {
        let job = &self.job;
        let n = job.domains.trace_length() as u32;
        let missing = || ProtocolError::Internal("out of domain before the tables");
        let main_randomizers = job.main_randomizers.as_ref().ok_or_else(missing)?;
        let aux_randomizers = job.aux_randomizers.as_ref().ok_or_else(missing)?;

        self.powers_of(points.current, 0)?;
        self.powers_of(points.next, 1)?;
        let main_values = self.evaluate(job.main)?;
        let aux_values: Vec<[XFieldElement; 2]> = self.evaluate(job.aux)?.chunks_exact(3).map(extension_values).collect();
        let (aux_values, batch_randomizer) = aux_values.split_at(NUM_AUX_COLUMNS);

        let table = |which: usize, point: XFieldElement| {
            let zerofier = point.mod_pow_u32(n) - X_ONE;
            let powers = powers(zerofier, point, main_randomizers.rows());
            let main: Vec<XFieldElement> =
                (0..NUM_MAIN_COLUMNS).map(|c| main_values[c][which] + inner_base(main_randomizers, c, &powers)).collect();
            let aux: Vec<XFieldElement> = (0..NUM_AUX_COLUMNS)
                .map(|c| {
                    let randomizer = match c * 3 {
                        BATCH_COLUMN => batch_randomizer[0][which] * zerofier,
                        _ => aux_randomizers.column(c).iter().zip(&powers).map(|(&r, &p)| r * p).sum(),
                    };
                    aux_values[c][which] + randomizer
                })
                .collect();
            (main, aux)
        };
        let (main, aux) = table(0, points.current);
        let (next_main, next_aux) = table(1, points.next);

        self.powers_of(points.segments, 0)?;
        self.powers_of(points.shifted_segments, 1)?;
        let segment_values = self.evaluate(job.segments)?;
        let tails = self.launcher.download(job.segment_tail.region())?;
        let tail_rows = job.segment_tail.rows();
        let segments = |which: usize, point: XFieldElement, first: usize| {
            let powers = powers(point.mod_pow_u32(n), point, tail_rows);
            [0, 1, 2, 3].map(|i| {
                let base = |k: usize| {
                    let column = 3 * (first + i) + k;
                    let tail = &tails[column * tail_rows..(column + 1) * tail_rows];
                    let of_tail: XFieldElement =
                        tail.iter().zip(&powers).map(|(&w, &p)| p * BFieldElement::from_raw_u64(w)).sum();
                    segment_values[column][which] + of_tail
                };
                assemble([base(0), base(1), base(2)])
            })
        };
        let wrong = |_| ProtocolError::Internal("an out-of-domain row of another width than the table");
        let boxed = |row: Vec<XFieldElement>| row.try_into().map_err(wrong);
        let boxed_aux = |row: Vec<XFieldElement>| row.try_into().map_err(wrong);
        Ok(OutOfDomainRows {
            main: Box::new(boxed(main)?),
            aux: Box::new(boxed_aux(aux)?),
            next_main: Box::new(boxed(next_main)?),
            next_aux: Box::new(boxed_aux(next_aux)?),
            segments: segments(0, points.segments, 0),
            shifted_segments: segments(1, points.shifted_segments, 1),
        })
    }

    pub(super) fn commit_deep(
        &mut self,
        points: &OutOfDomainPoints,
        values: &CombinationValues,
        weights: &CombinationWeights,
    ) -> Result<Digest, GpuError> {
        self.combine_tables(weights)?;
        self.combine_segments(weights)?;
        let job = &self.job;
        let round = job.rounds[0];
        let n = job.domains.trace_length();
        let deep = Deep {
            points: [points.current, points.next, points.segments, points.shifted_segments].map(X::from),
            values: [values.current, values.next, values.segments, values.shifted_segments].map(X::from),
            weights: weights.deep.map(X::from),
        };
        let all = job.combination_values;
        let (table, segments) = (all.part(0, 3), all.part(3, 6));
        for coset in 0..NUM_COSETS {
            let zerofier = job.domains.coset_zerofier(coset);
            self.add_scaled(job.combination.part(0, 3), zerofier, job.combination_tail, table)?;
            job.ntt.evaluate(&self.launcher, self.kernels, table, table, coset, Tail::NONE)?;
            let tail = Tail::of(job.combined_segment_tail, zerofier + BFieldElement::new(1));
            job.ntt.evaluate(&self.launcher, self.kernels, job.combination.part(3, 6), segments, coset, tail)?;
            let out = round.codeword.slice(coset * n, n);
            self.launcher.launch(
                "deep_codeword",
                &self.kernels.deep_codeword,
                self.launcher.blocks(n, 128),
                128,
                0,
                &mut args![
                    all.address(),
                    n as u64,
                    deep,
                    job.domains.coset_offset(coset).raw_u64(),
                    job.ntt.roots.low.address(),
                    job.ntt.roots.high.address(),
                    out.address(),
                    round.length as u64
                ],
            )?;
        }
        self.job.newest_round = 0;
        self.commit_round(0)
    }

    /// W as coefficients below n and, separately, the factor of the zerofier.
    fn combine_tables(&self, weights: &CombinationWeights) -> Result<(), GpuError> {
        let job = &self.job;
        let missing = || ProtocolError::Internal("a combination before the tables");
        let main_randomizers = job.main_randomizers.as_ref().ok_or_else(missing)?;
        let aux_randomizers = job.aux_randomizers.as_ref().ok_or_else(missing)?;
        let all: Vec<XFieldElement> = weights.main.iter().chain(&weights.aux).copied().collect();
        self.combine(Some(job.main), job.aux.part(0, AUX_BASE_COLUMNS), &all, job.combination.part(0, 3))?;

        // The batch randomizer's randomizer on the device, the 105 coefficients of all others from the host.
        self.combine(None, job.aux.part(AUX_BASE_COLUMNS, 3), &weights.aux[NUM_AUX_COLUMNS - 1..], job.combination_tail)?;
        let mut short = vec![X_ZERO; main_randomizers.rows()];
        for (column, &weight) in main_randomizers.iter_columns().zip(&weights.main) {
            for (sum, &r) in short.iter_mut().zip(column) {
                *sum += weight * r;
            }
        }
        for (column, &weight) in aux_randomizers.iter_columns().zip(&weights.aux) {
            for (sum, &r) in short.iter_mut().zip(column) {
                *sum += weight * r;
            }
        }
        let terms = job.scratch.slice(0, 3 * short.len());
        self.launcher.upload(terms, job::extension_words(&short))?;
        self.launcher.launch(
            "add_at_reversed",
            &self.kernels.add_at_reversed,
            (1, 1),
            128,
            0,
            &mut args![
                terms.address(),
                short.len() as u32,
                job.combination_tail.address(),
                job.combination_tail.stride(),
                job.combination_tail.rows().ilog2()
            ],
        )
    }

    /// P and R: the segments with weights 0..4 and 1..5, coefficients and tails.
    fn combine_segments(&self, weights: &CombinationWeights) -> Result<(), GpuError> {
        let job = &self.job;
        for (which, first) in [(0, 0), (1, 1)] {
            let columns = 3 * first..3 * first + 12;
            let part = |c: Columns| c.part(columns.start, columns.len());
            let weights = &weights.segments[first..first + 4];
            self.combine(None, part(job.segments), weights, job.combination.part(3 + 3 * which, 3))?;
            self.combine(None, part(job.segment_tail), weights, job.combined_segment_tail.part(3 * which, 3))?;
        }
        debug_assert_eq!(job.segments.columns(), SEGMENT_COLUMNS);
        Ok(())
    }

    fn commit_round(&self, index: usize) -> Result<Digest, GpuError> {
        let round = self.job.rounds[index];
        let leaves = round.tree.nodes.slice(5 * round.length, 5 * round.length);
        self.launcher.launch(
            "fri_leaves",
            &self.kernels.fri_leaves,
            self.launcher.blocks(round.length, 256),
            256,
            0,
            &mut args![round.codeword.address(), round.length as u64, (round.length / NUM_COSETS) as u64, leaves.address()],
        )?;
        self.build_tree(round.tree)
    }

    pub(super) fn fri_fold(&mut self, challenge: XFieldElement) -> Result<Digest, GpuError> {
        let job = &self.job;
        let index = job.newest_round;
        let (Some(&from), Some(&to)) = (job.rounds.get(index), job.rounds.get(index + 1)) else {
            return Err(ProtocolError::Internal("more FRI rounds than there are").into());
        };
        let half = BFieldElement::new(2).inverse();
        let offset_inverse = FRI_OFFSET.mod_pow(1 << index).inverse();
        self.launcher.launch(
            "fri_fold",
            &self.kernels.fri_fold,
            self.launcher.blocks(to.length, 256),
            256,
            0,
            &mut args![
                from.codeword.address(),
                from.length as u64,
                (to.length / NUM_COSETS) as u64,
                X::from(challenge * half),
                half.raw_u64(),
                offset_inverse.raw_u64(),
                1_u64 << index,
                job.inverse_points.low.address(),
                job.inverse_points.high.address(),
                to.codeword.address(),
                to.length as u64
            ],
        )?;
        self.job.newest_round = index + 1;
        self.commit_round(index + 1)
    }
}

/// What `deep_codeword` needs besides the codewords: see `Deep` in `fri.cu`.
#[repr(C)]
struct Deep {
    points: [X; 4],
    values: [X; 4],
    weights: [X; 4],
}

/// `factor, factor base, factor base^2, ..`: `length` of them.
fn powers(factor: XFieldElement, base: XFieldElement, length: usize) -> Vec<XFieldElement> {
    std::iter::successors(Some(factor), |&power| Some(power * base)).take(length).collect()
}

fn inner_base(randomizers: &Matrix<BFieldElement>, column: usize, powers: &[XFieldElement]) -> XFieldElement {
    randomizers.column(column).iter().zip(powers).map(|(&r, &p)| p * r).sum()
}

/// The value of `f_0 + f_1 X + f_2 X^2` for base polynomials' values in an extension field point.
fn assemble(values: [XFieldElement; 3]) -> XFieldElement {
    let one = BFieldElement::new(1);
    let zero = BFieldElement::new(0);
    values[0] + values[1] * XFieldElement::new([zero, one, zero]) + values[2] * XFieldElement::new([zero, zero, one])
}

fn extension_values(values: &[[XFieldElement; 2]]) -> [XFieldElement; 2] {
    [0, 1].map(|which| assemble([values[0][which], values[1][which], values[2][which]]))
}

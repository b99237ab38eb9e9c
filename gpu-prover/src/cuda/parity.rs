//! Every kernel against the CPU, on the device that is there. `gpu-test` runs these; they draw fresh random inputs each
//! time, and leave memory full of the test before.

use ndarray::{ArrayView1, ArrayViewMut2, ShapeBuilder};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, Claim, Digest, Program, Tip5, XFieldElement};
use triton_vm::table::auxiliary_table::Evaluable;
use triton_vm::table::degree_lowering::DegreeLoweringTable;
use triton_vm::table::master_table::MasterAuxTable;
use triton_vm::twenty_first::math::ntt::intt;
use twenty_first::prelude::MerkleTree;

use super::air::{self, Kind};
use super::columns::Columns;
use super::job::{self, AUX_BASE_COLUMNS, words};
use super::launch::Tail;
use super::stages::{CudaStages, Parts};
use crate::domain::{Domains, NUM_COSETS, NUM_TRACE_RANDOMIZERS};
use crate::error::GpuError;
use crate::main_table::MainTable;
use crate::matrix::Matrix;
use crate::plan::Plan;
use crate::stages::{
    NUM_AUX_COLUMNS, NUM_CONSTRAINTS, NUM_MAIN_COLUMNS, NUM_ORIGINAL_AUX_COLUMNS, NUM_ORIGINAL_MAIN_COLUMNS, Stages,
};
use crate::workloads;

/// What one check found: `Err` says where device and CPU differ first.
pub type Outcome = Result<(), String>;

/// Rows that are compared where all of them would take the CPU too long.
const SAMPLED_ROWS: usize = 64;

/// Runs all kernel checks, the transforms at each of these lengths, and reports each.
///
/// # Errors
/// If the device fails; differences are reported.
pub fn kernels(
    stages: &mut CudaStages,
    log2_lengths: &[u32],
    seed: u64,
    report: &mut dyn FnMut(&str, Outcome),
) -> Result<(), GpuError> {
    let mut rng = StdRng::seed_from_u64(seed);
    for &log2 in log2_lengths {
        let mut parts = begin(stages, log2)?;
        report(&format!("interpolation and evaluation, 2^{log2}"), transforms(&mut parts, &mut rng)?);
    }
    let mut parts = begin(stages, 10)?;
    for width in [NUM_MAIN_COLUMNS, AUX_BASE_COLUMNS, 15, 10, 9] {
        report(&format!("row hash of {width} columns"), row_hash(&mut parts, width, &mut rng)?);
    }
    report("Merkle tree", merkle_tree(&mut parts)?);
    report("derived main columns", derived_main_columns(&mut parts, &mut rng)?);
    report("extension", extension(stages, &mut rng)?);
    let mut parts = begin(stages, 10)?;
    report("derived auxiliary columns", derived_aux_columns(&mut parts, &mut rng)?);
    for kind in Kind::ALL {
        report(&format!("{kind:?} constraints"), constraints(&mut parts, kind, &mut rng)?);
    }
    Ok(())
}

fn begin(stages: &mut CudaStages, log2: u32) -> Result<Parts<'_>, GpuError> {
    let before = stages.plan_override();
    stages.set_plan(Some(Plan::CosetByCoset));
    let begun = stages.begin(&Domains::new(1 << log2)?);
    stages.set_plan(before);
    begun?;
    stages.parts()
}

fn random_columns(rng: &mut StdRng, rows: usize, columns: usize) -> Matrix<BFieldElement> {
    let edge = [0, 1, BFieldElement::MAX, u64::from(u32::MAX), 1 << 32].map(BFieldElement::from_raw_u64);
    let seeds: Vec<u64> = (0..columns).map(|_| rng.random()).collect();
    let data = seeds.into_par_iter().flat_map_iter(|seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        // One element in sixteen is on the edge of the representation.
        (0..rows).map(move |_| match rng.random_range(0..16 * edge.len()) {
            i if i < edge.len() => edge[i],
            _ => rng.random(),
        })
    });
    Matrix::from_column_major(rows, data.collect()).expect("whole columns")
}

fn random_challenges(rng: &mut StdRng) -> Challenges {
    let samples = (0..Challenges::SAMPLE_COUNT).map(|_| rng.random()).collect();
    Challenges::new(samples, &Claim::about_program(&Program::new(&[])))
}

fn compare(name: &str, ours: &[u64], theirs: impl ExactSizeIterator<Item = u64>) -> Outcome {
    assert_eq!(ours.len(), theirs.len(), "{name}: compared with another length");
    match ours.iter().zip(theirs).position(|(&a, b)| a != b) {
        None => Ok(()),
        Some(i) => Err(format!("{name} differs, first at element {i} of {}", ours.len())),
    }
}

fn transforms(parts: &mut Parts, rng: &mut StdRng) -> Result<Outcome, GpuError> {
    let n = parts.job.domains.trace_length();
    let columns = if n > 1 << 16 { 3 } else { 19 };
    let values = random_columns(rng, n, columns);
    let randomizers = random_columns(rng, NUM_TRACE_RANDOMIZERS, columns);
    let (source, target) = (parts.job.main_values.part(0, columns), parts.job.main.part(0, columns));
    parts.launcher.upload(source.region(), words(values.as_slice()))?;
    let tails = parts.job.main_tail.part(0, columns);
    parts.launcher.upload(tails.region(), words(randomizers.as_slice()))?;
    parts.job.ntt.interpolate_trace(&parts.launcher, parts.kernels, source, target)?;
    let got = parts.launcher.download(target.region())?;

    let mut coefficients = values.clone();
    coefficients.par_columns_mut().for_each(intt);
    let reversed = |i: usize| i.reverse_bits() >> (usize::BITS - n.ilog2());
    for (c, column) in coefficients.iter_columns().enumerate() {
        let expected = (0..n).map(|p| column[reversed(p)].raw_u64());
        if let Err(error) = compare(&format!("column {c} of coefficients"), &got[c * n..(c + 1) * n], expected) {
            return Ok(Err(error));
        }
    }
    for coset in 0..NUM_COSETS {
        let out = parts.job.buffer(coset).main.part(0, columns);
        let tail = Tail::of(tails, parts.job.domains.coset_zerofier(coset));
        parts.job.ntt.evaluate(&parts.launcher, parts.kernels, target, out, coset, tail)?;
        let got = parts.launcher.download(out.region())?;
        let by_column: Vec<&[BFieldElement]> = randomizers.iter_columns().collect();
        let expected = crate::lde::extend_coset(&parts.job.domains, coset, &coefficients, &by_column);
        let expected = expected.as_slice().iter().map(BFieldElement::raw_u64);
        if let Err(error) = compare(&format!("coset {coset}"), &got, expected) {
            return Ok(Err(error));
        }
    }
    // And back: modulo X^n - g^n, a coefficient of the randomizer folds onto two places.
    let coset = 5;
    let out = parts.job.buffer(coset).main.part(0, columns);
    let tail = Tail::of(tails, parts.job.domains.coset_zerofier(coset));
    parts.job.ntt.evaluate(&parts.launcher, parts.kernels, target, out, coset, tail)?;
    parts.job.ntt.interpolate_coset(&parts.launcher, parts.kernels, out, coset)?;
    let got = parts.launcher.download(out.region())?;
    let zerofier = parts.job.domains.coset_zerofier(coset);
    for c in 0..columns {
        let expected = (0..n).map(|p| {
            let i = reversed(p);
            let randomizer = randomizers.column(c).get(i).map_or(BFieldElement::new(0), |&r| r * zerofier);
            (coefficients.column(c)[i] + randomizer).raw_u64()
        });
        if let Err(error) = compare(&format!("residue {c}"), &got[c * n..(c + 1) * n], expected) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn row_hash(parts: &mut Parts, width: usize, rng: &mut StdRng) -> Result<Outcome, GpuError> {
    let n = parts.job.domains.trace_length();
    let tree = parts.job.main_tree;
    for coset in 0..NUM_COSETS {
        let values = random_columns(rng, n, width);
        let columns = parts.job.main_values.part(0, width);
        parts.launcher.upload(columns.region(), words(values.as_slice()))?;
        parts.hash_rows(columns, tree, coset)?;
        let leaves = parts.launcher.download(tree.nodes.slice(5 * tree.leaves, 5 * tree.leaves))?;
        let wrong = (0..n).into_par_iter().find_first(|&row| {
            let expected = Tip5::hash_varlen(&values.row(row)).values().map(|v| v.raw_u64());
            leaves[5 * (NUM_COSETS * row + coset)..][..5] != expected
        });
        if let Some(row) = wrong {
            return Ok(Err(format!("coset {coset}: the digest of row {row} differs")));
        }
    }
    Ok(Ok(()))
}

fn merkle_tree(parts: &mut Parts) -> Result<Outcome, GpuError> {
    let tree = parts.job.main_tree;
    let digests = |words: &[u64]| -> Vec<Digest> {
        let digest = |w: &[u64]| Digest::new(std::array::from_fn(|i| BFieldElement::from_raw_u64(w[i])));
        words.chunks_exact(5).map(digest).collect()
    };
    let leaves = digests(&parts.launcher.download(tree.nodes.slice(5 * tree.leaves, 5 * tree.leaves))?);
    let root = parts.build_tree(tree)?;
    let Ok(expected) = MerkleTree::par_new(&leaves) else { return Ok(Err("the CPU builds no tree".into())) };
    Ok(if root == expected.root() { Ok(()) } else { Err("the roots differ".into()) })
}

fn derived_main_columns(parts: &mut Parts, rng: &mut StdRng) -> Result<Outcome, GpuError> {
    let n = parts.job.domains.trace_length();
    let mut expected = random_columns(rng, n, NUM_ORIGINAL_MAIN_COLUMNS);
    let original = parts.job.main_values.part(0, NUM_ORIGINAL_MAIN_COLUMNS);
    parts.launcher.upload(original.region(), words(expected.as_slice()))?;
    parts.derive_main_columns()?;
    expected.widen(NUM_MAIN_COLUMNS, BFieldElement::new(0));
    DegreeLoweringTable::fill_derived_main_columns(expected.view_mut());
    let got = parts.launcher.download(parts.job.main_values.region())?;
    for (c, column) in expected.iter_columns().enumerate() {
        let column = column.iter().map(BFieldElement::raw_u64);
        if let Err(error) = compare(&format!("column {c}"), &got[c * n..(c + 1) * n], column) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// The linked columns of real executions: only there do all tables have rows.
fn extension(stages: &mut CudaStages, rng: &mut StdRng) -> Result<Outcome, GpuError> {
    for workload in workloads::small() {
        let Ok((_, aet)) = workload.trace() else { return Ok(Err(format!("{} does not run", workload.name))) };
        let main = MainTable::from_aet(&aet)?;
        let n = main.domains().trace_length();
        let parts = begin(stages, n.ilog2())?;
        let challenges = random_challenges(rng);
        let original = parts.job.main_values.part(0, NUM_ORIGINAL_MAIN_COLUMNS);
        parts.launcher.upload(original.region(), words(main.columns().as_slice()))?;
        let aux = parts.job.aux;
        parts.extend(parts.job.main_values, aux, &challenges, parts.job.buffer(0).aux.region())?;
        let got = parts.launcher.download(aux.part(0, 3 * NUM_ORIGINAL_AUX_COLUMNS).region())?;
        let zero = XFieldElement::new([BFieldElement::new(0); 3]);
        let mut expected = Matrix::filled(n, NUM_ORIGINAL_AUX_COLUMNS, zero);
        crate::aux_table::extend_original_columns(main.columns(), &challenges, &mut expected);
        let expected = job::base_columns(&expected);
        for c in 0..3 * NUM_ORIGINAL_AUX_COLUMNS {
            let range = c * n..(c + 1) * n;
            let name = format!("{}: coefficient {} of column {}", workload.name, c % 3, c / 3);
            if let Err(error) = compare(&name, &got[range.clone()], expected[range].iter().copied()) {
                return Ok(Err(error));
            }
        }
    }
    Ok(Ok(()))
}

/// Uploads random tables as `main` and `aux`, and gives them back as the CPU has them.
fn random_tables(
    parts: &Parts,
    main: Columns,
    aux: Columns,
    rng: &mut StdRng,
) -> Result<(Matrix<BFieldElement>, Matrix<XFieldElement>), GpuError> {
    let n = parts.job.domains.trace_length();
    let main_values = random_columns(rng, n, NUM_MAIN_COLUMNS);
    let base = random_columns(rng, n, AUX_BASE_COLUMNS);
    parts.launcher.upload(main.region(), words(main_values.as_slice()))?;
    parts.launcher.upload(aux.region(), words(base.as_slice()))?;
    let element = |c: usize, r: usize| XFieldElement::new([0, 1, 2].map(|k| base.column(3 * c + k)[r]));
    let data = (0..NUM_AUX_COLUMNS).flat_map(|c| (0..n).map(move |r| element(c, r))).collect();
    Ok((main_values, Matrix::from_column_major(n, data).expect("whole columns")))
}

fn derived_aux_columns(parts: &mut Parts, rng: &mut StdRng) -> Result<Outcome, GpuError> {
    let n = parts.job.domains.trace_length();
    let aux = parts.job.aux.part(0, AUX_BASE_COLUMNS);
    let (main_values, mut expected) = random_tables(parts, parts.job.main_values, aux, rng)?;
    let challenges = random_challenges(rng);
    parts.derive_aux_columns(&challenges)?;
    let first = NUM_ORIGINAL_AUX_COLUMNS;
    for c in first..NUM_AUX_COLUMNS - 1 {
        expected.column_mut(c).fill(XFieldElement::new([BFieldElement::new(0); 3]));
    }
    let view: ArrayViewMut2<XFieldElement> =
        ArrayViewMut2::from_shape((n, NUM_AUX_COLUMNS).f(), expected.as_mut_slice()).expect("the matrix' own shape");
    DegreeLoweringTable::fill_derived_aux_columns(main_values.view(), view, &challenges);
    let got = parts.launcher.download(aux.region())?;
    let expected = job::base_columns(&expected);
    for c in 0..AUX_BASE_COLUMNS {
        let range = c * n..(c + 1) * n;
        if let Err(error) = compare(&format!("base column {c}"), &got[range.clone()], expected[range].iter().copied()) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// Values of all constraints of a kind on one row.
fn evaluate(
    kind: Kind,
    main: &Matrix<BFieldElement>,
    aux: &Matrix<XFieldElement>,
    row: usize,
    challenges: &Challenges,
) -> Vec<XFieldElement> {
    type E = MasterAuxTable;
    let next = (row + 1) % main.rows();
    let (main_here, aux_here, main_next, aux_next) = (main.row(row), aux.row(row), main.row(next), aux.row(next));
    let (m, a) = (ArrayView1::from(&main_here), ArrayView1::from(&aux_here));
    match kind {
        Kind::Initial => E::evaluate_initial_constraints(m, a, challenges),
        Kind::Consistency => E::evaluate_consistency_constraints(m, a, challenges),
        Kind::Terminal => E::evaluate_terminal_constraints(m, a, challenges),
        Kind::Transition => {
            E::evaluate_transition_constraints(m, a, ArrayView1::from(&main_next), ArrayView1::from(&aux_next), challenges)
        }
    }
}

fn constraints(parts: &mut Parts, kind: Kind, rng: &mut StdRng) -> Result<Outcome, GpuError> {
    let n = parts.job.domains.trace_length();
    let tables = parts.job.buffer(0);
    let (main, aux) = random_tables(parts, tables.main, tables.aux, rng)?;
    let challenges = random_challenges(rng);
    let first_weight = {
        let counts = [
            MasterAuxTable::NUM_INITIAL_CONSTRAINTS,
            MasterAuxTable::NUM_CONSISTENCY_CONSTRAINTS,
            MasterAuxTable::NUM_TRANSITION_CONSTRAINTS,
        ];
        counts[..kind as usize].iter().sum::<usize>()
    };
    // The last row too: its next row is the first one.
    let rows: Vec<usize> = (0..SAMPLED_ROWS).map(|_| rng.random_range(0..n)).chain([0, n - 1]).collect();
    let values: Vec<_> = rows.par_iter().map(|&row| evaluate(kind, &main, &aux, row, &challenges)).collect();

    let sums = parts.job.sums[0][kind as usize];
    let differs = |weights: &[XFieldElement]| -> Result<Option<usize>, GpuError> {
        air::upload_constants(parts.launcher.device(), &challenges, weights)?;
        parts.kernels.air.sum(&parts.launcher, kind, tables.main, tables.aux, sums)?;
        let got = parts.launcher.download(sums.region())?;
        Ok(rows.iter().zip(&values).find_map(|(&row, values)| {
            let expected: XFieldElement = values.iter().zip(&weights[first_weight..]).map(|(&v, &w)| v * w).sum();
            let expected = expected.coefficients.map(|c| c.raw_u64());
            (expected != [0, 1, 2].map(|k| got[k * n + row])).then_some(row)
        }))
    };
    let weights: Vec<XFieldElement> = (0..NUM_CONSTRAINTS).map(|_| rng.random()).collect();
    let Some(row) = differs(&weights)? else { return Ok(Ok(())) };
    // Which constraints are wrong? One at a time.
    let mut wrong = vec![];
    for index in 0..values[0].len() {
        let mut unit = vec![XFieldElement::new([BFieldElement::new(0); 3]); NUM_CONSTRAINTS];
        unit[first_weight + index] = XFieldElement::from(1_u64);
        if differs(&unit)?.is_some() {
            wrong.push(index);
        }
    }
    Ok(Err(format!("row {row} differs; wrong on their own: {wrong:?}")))
}

/// Device time of one kernel or stage, measured by events.
#[derive(Debug, Clone)]
pub struct Rate {
    /// What ran.
    pub name: String,
    /// Median milliseconds.
    pub milliseconds: f64,
    /// How much of `unit` a second, in thousands of millions.
    pub giga_per_second: f64,
    /// Of what.
    pub unit: &'static str,
}

/// Times the heavy kernels at trace length `2^log2`. Inputs are random field elements.
///
/// # Errors
/// If the device fails.
pub fn rates(stages: &mut CudaStages, log2: u32) -> Result<Vec<Rate>, GpuError> {
    let mut rng = StdRng::seed_from_u64(u64::from(log2));
    let parts = begin(stages, log2)?;
    let n = parts.job.domains.trace_length();
    let tables = parts.job.buffer(0);
    // Random words are canonical field elements but for one in 2^32; no kernel's time depends on that.
    let some = random_columns(&mut rng, n, 8);
    for columns in [parts.job.main_values, parts.job.main, parts.job.aux, tables.main, tables.aux] {
        for first in (0..columns.columns()).step_by(8) {
            let part = columns.part(first, 8.min(columns.columns() - first));
            parts.launcher.upload(part.region(), &words(some.as_slice())[..part.region().len()])?;
        }
    }
    let randomizers = random_columns(&mut rng, NUM_TRACE_RANDOMIZERS, NUM_MAIN_COLUMNS);
    parts.launcher.upload(parts.job.main_tail.region(), words(randomizers.as_slice()))?;
    let challenges = random_challenges(&mut rng);
    let weights: Vec<XFieldElement> = (0..NUM_CONSTRAINTS).map(|_| rng.random()).collect();
    air::upload_constants(parts.launcher.device(), &challenges, &weights)?;

    let mut rates = vec![];
    let mut time = |name: String, unit, amount: f64, work: &dyn Fn() -> Result<(), GpuError>| {
        let milliseconds = parts.launcher.time(7, work)?;
        rates.push(Rate { name, milliseconds, giga_per_second: amount / milliseconds / 1e6, unit });
        Ok::<_, GpuError>(())
    };
    let rows = n as f64;
    time("row hash, 379 columns".into(), "permutations", 38.0 * rows, &|| {
        parts.hash_rows(tables.main, parts.job.main_tree, 0)
    })?;
    time("tree".into(), "permutations", 8.0 * rows, &|| parts.build_tree(parts.job.main_tree).map(drop))?;
    time("interpolate 379 columns".into(), "elements", 379.0 * rows, &|| {
        parts.job.ntt.interpolate_trace(&parts.launcher, parts.kernels, parts.job.main_values, tables.main)
    })?;
    time("evaluate 379 columns".into(), "elements", 379.0 * rows, &|| parts.main_on_coset(1).map(drop))?;
    time("derive main columns".into(), "rows", rows, &|| parts.derive_main_columns())?;
    time("extend all tables".into(), "rows", rows, &|| {
        parts.extend(parts.job.main_values, parts.job.aux, &challenges, tables.aux.region())
    })?;
    time("derive auxiliary columns".into(), "rows", rows, &|| parts.derive_aux_columns(&challenges))?;
    for kind in Kind::ALL {
        let sums = parts.job.sums[0][kind as usize];
        for (index, name) in kind.names().iter().enumerate() {
            time((*name).into(), "rows", rows, &|| {
                parts.kernels.air.sum_one(&parts.launcher, kind, index, tables.main, tables.aux, sums, true)
            })?;
        }
        time(format!("all {kind:?}"), "rows", rows, &|| {
            parts.kernels.air.sum(&parts.launcher, kind, tables.main, tables.aux, sums)
        })?;
    }
    Ok(rates)
}

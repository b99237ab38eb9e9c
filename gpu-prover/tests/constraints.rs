//! The tables that the host fills satisfy the arithmetic: every constraint vanishes on the trace domain.

use gpu_prover::aux_table;
use gpu_prover::main_table::MainTable;
use gpu_prover::matrix::Matrix;
use gpu_prover::randomness;
use gpu_prover::workloads::{self, Workload};
use ndarray::ArrayView1;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, XFieldElement};
use triton_vm::table::auxiliary_table::Evaluable;
use triton_vm::table::master_table::MasterAuxTable;

/// The number of the first constraint of each kind that does not vanish, with the row where.
fn violations(main: &Matrix<BFieldElement>, aux: &Matrix<XFieldElement>, challenges: &Challenges) -> Vec<String> {
    let height = main.rows();
    let rows: Vec<_> = (0..height).map(|row| (main.row(row), aux.row(row))).collect();
    let mut found = vec![];
    let mut check = |kind: &str, row: usize, values: Vec<XFieldElement>| {
        if let Some(constraint) = values.iter().position(|&value| value != 0.into()) {
            found.push(format!("{kind} constraint {constraint} in row {row} of {height}"));
        }
    };
    let view = |row: usize| (ArrayView1::from(&rows[row].0), ArrayView1::from(&rows[row].1));
    let (first_main, first_aux) = view(0);
    let initial = MasterAuxTable::evaluate_initial_constraints(first_main, first_aux, challenges);
    check("initial", 0, initial);
    for row in 0..height {
        let (main, aux) = view(row);
        check("consistency", row, MasterAuxTable::evaluate_consistency_constraints(main, aux, challenges));
        if row + 1 < height {
            let (next_main, next_aux) = view(row + 1);
            let values = MasterAuxTable::evaluate_transition_constraints(main, aux, next_main, next_aux, challenges);
            check("transition", row, values);
        }
    }
    let (last_main, last_aux) = view(height - 1);
    check("terminal", height - 1, MasterAuxTable::evaluate_terminal_constraints(last_main, last_aux, challenges));
    found
}

fn tables(workload: &Workload) -> (Matrix<BFieldElement>, Matrix<XFieldElement>, Challenges) {
    let (claim, aet) = workload.trace().expect("the workload runs");
    let challenges = Challenges::new(randomness::column([21; 32], Challenges::SAMPLE_COUNT), &claim);
    let main = MainTable::from_aet(&aet).expect("a legal height").with_derived_columns();
    let batch = randomness::column([22; 32], main.rows());
    let aux = aux_table::extend(&main, &challenges, &batch);
    (main, aux, challenges)
}

#[test]
fn all_constraints_vanish_on_the_trace_domain() {
    let random = (100..110).map(|seed| workloads::random(seed, 40));
    for workload in workloads::small().into_iter().chain(random) {
        let (main, aux, challenges) = tables(&workload);
        let violations = violations(&main, &aux, &challenges);
        assert!(violations.is_empty(), "{}: {violations:?}", workload.name);
    }
}

#[test]
fn a_wrong_element_violates_a_constraint() {
    let (mut main, aux, challenges) = tables(&workloads::mixed(1));
    // One column of each table, in a row in which the table is not padding.
    for column in [1, 12, 47, 51, 60, 100] {
        let right = main.column(column)[5];
        main.column_mut(column)[5] += BFieldElement::new(1);
        assert!(!violations(&main, &aux, &challenges).is_empty(), "column {column}");
        main.column_mut(column)[5] = right;
    }
    assert!(violations(&main, &aux, &challenges).is_empty());
}

//! The host's own trace gives the tables that the triton-vm crate's trace gives.

use std::ops::ControlFlow;

use gpu_prover::compare::first_difference;
use gpu_prover::cpu::CpuStages;
use gpu_prover::main_table::MainTable;
use gpu_prover::prover::{Unobserved, prove, prove_main_table};
use gpu_prover::randomness::Randomness;
use gpu_prover::trace::Trace;
use gpu_prover::workloads::{self, Workload};
use triton_vm::prelude::BFieldElement;

fn assert_equal_tables(workload: &Workload) {
    let (claim, aet) = workload.trace().expect("the workload runs");
    let trace = Trace::record(workload.state(), |_| ControlFlow::Continue(())).expect("the workload runs");
    assert_eq!(trace.claim(), claim, "{}", workload.name);
    let ours = MainTable::from_trace(&trace).expect("a legal height");
    let theirs = MainTable::from_aet(&aet).expect("a legal height");
    assert_eq!(ours.domains(), theirs.domains(), "{}", workload.name);
    let mut used = ours.columns().as_slice().to_vec();
    for element in &mut used {
        *element += BFieldElement::new(1);
    }
    let again = MainTable::from_trace_in(&trace, used).expect("a legal height");
    assert_eq!(ours, again, "{}: used memory shows through", workload.name);
    for (index, (our, their)) in ours.columns().iter_columns().zip(theirs.columns().iter_columns()).enumerate() {
        let row = our.iter().zip(their).position(|(our, their)| our != their);
        assert_eq!(row, None, "{}: column {index} differs in this row", workload.name);
    }
}

#[test]
fn tables_are_equal_for_small_workloads() {
    for workload in workloads::small() {
        assert_equal_tables(&workload);
    }
}

#[test]
fn tables_are_equal_for_random_programs() {
    for seed in 1000..1060 {
        assert_equal_tables(&workloads::random(seed, 50));
    }
}

#[test]
fn tables_are_equal_for_long_programs() {
    for workload in [workloads::mixed(700), workloads::spin(17), workloads::squeeze(20_000)] {
        assert_equal_tables(&workload);
    }
}

#[test]
fn proofs_from_both_traces_are_equal() {
    let workload = workloads::mixed(1);
    let (claim, aet) = workload.trace().expect("the workload runs");
    let trace = Trace::record(workload.state(), |_| ControlFlow::Continue(())).expect("the workload runs");
    let main = MainTable::from_trace(&trace).expect("a legal height");
    let randomness = Randomness::Seed([5; 32]);
    let mut stages = CpuStages::new();
    let from_ours = prove_main_table(&mut stages, &claim, &main, randomness, &mut Unobserved).expect("it proves");
    let from_theirs = prove(&mut stages, &claim, &aet, randomness, &mut Unobserved).expect("it proves");
    assert_eq!(first_difference(&from_ours, &from_theirs), None);
}

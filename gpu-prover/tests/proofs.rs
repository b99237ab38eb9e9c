//! Whole proofs of the CPU stages against the triton-vm crate.

use gpu_prover::compare::first_difference;
use gpu_prover::cpu::CpuStages;
use gpu_prover::prover::{Stage, Unobserved, prove};
use gpu_prover::randomness::Randomness;
use gpu_prover::workloads::{self, Workload};
use std::ops::ControlFlow;
use triton_vm::prelude::{Prover, Stark};

const SEED: [u8; 32] = *b"a seed that is good for tests on";

/// Prove with the crate and with the CPU stages, with equal seeds; returns the padded height.
fn assert_byte_identical(workload: &Workload) -> usize {
    let (claim, aet) = workload.trace().expect("the workload runs");
    let theirs = Prover::new(Stark::default())
        .set_randomness_seed_which_may_break_zero_knowledge(SEED)
        .prove(&claim, &aet)
        .expect("the crate proves it");
    let ours =
        prove(&mut CpuStages::new(), &claim, &aet, Randomness::Seed(SEED), &mut Unobserved).expect("the CPU stages prove it");
    if let Some(difference) = first_difference(&ours, &theirs) {
        panic!("{}: {difference}", workload.name);
    }
    aet.padded_height()
}

#[test]
fn proofs_are_byte_identical_to_the_crates() {
    let mut heights = vec![];
    for workload in workloads::small() {
        heights.push(assert_byte_identical(&workload));
    }
    for height in [1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12] {
        assert!(heights.contains(&height), "no workload of padded height {height} among {heights:?}");
    }
}

#[test]
#[ignore = "takes minutes"]
fn proofs_of_2_to_the_15_are_byte_identical() {
    assert_eq!(assert_byte_identical(&workloads::mixed(80)), 1 << 15);
    assert_eq!(assert_byte_identical(&workloads::spin(15)), 1 << 15);
}

#[test]
#[ignore = "takes minutes"]
fn proofs_of_random_programs_are_byte_identical() {
    for seed in 0..50 {
        assert_byte_identical(&workloads::random(seed, 20 + 2 * seed as usize));
    }
}

#[test]
fn proofs_with_fresh_randomness_verify_and_differ() {
    let (claim, aet) = workloads::mixed(1).trace().expect("the workload runs");
    let prove = || prove(&mut CpuStages::new(), &claim, &aet, Randomness::Os, &mut Unobserved).expect("it proves");
    let (first, second) = (prove(), prove());
    assert!(triton_vm::verify(Stark::default(), &claim, &first));
    assert!(triton_vm::verify(Stark::default(), &claim, &second));
    assert_ne!(first, second);
}

#[test]
fn a_proof_for_another_output_does_not_verify() {
    let (claim, aet) = workloads::mixed(1).trace().expect("the workload runs");
    let lie = claim.clone().with_output(vec![17_u64.into()]);
    assert_ne!(claim, lie);
    let proof = prove(&mut CpuStages::new(), &lie, &aet, Randomness::Os, &mut Unobserved).expect("it proves");
    assert!(!triton_vm::verify(Stark::default(), &lie, &proof));
}

#[test]
fn a_claim_about_another_program_is_refused() {
    let (claim, _) = workloads::spin(9).trace().expect("the workload runs");
    let (_, aet) = workloads::mixed(1).trace().expect("the workload runs");
    let error = prove(&mut CpuStages::new(), &claim, &aet, Randomness::Os, &mut Unobserved).expect_err("no match");
    assert!(error.to_string().contains("another program"), "{error}");
}

#[test]
fn the_observer_hears_every_stage_and_can_cancel_at_each() {
    let (claim, aet) = workloads::spin(9).trace().expect("the workload runs");
    let mut stages = CpuStages::new();
    let mut heard = vec![];
    let mut record = |stage: Stage| {
        heard.push(stage);
        ControlFlow::Continue(())
    };
    prove(&mut stages, &claim, &aet, Randomness::Os, &mut record).expect("it proves");
    let domains = gpu_prover::domain::Domains::new(1 << 9).expect("a legal height");
    assert_eq!(heard, Stage::sequence(&domains).collect::<Vec<_>>());

    for last in [Stage::CommitMain, Stage::Deep, Stage::Open] {
        let mut cancel = |stage: Stage| {
            if stage == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let error = prove(&mut stages, &claim, &aet, Randomness::Os, &mut cancel).expect_err("it was cancelled");
        assert!(matches!(error, gpu_prover::error::ProtocolError::Cancelled), "{error}");
    }
}

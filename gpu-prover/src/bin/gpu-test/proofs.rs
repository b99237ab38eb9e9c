//! Whole proofs: byte-identical to the crate's for the same seed, under every kind of plan, and accepted.

use std::time::Instant;

use gpu_prover::compare;
use gpu_prover::cuda::CudaStages;
use gpu_prover::error::GpuError;
use gpu_prover::plan::Plan;
use gpu_prover::prover::{self, Unobserved};
use gpu_prover::randomness::Randomness;
use gpu_prover::workloads::{self, Workload};
use triton_vm::prelude::{Prover, Stark};

use crate::Report;

/// One of each kind.
const PLANS: [Plan; 3] = [Plan::Full, Plan::CachedCosets(3), Plan::CosetByCoset];

/// The crate's example programs and ours at low heights, all plans.
pub fn examples(stages: &mut CudaStages, report: &mut Report) -> Result<(), GpuError> {
    let mut all = workloads::small();
    all.extend((11..=12).map(workloads::spin));
    all.iter().try_for_each(|workload| same_proofs(stages, workload, &PLANS, report))
}

/// Random programs, heights 2^8 to 2^12, the plans in turn.
pub fn random(stages: &mut CudaStages, number: u32, report: &mut Report) -> Result<(), GpuError> {
    (0..number).try_for_each(|i| {
        let plan = PLANS[i as usize % PLANS.len()];
        let snippets = 1 << (i % 6);
        same_proofs(stages, &workloads::random(u64::from(i), snippets), &[plan], report)
    })
}

/// A loop over every instruction at 2^15 and the largest height asked for, all plans.
pub fn mixed(stages: &mut CudaStages, log2: u32, report: &mut Report) -> Result<(), GpuError> {
    for log2 in [15, log2] {
        match mixed_of_height(log2) {
            Some(workload) => same_proofs(stages, &workload, &PLANS, report)?,
            None => report.say(&format!("mixed at 2^{log2}"), Err("no number of iterations has that height".into())),
        }
    }
    Ok(())
}

/// As many iterations as fit into `2^log2` rows of the longest table.
fn mixed_of_height(log2: u32) -> Option<Workload> {
    // An iteration takes 223 rows of the u32 table; of few iterations the cascade table is the longest.
    let mut iterations = (1 << log2) * 9 / 10 / 223;
    while iterations > 0 {
        let workload = workloads::mixed(iterations);
        let (_, aet) = workload.trace().ok()?;
        match aet.padded_height().ilog2() {
            height if height > log2 => iterations = iterations * 3 / 4,
            height => return (height == log2).then_some(workload),
        }
    }
    None
}

fn same_proofs(stages: &mut CudaStages, workload: &Workload, plans: &[Plan], report: &mut Report) -> Result<(), GpuError> {
    let seed = [42; 32];
    let (claim, aet) = match workload.trace() {
        Ok(traced) => traced,
        Err(error) => {
            report.say(&workload.name, Err(format!("the program fails: {error}")));
            return Ok(());
        }
    };
    let log2 = aet.padded_height().ilog2();
    let begin = Instant::now();
    let theirs = Prover::new(Stark::default()).set_randomness_seed_which_may_break_zero_knowledge(seed).prove(&claim, &aet);
    let on_cpu = begin.elapsed().as_secs_f64();
    for &plan in plans {
        stages.set_plan(Some(plan));
        let begin = Instant::now();
        let ours = prover::prove(stages, &claim, &aet, Randomness::Seed(seed), &mut Unobserved);
        let seconds = begin.elapsed().as_secs_f64();
        stages.set_plan(None);
        let ours = ours?;
        let outcome = match &theirs {
            Err(error) => Err(format!("the crate's prover fails: {error}")),
            Ok(theirs) => match compare::first_difference(&ours, theirs) {
                Some(difference) => Err(difference),
                None if !triton_vm::verify(Stark::default(), &claim, &ours) => Err("the proof does not verify".into()),
                None => Ok(()),
            },
        };
        let name = format!("proof of {} (2^{log2}) under {plan:?}: {seconds:.3} s, crate {on_cpu:.2} s", workload.name);
        report.say(&name, outcome);
    }
    Ok(())
}

//! Tables that go to the device while another proof is made there: the proofs are the same, whatever became of the waiting table.

use std::ops::ControlFlow;

use gpu_prover::cuda::{Ahead, CudaStages, Uploader};
use gpu_prover::error::GpuError;
use gpu_prover::main_table::MainTable;
use gpu_prover::prover::{self, Stage, Unobserved};
use gpu_prover::randomness::Randomness;
use gpu_prover::workloads::{self, Workload};
use triton_vm::prelude::{Claim, Proof, Stark};

use crate::{Report, holds};

/// More tables of 2^18 rows, of 312 MB each, than fit on any device.
const MANY: usize = 1000;

struct Job {
    claim: Claim,
    main: MainTable,
    /// The proof without anything ahead.
    proof: Proof,
}

impl Job {
    fn new(stages: &mut CudaStages, workload: &Workload) -> Result<Option<Self>, GpuError> {
        let Ok((claim, aet)) = workload.trace() else { return Ok(None) };
        let main = MainTable::from_aet(&aet)?;
        let mut job = Self { claim, main, proof: Proof(vec![]) };
        job.proof = job.prove(stages, None)?;
        Ok(Some(job))
    }

    fn prove(&self, stages: &mut CudaStages, table: Option<Ahead>) -> Result<Proof, GpuError> {
        stages.expect(table);
        prover::prove_main_table(stages, &self.claim, &self.main, Randomness::Seed([7; 32]), &mut Unobserved)
    }

    /// Proves, and has another table uploaded from the moment on that the device is at work.
    fn prove_beside(
        &self,
        stages: &mut CudaStages,
        uploader: &mut Uploader,
        next: &MainTable,
    ) -> Result<(Proof, Option<Ahead>), GpuError> {
        let (begun, at_work) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let upload = scope.spawn(move || at_work.recv().map_or(Ok(None), |()| uploader.upload(next)));
            let mut observer = |stage| {
                if stage == Stage::CommitAux {
                    // The other thread may have ended already; what it did shows in its result.
                    let _ = begun.send(());
                }
                ControlFlow::Continue(())
            };
            let proof = prover::prove_main_table(stages, &self.claim, &self.main, Randomness::Seed([7; 32]), &mut observer);
            drop(begun);
            match upload.join() {
                Ok(ahead) => Ok((proof?, ahead?)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// All checks.
pub fn all(stages: &mut CudaStages, report: &mut Report) -> Result<(), GpuError> {
    let [large, small, other] = [workloads::spin(18), workloads::spin(14), workloads::mixed(20)]
        .each_ref()
        .map(|workload| Job::new(stages, workload).transpose());
    let (Some(large), Some(small), Some(other)) = (large.transpose()?, small.transpose()?, other.transpose()?) else {
        report.say("tables ahead", Err("a workload fails".into()));
        return Ok(());
    };
    let mut uploader = stages.uploader()?;

    let (proof, ahead) = large.prove_beside(stages, &mut uploader, &small.main)?;
    report.say("a proof is the same while a table goes up beside it", holds(proof == large.proof));
    report.say("the table has room", holds(ahead.is_some()));
    let second = uploader.upload(&other.main)?;
    report.say("so has another one beside it", holds(second.is_some()));
    let mut more = vec![];
    while more.len() < MANY
        && let Some(table) = uploader.upload(&large.main)?
    {
        more.push(table);
    }
    report.say("the room ends where the table's own proof will work", holds(more.len() < MANY));
    drop(more);
    let proof = small.prove(stages, ahead)?;
    report.say("a table that was ahead gives the same proof", holds(proof == small.proof));
    report.say("which verifies", holds(triton_vm::verify(Stark::default(), &small.claim, &proof)));
    report.say("the other one's, after it, too", holds(other.prove(stages, second)? == other.proof));

    let (_, ahead) = small.prove_beside(stages, &mut uploader, &other.main)?;
    report.say("another proof in between leaves it or drops it", holds(large.prove(stages, None)? == large.proof));
    report.say("either way its own proof is the same", holds(other.prove(stages, ahead)? == other.proof));

    let ahead = uploader.upload(&other.main)?;
    report.say("nobody waits for a proof under way", holds(ahead.is_some()));
    drop(ahead);
    let again = uploader.upload(&small.main)?;
    report.say("a table that nobody wants any more makes room", holds(again.is_some()));
    report.say("a table of another proof is not taken for one's own", holds(other.prove(stages, again)? == other.proof));
    Ok(())
}

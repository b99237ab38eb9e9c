//! What goes wrong on a device ends in a typed error, or in a proof that does not leave.

use std::ops::ControlFlow;
use std::process::{Command, ExitCode};

use gpu_prover::cuda::{CudaStages, faults};
use gpu_prover::error::{GpuError, ProtocolError};
use gpu_prover::gpu::{Config, GpuProver};
use gpu_prover::main_table::MainTable;
use gpu_prover::plan::Plan;
use gpu_prover::prover::{self, Stage, Unobserved};
use gpu_prover::randomness::Randomness;
use gpu_prover::workloads;
use triton_vm::prelude::Stark;

use crate::{Report, holds};

/// First argument of a process that breaks its context.
const BREAK: &str = "--break-context";

/// All faults. Those that cost the context happen in a process of their own.
pub fn all(stages: &mut CudaStages, report: &mut Report) -> Result<(), GpuError> {
    let (claim, aet) = match workloads::spin(12).trace() {
        Ok(traced) => traced,
        Err(error) => {
            report.say("faults", Err(error.to_string()));
            return Ok(());
        }
    };
    let main = MainTable::from_aet(&aet)?;
    let prove = |stages: &mut CudaStages| {
        let proof = prover::prove_main_table(stages, &claim, &main, Randomness::Os, &mut Unobserved)?;
        Ok::<_, GpuError>(triton_vm::verify(Stark::default(), &claim, &proof))
    };

    // More memory than any device has, then a proof as if nothing had been.
    stages.set_plan(Some(Plan::Full));
    let refused = faults::begin(stages, 27);
    stages.set_plan(None);
    report.say(
        "out of memory is a typed error",
        match refused {
            Err(GpuError::OutOfMemory { .. }) => Ok(()),
            Err(error) => Err(format!("another error: {error}")),
            Ok(()) => Err("memory for 2^27 rows?".into()),
        },
    );
    report.say("and the next proof verifies", holds(prove(stages)?));

    let cancel = &mut |stage| if stage == Stage::CommitQuotient { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let cancelled = prover::prove_main_table(stages, &claim, &main, Randomness::Os, cancel);
    let typed = matches!(cancelled, Err(GpuError::Protocol(ProtocolError::Cancelled)));
    report.say("a cancelled proof stops between stages", holds(typed));
    report.say("and the next proof verifies", holds(prove(stages)?));

    for place in faults::Place::ALL {
        let mut faulty = faults::FlippedBit::new(stages, place);
        let proof = prover::prove_main_table(&mut faulty, &claim, &main, Randomness::Os, &mut Unobserved)?;
        let accepted = triton_vm::verify(Stark::default(), &claim, &proof);
        report.say(&format!("a bit flipped in {place:?} does not verify"), holds(!accepted));
    }
    report.say("and the next proof verifies", holds(prove(stages)?));
    report.say("a kernel that fails is a sticky error", sticky());
    Ok(())
}

/// A process whose kernel writes where nothing is, and that tells what it saw.
fn sticky() -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program).arg(BREAK).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// The other side of [`sticky`], if this process is it.
pub fn child(arguments: &[String]) -> Option<ExitCode> {
    (arguments.first().map(String::as_str) == Some(BREAK)).then(|| match broken_context() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn broken_context() -> Result<(), String> {
    let mut prover = GpuProver::new(Config::default()).map_err(|error| error.to_string())?;
    prover.self_test().map_err(|error| error.to_string())?;
    let error = faults::write_nowhere(prover.stages()).err().ok_or("writing to address 8 worked")?;
    if !error.is_sticky() {
        return Err(format!("not sticky: {error}"));
    }
    match prover.self_test() {
        Err(error) if error.is_sticky() => Ok(()),
        Err(error) => Err(format!("not sticky: {error}")),
        Ok(()) => Err("a proof on a lost context".into()),
    }
}

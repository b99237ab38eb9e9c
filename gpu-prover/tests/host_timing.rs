//! Where the host's time goes before a proof reaches the device. Run with
//! `cargo test --release -p gpu-prover --test host_timing -- --ignored --nocapture`.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use gpu_prover::main_table::MainTable;
use gpu_prover::trace::Trace;
use gpu_prover::workloads::{self, Workload};
use triton_vm::prelude::VM;

/// The fastest of three runs, and the last run's result.
fn time<T>(mut run: impl FnMut() -> T) -> (Duration, T) {
    let mut once = || {
        let start = Instant::now();
        let result = run();
        (start.elapsed(), result)
    };
    let first = once().0.min(once().0);
    let (last, result) = once();
    (first.min(last), result)
}

fn report(workload: &Workload) {
    let (run, _) = time(|| {
        let Workload { program, public_input, non_determinism, .. } = workload.clone();
        VM::run(program, public_input, non_determinism).expect("the workload runs")
    });
    let (crate_trace, (_, aet)) = time(|| workload.trace().expect("the workload runs"));
    let (our_trace, trace) =
        time(|| Trace::record(workload.state(), |_| ControlFlow::Continue(())).expect("the workload runs"));
    let (from_aet, _) = time(|| MainTable::from_aet(&aet).expect("a legal height"));
    let (from_trace, table) = time(|| MainTable::from_trace(&trace).expect("a legal height"));
    let mut table = Some(table);
    let (in_used_memory, ()) = time(|| {
        let memory = table.take().map(MainTable::into_memory).unwrap_or_default();
        table = Some(MainTable::from_trace_in(&trace, memory).expect("a legal height"));
    });
    println!("{}: {:?}", workload.name, trace.heights());
    println!("  run without trace         {run:>8.3?}");
    println!("  trace, triton-vm crate    {crate_trace:>8.3?}");
    println!("  trace, ours               {our_trace:>8.3?}");
    println!("  main table from AET       {from_aet:>8.3?}");
    println!("  main table from our trace {from_trace:>8.3?}");
    println!("  the same, in used memory  {in_used_memory:>8.3?}");
    assert!(our_trace < crate_trace, "our trace is slower than the crate's");
}

#[test]
#[ignore = "a measurement"]
fn host_stages() {
    println!("{} threads", rayon::current_num_threads());
    let workloads = [workloads::spin(20), workloads::mixed(4500), workloads::absorb(60_000), workloads::squeeze(100_000)];
    for workload in workloads {
        report(&workload);
    }
}

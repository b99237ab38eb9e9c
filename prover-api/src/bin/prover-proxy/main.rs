//! `prover-proxy`: stands where a node expects its prover and has the proof made by prover pods. It never proves itself.
//!
//! To an unmodified neptune-core it is the command in `NEPTUNE_PROVER_PROXY`; to an unmodified xnt-core the program in
//! `TRITON_VM_PROVER_PATH`, or `triton-vm-prover` beside the node. Both write a job to standard input and read `bincode(Proof)`
//! from standard output, log lines from standard error, and the outcome from the exit code.

mod caller;
mod fallback;
mod input;
mod log;
mod options;
mod run;

use clap::Parser;

fn main() {
    // Both nodes give exit codes from 200 on a meaning and take all others for failures; clap's own would do, were it not for
    // output that belongs on standard error.
    let flags = match options::Flags::try_parse() {
        Ok(flags) => flags,
        Err(message) => {
            let code = i32::from(message.use_stderr());
            drop(message.print());
            std::process::exit(code);
        }
    };
    log::start(flags.log_level());
    let code = match options::Options::load(flags) {
        Ok(options) => run::to_exit_code(options),
        Err(error) => {
            tracing::error!("{error:#}");
            run::FAILED
        }
    };
    // Not by returning: a thread may still wait for a standard input that never ends.
    std::process::exit(code);
}

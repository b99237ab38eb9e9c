//! A worker that proves nothing: it returns stored proofs, whole or with one bit flipped. For tests of what leaves a pod.
//!
//! `FAKE_WORKER_FLIP` unset: stored proofs as they are. Set: one bit of each is flipped, another one each time.
//! `FAKE_WORKER_PROOFS` names the folder of the stored proofs, when it is not that of the tests' leaf proofs.
//! `FAKE_WORKER_SELF_TEST` names a file for the proof of the self-test: made when missing, so that a restart costs no proof.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::{Write, stdin, stdout};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use prover_pod::protocol::{FromWorker, ToWorker, read_frame, write_frame};
use prover_pod::scheduler::{Backend, Failure};
use prover_pod::worker::{CpuBackend, ProverBackend};
use upgrader_fleet_tests::fixtures;

fn main() -> Result<()> {
    let output = Mutex::new(stdout());
    let say = |message: &FromWorker, payload: &[u8]| -> Result<()> {
        let mut output = output.lock().ok().context("no other thread panics")?;
        write_frame(&mut *output, message, payload)?;
        Ok(output.flush()?)
    };
    let flips = std::env::var_os("FAKE_WORKER_FLIP").is_some();
    let proofs = std::env::var_os("FAKE_WORKER_PROOFS").map_or_else(fixtures::proofs, PathBuf::from);
    // A device that tests itself well and goes wrong later.
    let proof = self_test()?;
    let device = "fake".to_owned();
    say(&FromWorker::Hello { backend: Backend::Cpu, slots: 1, device, max_log2_padded_height: None, gpu: None }, &proof)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while say(&FromWorker::Heartbeat { rss_bytes: 1 }, &[]).is_ok() {
                std::thread::sleep(Duration::from_secs(1));
            }
            std::process::exit(0);
        });
        let mut input = stdin().lock();
        while let Some((order, body)) = read_frame::<ToWorker>(&mut input)? {
            let job = order.job();
            match order {
                ToWorker::Inspect { .. } => say(&FromWorker::Inspected { job, log2_padded_height: 9, kept: false }, &[])?,
                ToWorker::Prove { .. } => match std::fs::read(proofs.join(format!("{job}.bin"))) {
                    Ok(mut proof) => {
                        if flips {
                            eprintln!("fake-worker: bit {} of the proof of {job}", flip(&mut proof, &body));
                        }
                        say(&FromWorker::Traced { job }, &[])?;
                        say(&FromWorker::Proved { job }, &proof)?;
                    }
                    Err(error) => {
                        let failure = Failure::Prover(format!("no stored proof: {error}"));
                        say(&FromWorker::Failed { job, failure }, &[])?;
                    }
                },
                ToWorker::Trace { .. } => say(&FromWorker::Traced { job }, &[])?,
                ToWorker::Discard { .. } | ToWorker::Abort { .. } => {}
            }
        }
        std::process::exit(0)
    })
}

fn self_test() -> Result<Vec<u8>> {
    let kept = std::env::var_os("FAKE_WORKER_SELF_TEST").map(PathBuf::from);
    if let Some(proof) = kept.as_ref().and_then(|path| std::fs::read(path).ok()) {
        return Ok(proof);
    }
    let proof = CpuBackend::default().self_test().ok().context("the CPU proves")?;
    if let Some(path) = kept {
        // Renamed into place: another worker may be reading.
        let own = path.with_extension(std::process::id().to_string());
        std::fs::write(&own, &proof)?;
        std::fs::rename(&own, &path)?;
    }
    Ok(proof)
}

/// Flips one bit, and tells which: another one for each job, each process and each time.
fn flip(proof: &mut [u8], body: &[u8]) -> usize {
    let mut hasher = DefaultHasher::new();
    (body, std::process::id(), SystemTime::now()).hash(&mut hasher);
    let bit = (hasher.finish() % (proof.len() as u64 * 8)) as usize;
    proof[bit / 8] ^= 1 << (bit % 8);
    bit
}

//! The command as a person meets it, as far as it needs no pod.

use std::path::Path;
use std::process::{Command, Output};

use fleet::{program, store};
use prover_api::ProverJob;
use triton_vm::prelude::{BFieldElement, NonDeterminism, Proof, PublicInput, Stark, VM};

fn fleet(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fleet"))
        .current_dir(folder)
        .env_remove("UPGRADER_FLEET_PODS")
        .args(arguments)
        .output()
        .expect("the binary is built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn small_proof() -> (ProverJob, Proof) {
    let program = program::assemble("read_io 1 push 2 mul write_io 1 halt").expect("assembles");
    let input = PublicInput::new(vec![BFieldElement::new(21)]);
    let job = program::job(program, input, NonDeterminism::default()).expect("halts");
    let (trace, _) = VM::trace_execution(job.program.clone(), job.claim.input.clone().into(), job.non_determinism.clone())
        .expect("halts once more");
    let proof = Stark::default().prove(&job.claim, &trace).expect("a small proof");
    (job, proof)
}

#[test]
fn verify_believes_proofs_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (job, proof) = small_proof();
    store::write(folder.path(), "double", &job.claim, &proof).expect("writable");

    let whole_folder = fleet(folder.path(), &["verify", "."]);
    assert!(whole_folder.status.success(), "{}", stderr(&whole_folder));
    assert_eq!(["double", "valid"], *stdout(&whole_folder).split_whitespace().collect::<Vec<_>>());
    assert!(fleet(folder.path(), &["verify", "double.claim.json", "double.proof"]).status.success());

    let mut lie = job.claim.clone();
    lie.output[0] += BFieldElement::new(1);
    store::write(folder.path(), "lie", &lie, &proof).expect("writable");
    let with_a_lie = fleet(folder.path(), &["verify", "."]);
    assert_eq!(Some(1), with_a_lie.status.code());
    assert!(stdout(&with_a_lie).lines().any(|line| line.starts_with("lie") && line.contains("NOT VALID")));

    let claim_alone = fleet(folder.path(), &["verify", "double.claim.json"]);
    assert_eq!(Some(1), claim_alone.status.code());
    assert!(stderr(&claim_alone).contains("fleet verify CLAIM PROOF"));
}

#[test]
fn errors_say_what_to_do_and_say_it_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (arguments, hint) in [
        (vec!["status"], "--pods"),
        (vec!["prove", "nothing.json"], "cannot read nothing.json: No such file"),
        (vec!["prove", "tx.json", "--network", "regtest"], "mock proofs"),
        (vec!["example", "tx.json", "--inputs", "0"], "at least one input"),
        (vec!["verify", "."], "no proofs here"),
    ] {
        let output = fleet(folder.path(), &arguments);
        let text = stderr(&output);
        assert!(!output.status.success(), "{arguments:?}");
        assert_eq!(1, text.matches(hint).count(), "{arguments:?}: {text}");
    }
}

#[test]
fn an_example_transaction_is_written_once_and_for_its_owner() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let written = fleet(folder.path(), &["example", "tx.json", "--outputs", "1"]);
    assert!(written.status.success(), "{}", stderr(&written));
    let mode = std::fs::metadata(folder.path().join("tx.json")).expect("written").permissions().mode();
    assert_eq!(0o600, mode & 0o777);
    let again = fleet(folder.path(), &["example", "tx.json"]);
    assert!(stderr(&again).contains("cannot write tx.json: File exists"), "{}", stderr(&again));
}

#[test]
fn completion_is_printed() {
    let output = fleet(Path::new("."), &["completion", "bash"]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("_fleet"));
}

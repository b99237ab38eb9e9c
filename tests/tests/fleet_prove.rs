//! The command `fleet` against a running pod: prove, verify, status.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use upgrader_fleet_tests::pods::{Pod, binary};

fn fleet(folder: &Path, pod: &Pod, arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(binary("fleet")?).current_dir(folder).env("UPGRADER_FLEET_PODS", pod.url()).args(arguments).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn a_program_is_proven_and_its_proof_believed() -> Result<()> {
    let mut pod = Pod::start(&[])?;
    pod.ready().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("sum.tasm"), "read_io 2 divine 1 add add write_io 1 halt")?;
    std::fs::write(folder.path().join("secret.json"), "[600613]")?;

    let arguments = ["prove", "sum.tasm", "--input", "3,4", "--secret-file", "secret.json", "-o", "out"];
    let proven = fleet(folder.path(), &pod, &arguments)?;
    ensure!(proven.status.success(), "{}", text(&proven.stderr));
    ensure!(text(&proven.stderr).contains("proven and verified"), "{}", text(&proven.stderr));

    let claim: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("out/sum.claim.json"))?)?;
    ensure!(claim["output"] == serde_json::json!([600_620]), "{claim}");
    for entry in std::fs::read_dir(folder.path().join("out"))? {
        let bytes = std::fs::read(entry?.path())?;
        ensure!(!text(&bytes).contains("600613"), "the witness is on disk");
    }
    let verified = fleet(folder.path(), &pod, &["verify", "out"])?;
    ensure!(verified.status.success(), "{}", text(&verified.stdout));

    let status = fleet(folder.path(), &pod, &["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    ensure!(status["pods"][0]["capacity"]["backends"] == serde_json::json!(["cpu"]), "{status}");
    ensure!(status["pods"][0]["devices"][0]["ready"] == true, "{status}");

    // A pod that is gone is named in the table, and nothing reachable is a failure.
    pod.kill()?;
    let status = fleet(folder.path(), &pod, &["status"])?;
    ensure!(!status.status.success() && text(&status.stdout).contains("unreachable"), "{}", text(&status.stdout));
    Ok(())
}

#[tokio::test]
async fn a_failing_program_is_refused_before_it_is_sent() -> Result<()> {
    let mut pod = Pod::start(&[])?;
    pod.ready().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("wrong.tasm"), "push 1 push 2 eq assert halt")?;
    let refused = fleet(folder.path(), &pod, &["prove", "wrong.tasm"])?;
    ensure!(refused.status.code() == Some(1) && text(&refused.stderr).contains("an assertion does not hold"));
    ensure!(!folder.path().join("proofs").exists());
    Ok(())
}

/// A whole transaction by the command alone. The device returns stored proofs, so that this takes seconds; they are real.
#[tokio::test]
async fn a_transaction_becomes_a_collection_that_main_net_accepts() -> Result<()> {
    let fake = binary("fake-worker")?;
    let mut pod = Pod::start(&["--worker-program", fake.to_str().context("is text")?])?;
    pod.ready().await?;
    let folder = tempfile::tempdir()?;
    ensure!(fleet(folder.path(), &pod, &["example", "tx.json"])?.status.success());
    ensure!(!fleet(folder.path(), &pod, &["example", "tx.json"])?.status.success(), "never overwritten");
    let proven = fleet(folder.path(), &pod, &["prove", "tx.json", "-o", "out", "--priority", "high"])?;
    ensure!(proven.status.success(), "{}", text(&proven.stderr));
    ensure!(text(&proven.stderr).contains("valid under the rules of main"), "{}", text(&proven.stderr));
    let verified = fleet(folder.path(), &pod, &["verify", "out/tx"])?;
    ensure!(verified.status.success(), "{}", text(&verified.stdout));
    ensure!(
        text(&verified.stdout).matches(" valid").count() == 7,
        "six proofs and their collection: {}",
        text(&verified.stdout)
    );

    let proof = folder.path().join("out/tx/kernel-to-outputs.proof");
    let mut bytes = std::fs::read(&proof)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&proof, bytes)?;
    let verified = fleet(folder.path(), &pod, &["verify", "out/tx"])?;
    ensure!(verified.status.code() == Some(1) && text(&verified.stdout).contains("NOT VALID"), "{}", text(&verified.stdout));
    for format in ["table", "wide"] {
        let status = fleet(folder.path(), &pod, &["status", "-o", format])?;
        ensure!(status.status.success() && text(&status.stdout).contains(pod.url()), "{}", text(&status.stdout));
    }
    Ok(())
}

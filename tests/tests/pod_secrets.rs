//! What a pod writes, to its log and to files, holds nothing of a witness; and each line about a job names the job.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use prover_api::{JobState, ProverJob};
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use triton_vm::prelude::*;
use upgrader_fleet_tests::http::{post, problem, send, wait_for};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::{Pod, signal};

/// Stands in each witness below, as a number that occurs nowhere else.
const SECRET: u64 = 6_006_130_060_613_006;

fn job(program: Program, output: Vec<BFieldElement>) -> ProverJob {
    let claim = Claim::about_program(&program).with_output(output);
    let witness = NonDeterminism::new(vec![bfe!(SECRET); 5]).with_ram([(bfe!(7), bfe!(SECRET))]);
    ProverJob::new(program, claim, witness)
}

/// How the secret could stand there: decimal, hexadecimal, or as the bytes of a word.
fn betrays(bytes: &[u8]) -> bool {
    let raw = bfe!(SECRET).raw_u64();
    let texts = [SECRET.to_string(), format!("{SECRET:x}"), raw.to_string(), format!("{raw:x}")];
    let mut needles: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    needles.extend([SECRET.to_le_bytes().to_vec(), raw.to_le_bytes().to_vec()]);
    needles.iter().any(|needle| bytes.windows(needle.len()).any(|window| window == needle))
}

fn files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// Everything that can become of a job with a secret.
async fn torment(pod: &Pod, tvmp: &str) -> Result<Vec<prover_api::JobId>> {
    let url = pod.url();
    let good = job(triton_program!(divine 1 pop 1 push 7 read_mem 1 pop 2 halt), vec![]);
    ensure!(post(url, bytes(&good), &[]).await?.status() == StatusCode::OK);
    let mut ids = vec![good.id()];
    for (bad, claimed) in [
        (triton_program!(divine 1 push 1 eq assert halt), vec![]),
        (triton_program!(divine 5 push 1 push 2 push 3 push 4 push 5 assert_vector halt), vec![]),
        (triton_program!(divine 1 write_io 1 halt), vec![bfe!(1)]),
        (triton_program!(divine 1 divine 1 pow pop 1 halt), vec![]),
        (triton_program!(push 7 read_mem 1 pop 1 log_2_floor pop 1 halt), vec![]),
        (triton_program!(divine 2 merkle_step halt), vec![]),
    ] {
        let bad = job(bad, claimed);
        let refused = problem(post(url, bytes(&bad), &[]).await?).await?;
        ensure!(!betrays(&serde_json::to_vec(&refused)?), "{refused:?}");
        ids.push(bad.id());
    }
    // A claim that nobody has proven: a proof in the cache needs no body.
    let text = String::from_utf8(bytes(&job(triton_program!(divine 1 pop 1 halt), vec![])))?;
    let broken = text.replacen("\"individual_tokens\":[", "\"individual_tokens\":[\"x\",", 1);
    for malformed in [&text[..text.len() - 2], &broken, &text.replacen(",\"digests\"", "\"digests\"", 1)] {
        let refused = problem(post(url, malformed.as_bytes().to_vec(), &[]).await?).await?;
        ensure!(!betrays(&serde_json::to_vec(&refused)?), "{refused:?}");
    }
    // A worker that is killed in the middle, and a caller that hangs up.
    let loops = triton_program!(
        divine 1 pop 1 push 40000 call loop halt
        loop: dup 0 push 0 eq skiz return addi -1 recurse
    );
    let long = job(loops, vec![]);
    let headers = [("prefer", "respond-async"), ("x-client-id", "me")];
    ensure!(post(url, bytes(&long), &headers).await?.status() == StatusCode::ACCEPTED);
    wait_for(url, long.id(), &[JobState::Proving]).await?;
    let pid = upgrader_fleet_tests::http::devices(url).await?[0].pid.context("is up")?;
    signal(pid, "ABRT")?;
    wait_for(url, long.id(), &[JobState::Tracing, JobState::Queued, JobState::Proving]).await?;
    send(Method::DELETE, &format!("{url}/v1/proofs/{}", long.id()), None, &headers).await?;
    ids.push(long.id());

    let mut stream = tokio::net::TcpStream::connect(tvmp).await?;
    let request = [&0x5456_4D50_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &9_u32.to_le_bytes()].concat();
    let tokens = format!("{{\"individual_tokens\":[{SECRET}]}}");
    let length = u32::try_from(tokens.len())?.to_le_bytes();
    stream.write_all(&[request, length.to_vec(), tokens.into_bytes()].concat()).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(!betrays(&answer));
    Ok(ids)
}

#[tokio::test]
async fn no_witness_is_logged_or_written_and_each_line_about_a_job_names_it() -> Result<()> {
    for format in ["json", "text"] {
        let tvmp = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let scratch = tempfile::tempdir()?;
        let variables = [("RUST_LOG", "trace"), ("TMPDIR", scratch.path().to_str().context("is text")?)];
        let mut pod = Pod::start_at("127.0.0.1:0", &["--log-format", format, "--tcp", &tvmp], &variables)?;
        pod.ready().await?;
        let jobs = torment(&pod, &tvmp).await?;
        pod.terminate()?;
        pod.ended(std::time::Duration::from_secs(30)).await?;

        let log = pod.whole_log()?;
        for folder in [pod.folder(), scratch.path()] {
            for file in files(folder)? {
                ensure!(!betrays(&std::fs::read(&file)?), "{}: the witness", file.display());
            }
        }
        ensure!(betrays(&bytes(&job(triton_program!(halt), vec![]))), "this test knows the secret when it sees it");
        let about_jobs: Vec<&str> = log.lines().filter(|line| line.contains("job: ")).collect();
        ensure!(about_jobs.len() > 20, "{log}");
        for line in about_jobs {
            let named = if format == "json" {
                let line: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
                line["job"].as_str().is_some_and(|id| id.parse::<prover_api::JobId>().is_ok())
            } else {
                line.split("job=")
                    .nth(1)
                    .is_some_and(|rest| rest.get(..80).is_some_and(|id| id.parse::<prover_api::JobId>().is_ok()))
            };
            ensure!(named, "{line}");
        }
        for job in jobs {
            ensure!(log.contains(&job.to_string()), "{job} is not in the log");
        }
        if format == "json" {
            for line in log.lines() {
                ensure!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "no JSON: {line}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn tokens_are_never_logged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "correct-horse-battery\n")?;
    let arguments = ["--backend", "mock", "--token-file", tokens.to_str().context("is text")?];
    let mut pod = Pod::start_at("127.0.0.1:0", &arguments, &[("RUST_LOG", "trace")])?;
    pod.ready().await?;
    let capacity = format!("{}/v1/capacity", pod.url());
    for (token, status) in [("correct-horse-battery", StatusCode::OK), ("wrong-horse-battery", StatusCode::UNAUTHORIZED)] {
        let header = format!("Bearer {token}");
        ensure!(send(Method::GET, &capacity, None, &[("authorization", &header)]).await?.status() == status);
    }
    drop(post(pod.url(), bytes(&of_height(9, 1)), &[("authorization", "Bearer correct-horse-battery")]).await?);
    ensure!(!pod.whole_log()?.contains("horse"), "{}", pod.log());
    Ok(())
}

//! Requests that are wrong, and what each gets. Nothing crashes, no worker is lost.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prover_api::{ProblemType as T, ProverJob};
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use triton_vm::prelude::*;
use upgrader_fleet_tests::http::{devices, post, problem, send};
use upgrader_fleet_tests::jobs::{bytes, mock, of_height};
use upgrader_fleet_tests::pods::Pod;

const TOKEN: &str = "right-token";
const AUTHORIZED: (&str, &str) = ("authorization", "Bearer right-token");

struct Case {
    name: &'static str,
    method: Method,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
    gets: T,
}

fn job(program: &Program, output: Vec<BFieldElement>) -> ProverJob {
    ProverJob::new(program.clone(), Claim::about_program(program).with_output(output), NonDeterminism::default())
}

/// Replaces one piece of the good job's text.
fn edited(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(bytes(&of_height(9, 1))).expect("JSON is text");
    let changed = text.replacen(from, to, 1);
    assert_ne!(changed, text, "{from} is in the text");
    changed.into_bytes()
}

fn bodies() -> Vec<(&'static str, Vec<u8>, T)> {
    let good = bytes(&of_height(9, 1));
    let digest = Digest::default().to_hex();
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let deep_inside =
        edited("\"individual_tokens\":[]", &format!("\"individual_tokens\":{}", String::from_utf8_lossy(&nested)));
    let failing = triton_program!(push 0 assert halt);
    let endless = triton_program!(call spin halt spin: recurse);
    let crashing = triton_program!(push 0 invert halt);
    let underflow = triton_program!(pop 5 pop 5 pop 5 pop 5 halt);
    let printing = triton_program!(push 1 write_io 1 halt);
    vec![
        ("an empty body", vec![], T::MalformedJob),
        ("no JSON", b"hello".to_vec(), T::MalformedJob),
        ("an empty object", b"{}".to_vec(), T::MalformedJob),
        ("an array", b"[]".to_vec(), T::MalformedJob),
        ("not UTF-8", vec![0xff, 0xfe, 0x00], T::MalformedJob),
        ("truncated JSON", good[..good.len() / 2].to_vec(), T::MalformedJob),
        ("JSON and more", [good.as_slice(), b"{}"].concat(), T::MalformedJob),
        ("deep nesting", nested, T::MalformedJob),
        ("deep nesting inside the witness", deep_inside, T::MalformedJob),
        ("a claim without a digest", edited("program_digest", "programdigest"), T::MalformedJob),
        ("a digest of another length", edited("\"program_digest\":\"", "\"program_digest\":\"00"), T::MalformedJob),
        ("a version that is no number", edited("\"version\":8", "\"version\":\"8\""), T::MalformedJob),
        ("a version out of range", edited("\"version\":8", "\"version\":99999999999"), T::MalformedJob),
        ("a limit out of range", edited("\"max_log2_padded_height\":null", "\"max_log2_padded_height\":300"), T::MalformedJob),
        ("the same field twice", edited("\"env_vars\":{}", "\"env_vars\":{},\"env_vars\":{}"), T::MalformedJob),
        ("a witness of the wrong kind", edited("\"individual_tokens\":[]", "\"individual_tokens\":7"), T::MalformedJob),
        ("a program of the wrong kind", edited("\"instructions\":[", "\"instructions\":[{\"Fly\":1},"), T::MalformedJob),
        ("an older proof version", edited("\"version\":8", "\"version\":5"), T::ProofVersion),
        ("a newer proof version", edited("\"version\":8", "\"version\":9"), T::ProofVersion),
        ("a mock job", serde_json::to_vec(&mock(1, 1)).expect("has a JSON form"), T::WrongNetwork),
        ("another program's digest", edited(&of_height(9, 1).claim.program_digest.to_hex(), &digest), T::ProgramDigestMismatch),
        ("another output", bytes(&job(&printing, bfe_vec![2])), T::OutputMismatch),
        ("no output", bytes(&job(&printing, vec![])), T::OutputMismatch),
        ("a failing program", bytes(&job(&failing, vec![])), T::ProgramFailed),
        ("a program that divides by zero", bytes(&job(&crashing, vec![])), T::ProgramFailed),
        ("a program that empties its stack", bytes(&job(&underflow, vec![])), T::ProgramFailed),
        ("missing input", edited("\"input\":[", "\"input\":[],\"unknown\":["), T::ProgramFailed),
        ("an endless program", bytes(&job(&endless, vec![])), T::ProgramEndless),
    ]
}

fn cases() -> Result<Vec<Case>> {
    let id = of_height(9, 77).id();
    let submit = |name, headers: &[(&'static str, &'static str)], body, gets| Case {
        name,
        method: Method::POST,
        path: "/v1/proofs".to_owned(),
        headers: [&[AUTHORIZED], headers].concat(),
        body,
        gets,
    };
    let get = |name, method, path: String, headers: &[(&'static str, &'static str)], gets| Case {
        name,
        method,
        path,
        headers: headers.to_vec(),
        body: vec![],
        gets,
    };
    let destination = |name, body, gets| Case {
        name,
        method: Method::PUT,
        path: format!("/v1/proofs/{id}/destination"),
        headers: vec![AUTHORIZED],
        body,
        gets,
    };
    let good = || bytes(&of_height(9, 1));
    let bomb = zstd::encode_all(std::io::Read::take(std::io::repeat(b' '), 400 << 20), 1)?;
    let mut cases: Vec<Case> = bodies().into_iter().map(|(name, body, gets)| submit(name, &[], body, gets)).collect();
    cases.extend([
        submit("a zip bomb", &[("content-encoding", "zstd")], bomb, T::PayloadTooLarge),
        submit("bytes that are no gzip", &[("content-encoding", "gzip")], good(), T::MalformedJob),
        submit("bytes that are no zstd", &[("content-encoding", "zstd")], good(), T::MalformedJob),
        submit("an unknown encoding", &[("content-encoding", "br")], good(), T::UnsupportedEncoding),
        submit("an unknown priority", &[("x-priority", "asap")], good(), T::BadRequest),
        submit("a deadline that is none", &[("x-deadline", "soon")], good(), T::BadRequest),
        submit("a negative deadline", &[("x-deadline", "-1")], good(), T::BadRequest),
        submit("a deadline that has passed", &[("x-deadline", "2020-01-01T00:00:00Z")], good(), T::DeadlineExceeded),
        submit("a flag that is none", &[("x-force-cpu", "perhaps")], good(), T::BadRequest),
        submit("a client id with blanks", &[("x-client-id", "a b")], good(), T::BadRequest),
        get("no token", Method::POST, "/v1/proofs".to_owned(), &[], T::Unauthorized),
        get("a wrong token", Method::GET, "/v1/capacity".to_owned(), &[("authorization", "Bearer wrong")], T::Unauthorized),
        get(
            "another scheme",
            Method::GET,
            "/v1/capacity".to_owned(),
            &[("authorization", "Basic right-token")],
            T::Unauthorized,
        ),
        get("a token prefix", Method::GET, "/v1/capacity".to_owned(), &[("authorization", "Bearer right")], T::Unauthorized),
        get("an id that is none", Method::GET, "/v1/proofs/xyz".to_owned(), &[AUTHORIZED], T::BadRequest),
        get("an id out of the field", Method::GET, format!("/v1/proofs/{}", "f".repeat(80)), &[AUTHORIZED], T::BadRequest),
        get("an unknown id", Method::GET, format!("/v1/proofs/{id}"), &[AUTHORIZED], T::NotFound),
        get("an unknown proof", Method::GET, format!("/v1/proofs/{id}/proof"), &[AUTHORIZED], T::NotFound),
        get("an unknown job's events", Method::GET, format!("/v1/proofs/{id}/events"), &[AUTHORIZED], T::NotFound),
        get("a bad id to cancel", Method::DELETE, "/v1/proofs/1".to_owned(), &[AUTHORIZED], T::BadRequest),
        destination("a destination that is no JSON", b"http://10.1.1.1:8080".to_vec(), T::BadRequest),
        destination("a destination without a pod", br#"{"instead_of":"http://10.1.1.1:8080"}"#.to_vec(), T::BadRequest),
        destination("a destination without a name", br#"{"pod":""}"#.to_vec(), T::BadRequest),
        destination("a destination of two lines", br#"{"pod":"http://a\n"}"#.to_vec(), T::BadRequest),
        destination("a destination with a long name", format!(r#"{{"pod":"{}"}}"#, "a".repeat(257)).into(), T::BadRequest),
        destination("a destination without end", vec![b' '; 5 << 10], T::PayloadTooLarge),
        get("an unknown path", Method::GET, "/v2/proofs".to_owned(), &[], T::NotFound),
        get("a method that does not exist", Method::PUT, "/v1/proofs".to_owned(), &[AUTHORIZED], T::MethodNotAllowed),
    ]);
    Ok(cases)
}

#[tokio::test]
async fn each_wrong_request_gets_its_own_answer() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, format!("other-token\n{TOKEN}\n"))?;
    let mut pod = Pod::start(&["--token-file", tokens.to_str().context("is text")?, "--cycle-limit", "200000"])?;
    pod.ready().await?;
    let cases = cases()?;
    ensure!(cases.len() >= 30);
    println!("{:45} {:>6} type", "request", "status");
    for case in cases {
        let answer = send(case.method, &format!("{}{}", pod.url(), case.path), Some(case.body), &case.headers).await?;
        let problem = problem(answer).await.context(case.name)?;
        println!("{:45} {:>6} {}", case.name, problem.status, problem.problem_type);
        ensure!(problem.problem_type == case.gets, "{}: {problem:?}", case.name);
    }
    declared_gigabyte(&pod).await?;
    slow_headers(&pod).await?;

    // Rotated tokens are taken without a restart.
    std::fs::write(&tokens, "new-token\n")?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let capacity = format!("{}/v1/capacity", pod.url());
    ensure!(send(Method::GET, &capacity, None, &[("authorization", "Bearer new-token")]).await?.status().is_success());
    ensure!(problem(send(Method::GET, &capacity, None, &[AUTHORIZED]).await?).await?.problem_type == T::Unauthorized);

    // After all that: the same worker process, and it works.
    let url = format!("{}/v1/devices", pod.url());
    let devices: Vec<prover_api::DeviceInfo> =
        send(Method::GET, &url, None, &[("authorization", "Bearer new-token")]).await?.json().await?;
    ensure!(devices[0].restarts == 0 && devices[0].ready, "{devices:?}\n{}", pod.log());
    let answer = post(pod.url(), bytes(&of_height(9, 1)), &[("authorization", "Bearer new-token")]).await?;
    ensure!(answer.status().is_success());
    Ok(())
}

fn address(pod: &Pod) -> Result<SocketAddr> {
    Ok(pod.url().trim_start_matches("http://").parse()?)
}

/// A gigabyte is declared: that is refused at once, without a byte of it; and as chunks without a declared length nothing is
/// allocated before it comes.
async fn declared_gigabyte(pod: &Pod) -> Result<()> {
    let before = upgrader_fleet_tests::pods::own_resident_bytes(pod.pid())?;
    let mut stream = TcpStream::connect(address(pod)?).await?;
    let head = format!(
        "POST /v1/proofs HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 1073741824\r\n\r\n{{\"claim\":"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.context("no answer at once")??;
    let answer = String::from_utf8(answer)?;
    println!("{:45} {:>6} {}", "a declared gigabyte", 413, T::PayloadTooLarge);
    ensure!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("/problems/payload-too-large"), "{answer}");

    let mut stream = TcpStream::connect(address(pod)?).await?;
    let head = format!(
        "POST /v1/proofs HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer {TOKEN}\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n{{\"claim\":"
    );
    stream.write_all(head.as_bytes()).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = upgrader_fleet_tests::pods::own_resident_bytes(pod.pid())?;
    ensure!(after < before + (16 << 20), "{before} {after}");
    Ok(())
}

/// A client that sends its headers for ever is cut off.
async fn slow_headers(pod: &Pod) -> Result<()> {
    let mut stream = TcpStream::connect(address(pod)?).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nX-Slow: ").await?;
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(25), stream.read_to_end(&mut rest)).await;
    ensure!(closed.is_ok(), "the connection is still open");
    Ok(())
}

#[tokio::test]
async fn a_mock_pod_takes_mock_jobs_and_nothing_else() -> Result<()> {
    let mut pod = Pod::start(&["--backend", "mock", "--network", "regtest"])?;
    pod.ready().await?;
    let answer = post(pod.url(), serde_json::to_vec(&mock(5, 20))?, &[]).await?;
    ensure!(answer.status().is_success());
    let proof = neptune_consensus::transaction::validity::neptune_proof::NeptuneProof::valid_mock();
    ensure!(answer.bytes().await? == bincode::serialize(&Proof::clone(&proof))?, "the chain's own mock proof");
    let refused = problem(post(pod.url(), bytes(&of_height(9, 1)), &[]).await?).await?;
    ensure!(refused.problem_type == T::WrongNetwork);
    let mut tall = mock(6, 1);
    tall.log2_padded_height = 99;
    ensure!(problem(post(pod.url(), serde_json::to_vec(&tall)?, &[]).await?).await?.problem_type == T::MalformedJob);
    // The wrong backend for a network is refused at the start.
    ensure!(Pod::start(&["--backend", "mock", "--network", "main"]).is_err());
    ensure!(Pod::start(&["--backend", "cpu", "--network", "regtest"]).is_err());
    ensure!(devices(pod.url()).await?[0].restarts == 0);
    Ok(())
}

//! A large job is held at most twice: as text and compressed. The kernel counts, so each measurement has a process of its own:
//! the client in this very program started anew, and the real `prover-proxy`.

#[allow(dead_code, reason = "another test uses the rest of it")]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use prover_api::client::{Client, Encoding, JobBody, ProveOptions};
use prover_api::framing::FiveTexts;
use prover_api::{PROBLEM_JSON, Problem, ProblemType, proof};
use support::{FakePod, OnJob, capacity, real_job};

/// Bytes of the largest transaction job there is: the raise of four inputs.
const JOB_BYTES: usize = 33_100_000;

/// What a job's handling may take beside the job: connections, the proof, its verification.
const REST: usize = 8 << 20;

/// The real job with a witness of the wanted length: numbers as random as digests are.
fn large_document() -> Vec<u8> {
    let mut document = real_job().0.to_json().expect("encodes");
    let place = b"\"individual_tokens\":[";
    let at = document.windows(place.len()).position(|window| window == place).expect("has a witness") + place.len();
    let rest = document.split_off(at);
    document.reserve_exact(JOB_BYTES - document.len());
    let mut number = 1_u64;
    while document.len() + 21 + rest.len() < JOB_BYTES {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        write!(document, "{},", number >> 1).expect("memory takes it");
    }
    document.extend_from_slice(&rest);
    document
}

/// A pod that reads the job away and has its proof, holding nothing itself.
fn pod_without_memory(proof: &Bytes) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("is bound"));
    let proof = proof.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            converse(stream.expect("connects"), &proof);
        }
    });
    url
}

fn converse(stream: TcpStream, proof: &[u8]) {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length, mut line) = (String::new(), 0_u64, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if request.is_empty() {
            line.clone_into(&mut request);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("is a number");
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).expect("arrives");
    let problem = serde_json::to_vec(&Problem::new(ProblemType::NotFound)).expect("encodes");
    let capacity = serde_json::to_vec(&capacity()).expect("encodes");
    let (status, kind, body) = match request.split(' ').collect::<Vec<_>>()[..] {
        ["POST", ..] => ("200 OK", "application/octet-stream", proof),
        ["GET", "/v1/capacity", ..] => ("200 OK", "application/json", &capacity[..]),
        _ => ("404 Not Found", PROBLEM_JSON, &problem[..]),
    };
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let mut stream = reader.into_inner();
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("is read");
}

/// What the process below does, in variables.
const POD: &str = "MEMORY_TEST_POD";
const ENCODING: &str = "MEMORY_TEST_ENCODING";
const JOB: &str = "MEMORY_TEST_JOB";

#[test]
fn the_client_holds_a_job_at_most_twice() {
    let (job, proof) = real_job();
    let folder = tempfile::tempdir().expect("a folder");
    let jobs = [("small", job.to_json().expect("encodes")), ("large", large_document())].map(|(name, document)| {
        let path = folder.path().join(name);
        std::fs::write(&path, document).expect("writes");
        path
    });
    for encoding in ["zstd", "gzip", "identity"] {
        let [small, large] = jobs.each_ref().map(|job| {
            let child = Command::new(std::env::current_exe().expect("has a path"))
                .args(["--exact", "a_client_alone", "--ignored", "--nocapture"])
                .env(POD, pod_without_memory(&proof))
                .env(ENCODING, encoding)
                .env(JOB, job)
                .output()
                .expect("starts");
            let text = String::from_utf8_lossy(&child.stdout).into_owned();
            assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
            let line = text.lines().find_map(|line| line.split_once("high water ").map(|(_, bytes)| bytes));
            line.expect("is told").trim().parse::<usize>().expect("is a number")
        });
        let job = large.saturating_sub(small);
        println!("{encoding}: {:.1} MB for a job of {:.1} MB", mb(job), mb(JOB_BYTES));
        // The small job's process has its own peak, the verification, which the large one's hides.
        assert!(job + REST > JOB_BYTES, "{encoding}: {job} bytes; then nothing was measured");
        assert!(job < 2 * JOB_BYTES + REST, "{encoding}: {job} bytes for a job of {JOB_BYTES}");
    }
}

#[tokio::test]
#[ignore = "started by the test above, with a process for itself"]
async fn a_client_alone() {
    let variable = |name| std::env::var(name).expect("is set by the test above");
    let encoding = match variable(ENCODING).as_str() {
        "zstd" => Encoding::Zstd,
        "gzip" => Encoding::Gzip,
        _ => Encoding::Identity,
    };
    let client = Client::builder().endpoints([variable(POD)]).encoding(encoding).build().expect("is valid");
    // Read, not made: nothing but the client's own work may be in the count.
    let document = std::fs::read(variable(JOB)).expect("is there");
    let body = JobBody::from_json(document).expect("is a job");
    let proved = client.prove(body, ProveOptions::default()).await.expect("proves");
    assert_eq!(proof::decode(&proved.bytes).as_ref(), Ok(&proved.proof));
    println!("high water {}", high_water(std::process::id()).expect("is told"));
}

fn mb(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// Largest resident size of a process so far, in bytes.
fn high_water(pid: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kilobytes| kilobytes << 10)
}

#[tokio::test]
async fn the_proxy_holds_a_job_at_most_twice_whatever_node_it_comes_from() {
    let document = large_document();
    let mut lines = Vec::new();
    FiveTexts::of_document(&document).expect("parses").write_lines(&mut lines).expect("writes");
    let small = real_job().0.to_json().expect("encodes");
    let mut peaks = Vec::new();
    for input in [&small, &document, &lines] {
        let pod = FakePod::start(OnJob::Hold);
        let mut proxy = Command::new(env!("CARGO_BIN_EXE_prover-proxy"))
            .env("PROVER_PROXY_ENDPOINTS", &pod.url)
            .env_remove("PROVER_PROXY_FALLBACK")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        proxy.stdin.take().expect("is piped").write_all(input).expect("reads");
        let sent = pod.wait_for("POST", 1).await;
        assert!(sent[0].body.len() >= input.len() - 100, "all of it came");
        // Long enough to follow the job: what it keeps meanwhile counts too.
        tokio::time::sleep(Duration::from_millis(300)).await;
        peaks.push(high_water(proxy.id()).expect("lives"));
        proxy.kill().and_then(|()| proxy.wait()).expect("ends");
    }
    let [own, as_document, as_lines] = peaks[..] else { panic!("three runs") };
    for (peak, length) in [(as_document, document.len()), (as_lines, lines.len())] {
        println!("prover-proxy: {:.1} MB beside its own {:.1} MB for {:.1} MB", mb(peak - own), mb(own), mb(length));
        assert!(peak - own < 2 * length + REST, "{peak} - {own} bytes for a job of {length}");
    }
}

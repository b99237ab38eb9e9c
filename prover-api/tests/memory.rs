//! A large job is held at most twice: as text and compressed. Counted for the library by an allocator, for the real
//! `prover-proxy` by the kernel.

#[allow(dead_code, reason = "another test uses the rest of it")]
mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prover_api::PROBLEM_JSON;
use prover_api::client::{Client, Encoding, JobBody, ProveOptions};
use prover_api::framing::FiveTexts;
use prover_api::{Problem, ProblemType};
use support::{FakePod, OnJob, capacity, real_job};

/// Bytes of the largest transaction job there is: the raise of four inputs.
const JOB_BYTES: usize = 33_100_000;

/// What a job's handling may take beside the job: connections, the proof, its verification.
const REST: usize = 24 << 20;

/// The system's allocator, with a count of what is held and what was held at most.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grew(by: usize) {
    let held = HELD.fetch_add(by, Ordering::Relaxed) + by;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it is; counting touches two atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        grew(new_size);
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The tests measure this very process: one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

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

#[tokio::test]
async fn the_client_holds_a_job_at_most_twice() {
    let _alone = ALONE.lock().await;
    let (_, proof) = real_job();
    for encoding in [Encoding::Zstd, Encoding::Gzip, Encoding::Identity] {
        let url = pod_without_memory(&proof);
        let client = Client::builder().endpoints([url]).encoding(encoding).build().expect("is valid");
        let document = large_document();
        let length = document.len();
        assert!((JOB_BYTES - 100..=JOB_BYTES).contains(&length), "{length}");
        let before = HELD.load(Ordering::Relaxed) - document.capacity();
        PEAK.store(HELD.load(Ordering::Relaxed), Ordering::Relaxed);
        let body = JobBody::from_json(document).expect("is a job");
        let proved = client.prove(body, ProveOptions::default()).await.expect("proves");
        assert_eq!(proved.bytes, proof);
        let peak = PEAK.load(Ordering::Relaxed) - before;
        println!("{encoding:?}: {:.1} MB for a job of {:.1} MB", peak as f64 / 1e6, length as f64 / 1e6);
        assert!(peak < 2 * length + REST, "{encoding:?}: {peak} bytes for a job of {length}");
        drop(proved);
        let left = HELD.load(Ordering::Relaxed).saturating_sub(before);
        assert!(left < REST, "{encoding:?}: {left} bytes are kept");
    }
}

/// Largest resident size of a process so far, in bytes.
fn high_water(pid: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kilobytes| kilobytes << 10)
}

#[tokio::test]
async fn the_proxy_holds_a_job_at_most_twice_whatever_node_it_comes_from() {
    let _alone = ALONE.lock().await;
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
        let mb = |bytes: usize| bytes as f64 / 1e6;
        println!("prover-proxy: {:.1} MB beside its own {:.1} MB for {:.1} MB", mb(peak - own), mb(own), mb(length));
        assert!(peak - own < 2 * length + REST, "{peak} - {own} bytes for a job of {length}");
    }
}

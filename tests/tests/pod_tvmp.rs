//! The TVMP socket, with a client written from the protocol's description: integers little-endian; a request is the words
//! 0x54564D50, 1, job id, then five JSON texts behind their lengths (claim, program, non-determinism, limit, environment); an
//! answer is the words 0x54564D52, status, job id, then a `u64` length and the proof (0), the height (1), or a text (2).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use prover_api::{JobState, ProverJob, proof};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use upgrader_fleet_tests::http::{devices, wait_for};
use upgrader_fleet_tests::jobs::of_height;
use upgrader_fleet_tests::pods::Pod;

const JOB_ID: u32 = 4711;

#[derive(Debug, PartialEq)]
enum Answer {
    Proof(Vec<u8>),
    TooBig(u32),
    Error(String),
}

fn request(job: &ProverJob) -> Result<Vec<u8>> {
    let texts = [
        serde_json::to_string(&job.claim)?,
        serde_json::to_string(&job.program)?,
        serde_json::to_string(&job.non_determinism)?,
        serde_json::to_string(&job.max_log2_padded_height)?,
        json!({"24": [["RAYON_NUM_THREADS", "90"]]}).to_string(),
    ];
    let mut bytes = Vec::new();
    for word in [0x5456_4D50, 1, JOB_ID] {
        bytes.extend_from_slice(&u32::to_le_bytes(word));
    }
    for text in texts {
        bytes.extend_from_slice(&u32::try_from(text.len())?.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
    }
    Ok(bytes)
}

async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Result<(u32, Answer)> {
    ensure!(stream.read_u32_le().await? == 0x5456_4D52);
    let (status, job_id) = (stream.read_u32_le().await?, stream.read_u32_le().await?);
    let answer = match status {
        0 => {
            let mut bytes = vec![0; usize::try_from(stream.read_u64_le().await?)?];
            stream.read_exact(&mut bytes).await?;
            Answer::Proof(bytes)
        }
        1 => Answer::TooBig(stream.read_u32_le().await?),
        2 => {
            let mut bytes = vec![0; stream.read_u32_le().await? as usize];
            stream.read_exact(&mut bytes).await?;
            Answer::Error(String::from_utf8(bytes)?)
        }
        other => bail!("status {other}"),
    };
    ensure!(stream.read(&mut [0]).await? == 0, "one answer, then the end");
    Ok((job_id, answer))
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, job: &ProverJob) -> Result<Answer> {
    stream.write_all(&request(job)?).await?;
    let (job_id, answer) = answer(&mut stream).await?;
    ensure!(job_id == JOB_ID);
    Ok(answer)
}

/// A pod with both listeners, and where they are.
struct Sockets {
    pod: Pod,
    tcp: String,
    unix: std::path::PathBuf,
    _folder: tempfile::TempDir,
}

async fn sockets() -> Result<Sockets> {
    let folder = tempfile::tempdir()?;
    let unix = folder.path().join("prover.sock");
    // A stale socket of a pod that was killed.
    drop(std::os::unix::net::UnixListener::bind(&unix)?);
    let tcp = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let arguments =
        ["--tcp", &tcp, "--unix", unix.to_str().context("is text")?, "--num-gpus", "1", "--max-log2-padded-height", "14"];
    let mut pod = Pod::start(&arguments)?;
    pod.ready().await?;
    Ok(Sockets { pod, tcp, unix, _folder: folder })
}

#[tokio::test]
async fn a_node_gets_its_proofs_over_tcp_and_unix_sockets() -> Result<()> {
    let sockets = sockets().await?;
    let job = of_height(10, 200);
    let Answer::Proof(first) = ask(TcpStream::connect(&sockets.tcp).await?, &job).await? else { bail!("no proof") };
    ensure!(proof::verify(&job.claim, &first).is_ok());
    let Answer::Proof(second) = ask(UnixStream::connect(&sockets.unix).await?, &job).await? else { bail!("no proof") };
    ensure!(first == second, "the same queue and the same cache");

    let mut limited = of_height(12, 201);
    limited.max_log2_padded_height = Some(11);
    ensure!(ask(TcpStream::connect(&sockets.tcp).await?, &limited).await? == Answer::TooBig(12));
    // Without a limit of its own the node would panic on that status.
    let Answer::Error(text) = ask(TcpStream::connect(&sockets.tcp).await?, &of_height(15, 202)).await? else {
        bail!("too big")
    };
    ensure!(text.contains("2^15"), "{text}");

    let mut wrong = of_height(10, 203);
    wrong.claim.output.clear();
    let Answer::Error(text) = ask(TcpStream::connect(&sockets.tcp).await?, &wrong).await? else { bail!("wrong output") };
    ensure!(text.contains("output"), "{text}");
    wrong.claim.version = 5;
    let Answer::Error(text) = ask(TcpStream::connect(&sockets.tcp).await?, &wrong).await? else { bail!("wrong version") };
    ensure!(text.contains("version 5"), "{text}");
    Ok(())
}

#[tokio::test]
async fn malformed_frames_probes_and_hang_ups_harm_nobody() -> Result<()> {
    let sockets = sockets().await?;
    let good = request(&of_height(9, 210))?;
    let mut bad_magic = good.clone();
    bad_magic[0] ^= 1;
    let mut bad_version = good.clone();
    bad_version[4] = 2;
    let mut too_long = good.clone();
    too_long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut no_json = good.clone();
    no_json[16] = b'x';
    let http = b"GET / HTTP/1.1\r\nHost: pod\r\n\r\n".to_vec();
    for (name, bytes) in [
        ("another first word", bad_magic),
        ("another version", bad_version),
        ("four gigabytes declared", too_long),
        ("no JSON", no_json),
        ("HTTP", http),
    ] {
        let mut stream = TcpStream::connect(&sockets.tcp).await?;
        stream.write_all(&bytes).await?;
        let (_, answer) = answer(&mut stream).await.context(name)?;
        ensure!(matches!(answer, Answer::Error(_)), "{name}: {answer:?}");
    }
    // Truncated: the client hangs up in the middle, at each part of the frame.
    for cut in [1, 5, 11, 13, 40, good.len() - 1] {
        let mut stream = TcpStream::connect(&sockets.tcp).await?;
        stream.write_all(&good[..cut]).await?;
    }
    // Plain connect and close, as a tcpSocket probe does it; and some that connect and say nothing.
    for _ in 0..50 {
        drop(TcpStream::connect(&sockets.tcp).await?);
    }
    let mut idle = Vec::new();
    for _ in 0..20 {
        idle.push(TcpStream::connect(&sockets.tcp).await?);
    }
    // A slow client is served all the same.
    let job = of_height(9, 211);
    let mut slow = TcpStream::connect(&sockets.tcp).await?;
    for chunk in request(&job)?.chunks(300) {
        slow.write_all(chunk).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ensure!(matches!(answer(&mut slow).await?.1, Answer::Proof(_)));

    // Who hangs up while it is proven, cancels.
    let long = of_height(14, 212);
    let mut leaver = TcpStream::connect(&sockets.tcp).await?;
    leaver.write_all(&request(&long)?).await?;
    wait_for(sockets.pod.url(), long.id(), &[JobState::Proving]).await?;
    drop(leaver);
    let before = Instant::now();
    wait_for(sockets.pod.url(), long.id(), &[JobState::Cancelled]).await?;
    ensure!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    ensure!(devices(sockets.pod.url()).await?.len() == 1);
    Ok(())
}

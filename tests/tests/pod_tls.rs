//! A pod with a certificate, and one without on an address that others reach.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prover_api::client::{Client, ClientError, JobBody, ProveOptions, Timing, Token};
use prover_api::proof;
use reqwest::{Certificate, StatusCode, Version};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::{Pod, binary};

/// Writes a fresh self-signed certificate for `localhost` and its key; returns the certificate.
fn issue(folder: &Path) -> Result<String> {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    // Key first: in between the two do not belong together, and the pod must go on with what it has.
    std::fs::write(folder.join("key.pem"), issued.signing_key.serialize_pem())?;
    std::fs::write(folder.join("cert.pem"), issued.cert.pem())?;
    Ok(issued.cert.pem())
}

fn who_trusts(authority: &str) -> Result<reqwest::Client> {
    drop(rustls::crypto::ring::default_provider().install_default());
    let authority = Certificate::from_pem(authority.as_bytes())?;
    Ok(reqwest::Client::builder().tls_certs_only([authority]).timeout(Duration::from_secs(5)).build()?)
}

/// Waits until `/readyz` answers 200 to who trusts this authority.
async fn reached(url: &str, authority: &str, within: Duration) -> Result<reqwest::Response> {
    let client = who_trusts(authority)?;
    let deadline = Instant::now() + within;
    loop {
        match client.get(format!("{url}/readyz")).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => return Ok(answer),
            other => ensure!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_certificate_is_served_and_rotated_without_a_restart() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let first = issue(folder.path())?;
    let token = folder.path().join("token");
    std::fs::write(&token, "the-token\n")?;
    let text = |path: &Path| path.to_str().map(str::to_owned).context("is text");
    let files = [text(&certificate)?, text(&key)?, text(&token)?];
    let pod = Pod::start(&["--tls-cert", &files[0], "--tls-key", &files[1], "--token-file", &files[2]])?;
    let port = pod.url().rsplit(':').next().context("has a port")?;
    let url = format!("https://localhost:{port}");
    let answer = reached(&url, &first, Duration::from_secs(90)).await?;
    ensure!(answer.version() == Version::HTTP_2, "negotiated by ALPN");
    ensure!(!pod.whole_log()?.contains("PLAIN HTTP"));

    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, &first)?;
    let job = of_height(9, 400);
    let client = Client::builder().endpoints([&url]).authorities(&authority).token(Token::from_file(&token)?).build()?;
    client.prove(JobBody::from_job(&job)?, ProveOptions::default()).await?;
    by_the_proxy(&url, &authority, &token)?;
    // Without encryption nothing is said, to a stranger nothing is sent.
    ensure!(reqwest::get(format!("http://localhost:{port}/readyz")).await.is_err());
    let stranger = folder.path().join("stranger.pem");
    std::fs::write(&stranger, rcgen::generate_simple_self_signed(["localhost".to_owned()])?.cert.pem())?;
    let impatient = Timing { patience: Duration::from_millis(300), ..Timing::default() };
    let client = Client::builder().endpoints([&url]).authorities(&stranger).timing(impatient).build()?;
    let refused = client.prove(JobBody::from_job(&job)?, ProveOptions::default()).await;
    ensure!(matches!(refused, Err(ClientError::Patience { .. })), "{refused:?}");

    let second = issue(folder.path())?;
    reached(&url, &second, Duration::from_secs(30)).await?;
    ensure!(reached(&url, &first, Duration::ZERO).await.is_err(), "the old one is gone");
    Ok(())
}

/// What a node gets whose environment names the pod, the authority and the token.
fn by_the_proxy(url: &str, authority: &Path, token: &Path) -> Result<()> {
    let job = of_height(9, 401);
    for (token, code) in [(Some(token), 0), (None, 1)] {
        let mut proxy = Command::new(binary("prover-proxy")?)
            .env("PROVER_PROXY_ENDPOINTS", url)
            .env("PROVER_PROXY_CA_FILE", authority)
            .env("PROVER_PROXY_PATIENCE", "2s")
            .envs(token.map(|token| ("PROVER_PROXY_TOKEN_FILE", token)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        proxy.stdin.take().context("is piped")?.write_all(&bytes(&job))?;
        let ended = proxy.wait_with_output()?;
        let log = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.code() == Some(code), "{log}");
        ensure!(!log.contains("the-token"), "{log}");
        ensure!(code != 0 || proof::verify(&job.claim, &ended.stdout).is_ok());
    }
    Ok(())
}

#[tokio::test]
async fn a_plain_listener_that_others_reach_warns_loudly() -> Result<()> {
    let mut pod = Pod::start_at("0.0.0.0:0", &["--backend", "mock"], &[])?;
    pod.ready().await?;
    let log = pod.whole_log()?;
    ensure!(log.contains("WARN") && log.contains("PLAIN HTTP") && log.contains("--tls-cert"), "{log}");
    ensure!(log.contains("no --token-file"), "{log}");
    let mut quiet = Pod::start(&["--backend", "mock"])?;
    quiet.ready().await?;
    ensure!(!quiet.whole_log()?.contains("WARN"), "{}", quiet.log());
    // Half of a certificate, and one that is none, are errors at the start.
    let folder = tempfile::tempdir()?;
    issue(folder.path())?;
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    ensure!(Pod::start(&["--tls-cert", &at("cert.pem")]).is_err());
    let error = Pod::start(&["--tls-cert", &at("key.pem"), "--tls-key", &at("key.pem")]).map(drop);
    ensure!(error.is_err_and(|error| format!("{error:#}").contains("key.pem")));
    Ok(())
}

//! What a pod tells of itself: metrics, its description, and how answers travel.

use std::collections::BTreeSet;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Method, StatusCode};
use upgrader_fleet_tests::http::{post, send};
use upgrader_fleet_tests::jobs::{bytes, of_height};
use upgrader_fleet_tests::pods::Pod;

async fn pod() -> Result<Pod> {
    let mut pod = Pod::start(&[])?;
    pod.ready().await?;
    Ok(pod)
}

#[tokio::test]
async fn metrics_cover_what_an_operator_watches_and_their_labels_are_bounded() -> Result<()> {
    let pod = pod().await?;
    ensure!(post(pod.url(), bytes(&of_height(10, 500)), &[("x-job-kind", "zzz-kind")]).await?.status() == StatusCode::OK);
    for (method, path) in
        [(Method::GET, "/zzz-path"), (Method::from_bytes(b"ZZZ")?, "/v1/proofs"), (Method::PUT, "/v1/capacity")]
    {
        send(method, &format!("{}{path}", pod.url()), None, &[]).await?;
    }
    let metrics = send(Method::GET, &format!("{}/metrics", pod.url()), None, &[]).await?.text().await?;
    for series in [
        r#"prover_pod_queue_jobs{priority="highest"} 0"#,
        r#"prover_pod_queue_jobs{priority="lowest"} 0"#,
        r#"prover_pod_queue_estimated_seconds{priority="normal"} 0"#,
        r#"prover_pod_jobs_total{backend="cpu",kind="other",outcome="done"} 1"#,
        r#"prover_pod_stage_duration_seconds_count{backend="cpu",stage="queued"} 1"#,
        r#"prover_pod_stage_duration_seconds_count{backend="cpu",stage="trace"} 1"#,
        r#"prover_pod_stage_duration_seconds_count{backend="cpu",stage="prove"} 1"#,
        r#"prover_pod_stage_duration_seconds_count{backend="cpu",stage="verify"} 1"#,
        r#"prover_pod_job_log2_padded_height_bucket{le="10"} 1"#,
        r#"prover_pod_job_log2_padded_height_bucket{le="9"} 0"#,
        r#"prover_pod_proof_verification_failures_total{backend="cpu"} 0"#,
        r#"prover_pod_worker_restarts_total{cause="died",worker="0"} 0"#,
        r#"prover_pod_worker_resident_bytes{backend="cpu",worker="0"} "#,
        r#"prover_pod_device_ready{backend="cpu",worker="0"} 1"#,
        &format!(r#"prover_pod_build_info{{proof_version="8",version="{}"}} 1"#, env!("CARGO_PKG_VERSION")),
        r#"prover_pod_http_requests_total{method="GET",route="other",status="404"} 1"#,
        r#"prover_pod_http_requests_total{method="other",route="/v1/proofs",status="405"} 1"#,
    ] {
        ensure!(metrics.contains(series), "no `{series}` in\n{metrics}");
    }
    ensure!(!metrics.to_lowercase().contains("zzz"), "a caller chooses a label:\n{metrics}");
    // A unit in the name of all that has one, and a text for each.
    let families: BTreeSet<&str> = metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
    let typed: Vec<(&str, &str)> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    ensure!(families.len() == typed.len() && families.len() >= 18, "{families:?}");
    for (name, kind) in typed {
        ensure!(kind != "counter" || name.ends_with("_total"), "{name}");
        ensure!(!name.contains("duration") || name.ends_with("_seconds"), "{name}");
        ensure!(!name.contains("memory") && !name.contains("resident") || name.ends_with("_bytes"), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn answers_are_compressed_for_who_asks_and_proofs_are_not() -> Result<()> {
    let pod = pod().await?;
    let job = of_height(9, 510);
    let proof = post(pod.url(), bytes(&job), &[]).await?.bytes().await?;
    // This client decodes nothing by itself.
    let client = reqwest::Client::builder().no_gzip().no_zstd().timeout(Duration::from_mins(1)).build()?;
    let get = |path: &str, encoding: &'static str| {
        client.get(format!("{}{path}", pod.url())).header("accept-encoding", encoding).send()
    };
    for path in ["/openapi.json", "/metrics", "/v1/devices", &format!("/v1/proofs/{}", job.id())] {
        for encoding in ["gzip", "zstd"] {
            let answer = get(path, encoding).await?;
            ensure!(answer.headers().get("content-encoding").is_some_and(|value| value == encoding), "{path} {encoding}");
            let packed = answer.bytes().await?;
            let mut plain = String::new();
            match encoding {
                "gzip" => drop(flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut plain)?),
                _ => plain = String::from_utf8(zstd::decode_all(&packed[..])?)?,
            }
            ensure!(plain.len() > 100 && plain.is_ascii(), "{path}: {plain}");
        }
    }
    let path = format!("/v1/proofs/{}/proof", job.id());
    let answer = get(&path, "gzip, zstd").await?;
    ensure!(!answer.headers().contains_key("content-encoding"));
    ensure!(answer.bytes().await? == proof);
    let events = get(&format!("/v1/proofs/{}/events", job.id()), "gzip, zstd").await?;
    ensure!(!events.headers().contains_key("content-encoding"), "events must not wait for a compressor");
    Ok(())
}

#[tokio::test]
async fn a_pod_serves_the_description_that_is_stored() -> Result<()> {
    let mut pod = Pod::start(&["--backend", "mock"])?;
    pod.ready().await?;
    let served = send(Method::GET, &format!("{}/openapi.json", pod.url()), None, &[]).await?;
    ensure!(served.headers()["content-type"] == "application/json");
    let served: serde_json::Value = served.json().await?;
    let stored: serde_json::Value = serde_json::from_str(include_str!("../../docs/openapi.json"))?;
    ensure!(served == stored, "run: make openapi");
    // Each path that is described exists: a wrong one would be a 404 of the type `not-found` without an instance.
    for (path, operations) in served["paths"].as_object().context("has paths")? {
        let concrete = path.replace("{id}", &of_height(9, 1).id().to_string());
        for method in operations.as_object().context("has operations")?.keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes())?;
            let answer = send(method.clone(), &format!("{}{concrete}", pod.url()), None, &[]).await?;
            ensure!(answer.status() != StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            if answer.status() == StatusCode::NOT_FOUND {
                let problem: serde_json::Value = answer.json().await?;
                ensure!(problem["instance"].is_string(), "{method} {path} does not exist");
            }
        }
    }
    Ok(())
}

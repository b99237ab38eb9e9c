//! A plain HTTP client for tests: what a user with curl sees.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prover_api::{JobId, JobState, JobStatus, Problem};
use reqwest::{Client, Method, Response, StatusCode};

/// A client without retries or intelligence.
///
/// # Errors
///
/// Those of the library.
pub fn client() -> Result<Client> {
    // The second installation fails: one is what is wanted.
    drop(rustls::crypto::ring::default_provider().install_default());
    Ok(Client::builder().timeout(Duration::from_mins(5)).build()?)
}

/// Posts a job and waits for the answer.
///
/// # Errors
///
/// Those of the connection.
pub async fn post(url: &str, body: Vec<u8>, headers: &[(&str, &str)]) -> Result<Response> {
    send(Method::POST, &format!("{url}/v1/proofs"), Some(body), headers).await
}

/// Sends any request.
///
/// # Errors
///
/// Those of the connection.
pub async fn send(method: Method, url: &str, body: Option<Vec<u8>>, headers: &[(&str, &str)]) -> Result<Response> {
    let mut request = client()?.request(method, url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    Ok(request.send().await?)
}

/// The problem in an error answer.
///
/// # Errors
///
/// When the answer is no problem document, or says something else than its status line.
pub async fn problem(response: Response) -> Result<Problem> {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = response.text().await?;
    ensure!(kind.as_deref() == Some("application/problem+json"), "{status} {kind:?} {text}");
    let problem: Problem = serde_json::from_str(&text).context(text)?;
    ensure!(problem.status == status && problem.problem_type.status() == status, "{problem:?} came with {status}");
    Ok(problem)
}

/// The status of a job; `None` when the pod knows nothing of it.
///
/// # Errors
///
/// Those of the connection.
pub async fn status(url: &str, job: JobId) -> Result<Option<JobStatus>> {
    let response = send(Method::GET, &format!("{url}/v1/proofs/{job}"), None, &[]).await?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    Ok(Some(response.error_for_status()?.json().await?))
}

/// Waits until a job reaches one of `states`.
///
/// # Errors
///
/// When it does not within a minute and a half.
pub async fn wait_for(url: &str, job: JobId, states: &[JobState]) -> Result<JobStatus> {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let seen = status(url, job).await?;
        if let Some(status) = &seen
            && states.contains(&status.state)
        {
            return Ok(status.clone());
        }
        ensure!(Instant::now() < deadline, "{job} is {seen:?}, not one of {states:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the pod says of its devices.
///
/// # Errors
///
/// Those of the connection.
pub async fn devices(url: &str) -> Result<Vec<prover_api::DeviceInfo>> {
    Ok(send(Method::GET, &format!("{url}/v1/devices"), None, &[]).await?.error_for_status()?.json().await?)
}

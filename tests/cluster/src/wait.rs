//! Waiting for what a cluster does in its own time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks until the answer is yes; fails with the last answer's words when it takes longer than the limit.
///
/// # Errors
/// The limit, with what was seen last.
pub async fn until<F: Future<Output = Result<Result<(), String>>>>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> F,
) -> Result<Duration> {
    let began = Instant::now();
    let mut last = String::from("nothing");
    while began.elapsed() < limit {
        match check().await {
            Ok(Ok(())) => return Ok(began.elapsed()),
            Ok(Err(seen)) => last = seen,
            // The API server may be restarting.
            Err(error) => last = format!("{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("no {what} in {} seconds; last seen: {last}", limit.as_secs())
}

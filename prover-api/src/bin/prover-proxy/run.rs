//! One job: from standard input to an exit code.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use prover_api::client::{Client, ClientError, OnProgress, ProveOptions, Proved, Timing, Token};
use prover_api::{JobKind, JobState, Priority, is_block_program};

use crate::caller::{Caller, Gone};
use crate::fallback;
use crate::input::Input;
use crate::options::Options;

/// The exit code of all failures that have none of their own.
pub const FAILED: i32 = 1;
/// Added to a log2 padded height that is over the node's limit. Upstream reserves 200 to 232.
const TOO_BIG: i32 = 200;
/// Largest log2 padded height that has an exit code.
const LARGEST: u8 = 32;
/// How long pods may take to hear that the job is not wanted any more. Nobody waits for this process then.
const SETTLE: Duration = Duration::from_secs(10);

/// Does the whole work.
pub fn to_exit_code(options: Options) -> i32 {
    let caller = Caller::note();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("no runtime").and_then(|runtime| runtime.block_on(guarded(options, caller)));
    outcome.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        FAILED
    })
}

/// The work, as long as somebody waits for it.
async fn guarded(options: Options, caller: Caller) -> anyhow::Result<i32> {
    let client = client(&options)?;
    tokio::select! {
        code = work(&client, &options) => code,
        gone = caller.until_gone() => {
            let gone = gone.context("signals cannot be received")?;
            // The work is dropped by now, and with it the wish; what remains is to let the pods know.
            tracing::warn!("{gone}: the job is cancelled");
            if !client.settle(SETTLE).await {
                tracing::warn!("not every pod could be told");
            }
            Ok(match gone {
                Gone::Signal(number) => 128 + number,
                _ => FAILED,
            })
        }
    }
}

fn client(options: &Options) -> anyhow::Result<Client> {
    let mut builder = Client::builder()
        .endpoints(options.endpoints.iter().cloned())
        .timing(Timing { patience: options.patience, ..Timing::default() });
    if let Some(path) = &options.token_file {
        let token = Token::from_file(path).with_context(|| format!("the token file {} is unusable", path.display()))?;
        builder = builder.token(token);
    }
    if let Some(path) = &options.ca_file {
        builder = builder.authorities(path);
    }
    Ok(builder.build()?)
}

async fn work(client: &Client, options: &Options) -> anyhow::Result<i32> {
    let input = tokio::task::spawn_blocking(|| Input::read(io::stdin().lock())).await.context("the reader is lost")??;
    let claim = input.body.claim();
    let is_block = is_block_program(claim.program_digest);
    let priority = options.priority.unwrap_or_else(|| Priority::of_program(claim.program_digest));
    let id = input.body.id();
    tracing::info!("job {id}: {} bytes, {:?} input, priority {priority}", input.body.json().len(), input.shape);
    let prove_options = ProveOptions {
        priority,
        kind: if is_block { JobKind::Block } else { JobKind::Other },
        force_cpu: options.force_cpu,
        deadline: None,
        progress: Some(news()),
    };
    let limit = input.body.max_log2_padded_height();
    match client.prove(input.body.clone(), prove_options).await {
        Ok(proved) => {
            tracing::info!("job {id}: proof of {} bytes from {}, verified", proved.bytes.len(), proved.pod);
            // Not on this thread: a node that does not read must not keep signals from being heard.
            tokio::task::spawn_blocking(move || write(&proved)).await.context("the writer is lost")?
        }
        Err(error) => {
            tracing::error!("job {id}: {error}");
            match next_step(&error, limit, options.fallback.is_some()) {
                Next::Exit(code) => Ok(code),
                Next::Fallback => fall_back(options, input).await,
            }
        }
    }
}

async fn fall_back(options: &Options, input: Input) -> anyhow::Result<i32> {
    let Some(prover) = &options.fallback else { return Ok(FAILED) };
    tracing::warn!("falling back to {}", prover.display());
    let code = fallback::prove(prover, input).await?;
    Ok(code.unwrap_or_else(|| {
        tracing::error!("the fallback was killed, perhaps for want of memory");
        FAILED
    }))
}

/// What follows a failure.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Exit(i32),
    Fallback,
}

fn next_step(error: &ClientError, limit: Option<u8>, fallback: bool) -> Next {
    if fallback && !error.is_about_the_job() {
        return Next::Fallback;
    }
    match error {
        // A node that set no limit panics at these codes.
        ClientError::TooBig { log2_padded_height, .. } if limit.is_some() && *log2_padded_height <= LARGEST => {
            Next::Exit(TOO_BIG + i32::from(*log2_padded_height))
        }
        _ => Next::Exit(FAILED),
    }
}

/// Nothing but the proof ever goes to standard output.
fn write(proved: &Proved) -> anyhow::Result<i32> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&proved.bytes).and_then(|()| stdout.flush()).context("standard output does not take the proof")?;
    Ok(0)
}

/// Logs where a job is whenever that changes.
fn news() -> OnProgress {
    let last: Mutex<Option<(String, JobState)>> = Mutex::default();
    Arc::new(move |pod, status| {
        let now = Some((pod.to_owned(), status.state));
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == now {
            return;
        }
        *last = now;
        let height = status.log2_padded_height.map(|height| format!(", padded height 2^{height}")).unwrap_or_default();
        tracing::info!("job {}: {} at {pod}{height}", status.id, status.state.name());
    })
}

#[cfg(test)]
mod tests {
    use prover_api::{Problem, ProblemType};

    use super::*;

    #[test]
    fn exit_codes_are_what_nodes_expect() {
        let too_big = |log2_padded_height, over_own_limit| ClientError::TooBig { log2_padded_height, over_own_limit };
        let refused = |kind| ClientError::Refused { pod: "a".to_owned(), problem: Box::new(Problem::new(kind)) };
        let silent = || ClientError::Patience { waited: Duration::ZERO, last: "no route".to_owned() };
        for (error, limit, fallback, expected) in [
            (too_big(22, true), Some(21), false, Next::Exit(222)),
            (too_big(22, true), Some(21), true, Next::Exit(222)),
            (too_big(22, false), Some(23), false, Next::Exit(222)),
            (too_big(22, false), Some(23), true, Next::Fallback),
            (too_big(22, false), None, false, Next::Exit(1)),
            (too_big(22, false), None, true, Next::Fallback),
            (too_big(33, true), Some(20), false, Next::Exit(1)),
            (refused(ProblemType::ProgramFailed), None, true, Next::Exit(1)),
            (silent(), None, false, Next::Exit(1)),
            (silent(), Some(20), true, Next::Fallback),
        ] {
            assert_eq!(next_step(&error, limit, fallback), expected, "{error:?} {limit:?} {fallback}");
        }
    }
}

//! Worker processes: started, watched, killed, started again.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::protocol::{self, FromWorker, ToWorker};
use crate::scheduler::{Backend, WorkerId};
use crate::worker::DEVICE_LOST;

/// How to run workers.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Kind of prover that the workers are.
    pub backend: Backend,
    /// The program; the pod's own by default.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment on top of the pod's own.
    pub env: Vec<(String, String)>,
    /// Silence after which a worker is killed.
    pub heartbeat_timeout: Duration,
    /// Time from start to the first words, self-test included.
    pub start_timeout: Duration,
}

/// What the pool tells the service.
#[derive(Debug)]
pub enum PoolEvent {
    /// A worker said something.
    Said {
        /// Which.
        worker: WorkerId,
        /// Of which process; reports of a dead one may still be under way.
        generation: u64,
        /// What.
        message: FromWorker,
        /// With what.
        payload: Vec<u8>,
    },
    /// A new process takes orders, once it has said hello.
    Started {
        /// Which.
        worker: WorkerId,
        /// Which process.
        generation: u64,
        /// How to reach it.
        handle: WorkerHandle,
    },
    /// A process died.
    Died {
        /// Which.
        worker: WorkerId,
        /// Which process.
        generation: u64,
        /// Whether the service stopped it, and not a fault of its own.
        stopped: bool,
    },
}

/// Orders for one worker process.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    /// Process id, for people and tests.
    pub pid: u32,
    orders: mpsc::UnboundedSender<(ToWorker, Bytes)>,
    kill: Arc<Kill>,
}

#[derive(Debug, Default)]
struct Kill {
    order: Notify,
    /// Whether the process is to be replaced without delay.
    at_once: AtomicBool,
}

impl WorkerHandle {
    /// Sends an order. Nothing happens when the process is gone: its death is reported on its own.
    pub fn order(&self, order: ToWorker, body: Bytes) {
        drop(self.orders.send((order, body)));
    }

    /// Stops the process and has another one started at once: this is how a CPU proof is cancelled, however many are.
    pub fn stop(&self) {
        self.kill.at_once.store(true, Ordering::Relaxed);
        self.kill.order.notify_one();
    }

    /// Kills a process that is of no use, such as one that failed its self-test. The next one may fail too, so it is started as
    /// after a crash: later and later.
    pub fn reject(&self) {
        self.kill.order.notify_one();
    }
}

/// Keeps one worker running for ever. Ends when the service is gone.
pub async fn supervise(worker: WorkerId, config: PoolConfig, events: mpsc::UnboundedSender<PoolEvent>) {
    let mut generation = 0;
    let mut pause = FIRST_PAUSE;
    while !events.is_closed() {
        generation += 1;
        let started = Instant::now();
        let end = match run_once(worker, generation, &config, &events).await {
            Ok(end) => end,
            Err(error) => End::Fault(format!("cannot run {}: {error}", config.program.display())),
        };
        let lived = started.elapsed();
        let stopped = matches!(end, End::Stopped);
        match &end {
            End::Stopped => debug!(%worker, generation, lived_seconds = lived.as_secs_f64(), "worker stopped"),
            End::Fault(reason) => warn!(%worker, generation, reason, lived_seconds = lived.as_secs_f64(), "worker ended"),
        }
        if events.send(PoolEvent::Died { worker, generation, stopped }).is_err() {
            return;
        }
        let wait = pause_after(stopped, lived, &mut pause);
        sleep(wait).await;
    }
}

/// How long to wait before the next process. One that dies by itself soon after its start would be started hundreds of times a
/// second; one that was stopped is no sign of trouble, and says nothing about the trouble before.
fn pause_after(stopped: bool, lived: Duration, pause: &mut Duration) -> Duration {
    if stopped {
        return Duration::ZERO;
    }
    *pause = if lived > LONG_LIFE { FIRST_PAUSE } else { (*pause * 2).min(LONGEST_PAUSE) };
    *pause
}

/// How a process ended.
enum End {
    /// As the service wanted.
    Stopped,
    /// For this reason.
    Fault(String),
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LONG_LIFE: Duration = Duration::from_secs(10);

async fn run_once(
    worker: WorkerId,
    generation: u64,
    config: &PoolConfig,
    events: &mpsc::UnboundedSender<PoolEvent>,
) -> std::io::Result<End> {
    let mut child = Command::new(&config.program)
        .args(&config.args)
        .envs(config.env.iter().cloned())
        .env("UPGRADER_FLEET_WORKER", worker.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().unwrap_or(0);
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(std::io::Error::other("no pipes"));
    };
    debug!(%worker, generation, pid, "worker starts");

    let (orders, mut to_send) = mpsc::unbounded_channel::<(ToWorker, Bytes)>();
    let kill = Arc::new(Kill::default());
    let handle = WorkerHandle { pid, orders, kill: Arc::clone(&kill) };
    if events.send(PoolEvent::Started { worker, generation, handle }).is_err() {
        return Ok(End::Stopped);
    }

    let writer = tokio::spawn(async move {
        while let Some((order, body)) = to_send.recv().await {
            if protocol::send(&mut stdin, &order, &body).await.is_err() {
                // The process is going; its reader notices.
                return;
            }
        }
    });

    let start_deadline = Instant::now() + config.start_timeout;
    let mut hello = false;
    let end = loop {
        // The heart beats during the self-test too; that must not extend the time that the test has.
        let silence = if hello { config.heartbeat_timeout } else { start_deadline.saturating_duration_since(Instant::now()) };
        // `receive` is not cancel-safe, but after any of the other branches the process is killed and never read again.
        let frame = tokio::select! {
            () = kill.order.notified() => {
                break if kill.at_once.load(Ordering::Relaxed) { End::Stopped } else { End::Fault("rejected".to_owned()) };
            }
            frame = timeout(silence, protocol::receive::<FromWorker>(&mut stdout)) => frame,
        };
        match frame {
            Err(_) if hello => break End::Fault(format!("silent for {} s", silence.as_secs())),
            Err(_) => break End::Fault(format!("no self-test within {} s", config.start_timeout.as_secs())),
            Ok(Err(error)) => break End::Fault(format!("garbled report: {error}")),
            Ok(Ok(None)) => break End::Fault(format!("exited: {}", describe(&mut child).await)),
            Ok(Ok(Some((message, payload)))) => {
                if let FromWorker::Hello { device, .. } = &message {
                    hello = true;
                    info!(%worker, generation, pid, device, "worker is up");
                }
                if events.send(PoolEvent::Said { worker, generation, message, payload }).is_err() {
                    break End::Stopped;
                }
            }
        }
    };
    writer.abort();
    // SIGKILL also ends one that is stopped, swapped out or deep in a proof.
    drop(child.kill().await);
    Ok(end)
}

async fn describe(child: &mut Child) -> String {
    match timeout(Duration::from_secs(2), child.wait()).await {
        Ok(Ok(status)) => describe_status(status),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "closed its output but lives".to_owned(),
    }
}

fn describe_status(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    if status.code() == Some(DEVICE_LOST) {
        return "its device was lost to it; a new process opens it again".to_owned();
    }
    match status.signal() {
        Some(9) => "killed (SIGKILL); if nobody did, it ran out of memory".to_owned(),
        Some(signal) => format!("signal {signal}"),
        None => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_are_answered_later_and_later_but_stops_at_once() {
        let mut pause = FIRST_PAUSE;
        let quick = Duration::from_millis(300);
        let mut crash = |lived| pause_after(false, lived, &mut pause);
        let waits: Vec<_> = (0..12).map(|_| crash(quick)).collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert_eq!((waits[0], waits[11]), (FIRST_PAUSE * 2, LONGEST_PAUSE));
        assert_eq!(crash(LONG_LIFE * 2), FIRST_PAUSE, "after a long life all is forgiven");

        for _ in 0..100 {
            assert_eq!(pause_after(true, quick, &mut pause), Duration::ZERO);
        }
        assert_eq!(pause_after(false, quick, &mut pause), FIRST_PAUSE * 2, "stops neither add to the wait nor end it");
    }
}

//! The upgrader at work: looks at the mempool again and again, does what the plan says, and keeps track.
//!
//! Thin on purpose. What to do is said by [`select`](crate::select::select), what an upgrade is by [`Dag`](crate::dag::Dag);
//! here are the clock, the node and the provers.

mod context;
mod fees;
mod proving;
mod stage;
mod submission;
mod upgrade;
mod watch;

pub use context::{Context, Proving};
pub use proving::priority;
pub use stage::Stage;
pub use submission::Submitted;
pub use upgrade::Report;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use neptune_primitives::timestamp::Timestamp;
use prover_api::client::PodStatus;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::chain::{self, FollowError, Followed};
use crate::dag::{Failure, Outcome, Superseded};
use crate::explain::{Board, Recent, Running};
use crate::mempool::Mempool;
use crate::node::NodeError;
use crate::ring::Ring;
use crate::select::{self, History, Plan, Planned, View, Work};
use crate::{Shard, TxId, logs};
use fees::Fees;
use upgrade::Upgrade;

/// What an engine is told beside its [`Context`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Its shard.
    pub shard: Shard,
    /// Whether it upgrades at all; otherwise it only watches and explains.
    pub enabled: bool,
    /// Upgrades at once.
    pub max_parallel_upgrades: usize,
    /// Pause between two looks at the mempool.
    pub poll_interval: Duration,
    /// How long running upgrades may go on once it is told to stop.
    pub grace: Duration,
}

/// One upgrade under way, as the engine sees it.
struct Handle {
    planned: Planned,
    /// Of the tip when it began.
    height: u64,
    control: mpsc::UnboundedSender<Superseded>,
    stage: channel::Receiver<Stage>,
    absent_since: Option<Instant>,
    looked: Instant,
    looked_closer: Instant,
}

/// An upgrader.
pub struct Engine {
    context: Arc<Context>,
    options: Options,
    board: Arc<Board>,
    ring: channel::Sender<Ring>,
    mempool: Mempool,
    history: History,
    fees: Fees,
    running: HashMap<u64, Handle>,
    upgrades: JoinSet<(u64, Report)>,
    started: u64,
    tip_since: Instant,
    max_log2_padded_height: Option<u8>,
    provers_seen: Option<Instant>,
    /// When some pod last took jobs.
    provers_took: Option<Instant>,
    /// The pods are being asked.
    look: Option<tokio::task::JoinHandle<Vec<PodStatus>>>,
    last_error: Option<String>,
}

/// How often provers are asked what they can do.
const PROVERS: Duration = Duration::from_secs(10);
/// How long no pod may take jobs before that is said, and the shard counts as not ready: a rollout replaces them one after the other,
/// and their Service's name follows with some seconds' delay. Jobs wait for longer than that.
const PROVERS_AWAY: Duration = Duration::from_secs(30);

impl Engine {
    /// An engine that has seen nothing yet.
    pub fn new(context: Arc<Context>, options: Options, board: Arc<Board>) -> Self {
        Self {
            context,
            options,
            board,
            ring: channel::Sender::new(Ring::default()),
            mempool: Mempool::default(),
            history: History::default(),
            fees: Fees::default(),
            running: HashMap::new(),
            upgrades: JoinSet::new(),
            started: 0,
            tip_since: Instant::now(),
            max_log2_padded_height: None,
            provers_seen: None,
            provers_took: None,
            look: None,
            last_error: None,
        }
    }

    /// Works until told to stop; then lets running upgrades end, within the grace period.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.options.poll_interval);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut deadline = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled(), if deadline.is_none() => {
                    tracing::info!(running = self.running.len(), "stopping; no new upgrades");
                    deadline = Some(tokio::time::Instant::now() + self.options.grace);
                }
                Some(ended) = self.upgrades.join_next() => self.on_ended(ended),
                () = until(deadline), if deadline.is_some() => {
                    for handle in self.running.values() {
                        // A receiver that is gone has ended by itself.
                        let _ = handle.control.send(Superseded::Shutdown);
                    }
                    while let Ok(Some(ended)) = tokio::time::timeout(Duration::from_secs(5), self.upgrades.join_next()).await {
                        self.on_ended(ended);
                    }
                    break;
                }
                _ = tick.tick() => {
                    let began = Instant::now();
                    self.look_at_provers().await;
                    match self.round(deadline.is_none()).await {
                        Ok(()) => {
                            if let Some(error) = self.last_error.take() {
                                tracing::info!(after = %error, "the node answers again");
                            }
                        }
                        Err(error) => self.on_node_error(&error),
                    }
                    self.publish(began);
                }
            }
            if deadline.is_some() && self.running.is_empty() {
                break;
            }
        }
        self.context.provers.settle(Duration::from_secs(5)).await;
    }

    /// One look: chain, mempool, what became of running upgrades, a new plan.
    async fn round(&mut self, may_begin: bool) -> Result<(), FollowError> {
        let mut ring = self.ring.borrow().clone();
        let known = ring.tip().map(|tip| tip.hash);
        let followed = chain::follow(&mut ring, &self.context.nodes, self.context.network).await;
        // What was read of a chain before an error is kept, but not half of a reorganization: upgrades would be given up for
        // blocks that are only not read yet.
        let is_whole = followed.is_ok() || known.is_none_or(|hash| ring.contains(hash));
        if is_whole && !matches!(followed, Ok(Followed::Same)) {
            self.on_tip(ring, followed.as_ref().is_ok_and(|followed| *followed == Followed::Reorganized));
        }
        followed?;
        let ring = self.ring.borrow().clone();
        let Some(tip) = ring.tip() else { return Ok(()) };
        let (tip_hash, height) = (tip.hash, tip.height);
        let behind = chain::behind(self.context.network, tip.timestamp, Timestamp::now());

        let now = now();
        self.mempool.refresh(&self.context.nodes, self.options.shard, self.context.address.as_ref(), tip_hash, now).await?;
        self.watch_running(&ring).await?;

        let rules = chain::can_prove_after(self.context.network, height);
        let busy = self.running.values().flat_map(|handle| handle.planned.work.txids()).collect();
        let view = View {
            candidates: self.mempool.candidates(&ring, Timestamp::now(), self.context.policy.min_gobbling_fee),
            busy,
            height,
            now,
            max_log2_padded_height: self.max_log2_padded_height,
        };
        let plan = select::select(&view, self.options.shard, &self.context.policy, &self.history);
        self.history.forget(|txid| self.mempool.lists(txid), height, now);
        self.fees.forget(&mut self.mempool);
        let next: Vec<Planned> =
            if may_begin && rules && behind.is_none() && self.options.enabled && self.max_log2_padded_height.is_some() {
                let room = self.options.max_parallel_upgrades.saturating_sub(self.running.len());
                plan.work.iter().take(room).copied().collect()
            } else {
                vec![]
            };
        for planned in next {
            self.begin(planned);
        }
        self.board.planned(plan, height, rules, behind);
        Ok(())
    }

    fn begin(&mut self, planned: Planned) {
        logs::attempting(&planned.work.txids().collect::<Vec<_>>());
        self.started += 1;
        let number = self.started;
        let (control, commands) = mpsc::unbounded_channel();
        let (stage_sender, stage) = channel::channel(Stage::preparing());
        let upgrade =
            Upgrade::new(self.context.clone(), planned.work, planned.incentive, self.ring.subscribe(), commands, stage_sender);
        self.upgrades.spawn(async move { (number, upgrade.run().await) });
        let height = self.ring.borrow().tip().map_or(0, |tip| tip.height);
        let (looked, looked_closer) = (Instant::now(), Instant::now());
        let handle = Handle { planned, height, control, stage, absent_since: None, looked, looked_closer };
        self.running.insert(number, handle);
    }

    fn on_tip(&mut self, ring: Ring, reorganized: bool) {
        if let Some(tip) = ring.tip() {
            tracing::info!(height = tip.height, hash = %tip.hash.to_hex(), reorganized, "new tip");
        }
        self.fees.on_tip(&ring, &self.context.metrics);
        self.ring.send_replace(ring);
        self.tip_since = Instant::now();
    }

    fn on_ended(&mut self, ended: Result<(u64, Report), tokio::task::JoinError>) {
        let (number, report) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, "an upgrade panicked; this is a bug");
                // Which one it was is not said. Those whose channel is closed are over.
                let height = self.ring.borrow().tip().map_or(0, |tip| tip.height);
                for (_, handle) in self.running.extract_if(|_, handle| handle.control.is_closed()) {
                    for txid in handle.planned.work.txids() {
                        self.history.poisoned(txid, height, "the upgrade panicked");
                    }
                }
                return;
            }
        };
        let height = self.ring.borrow().tip().map_or(0, |tip| tip.height);
        let begun = self.running.remove(&number).map_or(height, |handle| handle.height);
        let seconds = report.elapsed.as_secs_f64();
        let txids: Vec<TxId> = report.work.txids().collect();
        if let Some((txid, proof)) = report.learned {
            self.mempool.learned(txid, proof);
        }
        for txid in &txids {
            self.mempool.touch(*txid);
        }
        match &report.outcome {
            Outcome::Submitted => {
                for txid in &txids {
                    self.history.succeeded(*txid);
                }
                if let Some(result) = &report.result {
                    logs::upgraded(result.txid, report.kind, seconds, self.context.gpu.load(Ordering::Relaxed));
                    tracing::info!("Successfully handled proof upgrade.");
                }
            }
            Outcome::Superseded { why } => {
                tracing::info!(txids = %list(&txids), kind = report.kind, ?why, "upgrade not needed any more");
            }
            Outcome::Failed { failure } => {
                tracing::error!(kind = report.kind, ?failure, "UpgradeProof job failed for transaction(s) {}.", list(&txids));
                // A refusal is about the tip that the upgrade began at. If that has moved on, the node may have refused what the new
                // block made useless, and what is left of it can be upgraded at once.
                let about = if matches!(failure, Failure::Refused { .. }) { begun } else { height };
                self.remember(&txids, about, failure);
            }
        }
        if let Some(result) = &report.result {
            self.fees.submitted(result, &self.context.metrics);
            if result.own.is_positive() {
                self.mempool.is_ours(result.txid, result.own);
            }
            self.mempool.touch(result.txid);
        }
        if let Some((txid, own)) = report.unanswered {
            // If it is there, nobody else will update it.
            if own.is_positive() {
                self.mempool.is_ours(txid, own);
            }
            self.mempool.touch(txid);
        }
        self.context.metrics.ended(report.kind, &report.outcome, seconds);
        self.board.ended(Recent {
            txids,
            kind: report.kind,
            outcome: report.outcome,
            result: report.result.map(|result| result.txid),
            height,
            seconds,
        });
    }

    fn remember(&mut self, txids: &[TxId], height: u64, failure: &Failure) {
        for txid in txids {
            match failure {
                Failure::Poison { because } => self.history.poisoned(*txid, height, because.clone()),
                Failure::Refused { reason } if reason == "InvalidTransaction" => {
                    self.history.poisoned(*txid, height, "the node finds our result invalid");
                }
                failure @ (Failure::NoProver { .. } | Failure::Node { .. }) => {
                    self.history.held_up(*txid, now(), describe(failure));
                }
                failure => self.history.failed(*txid, height, describe(failure)),
            }
        }
    }

    fn on_node_error(&mut self, error: &FollowError) {
        let name = match error {
            FollowError::Node(error) => error.name(),
            FollowError::BadBlock { .. } => "bad-block",
        };
        self.context.metrics.node_error(name);
        let text = error.to_string();
        // Said once, not once a second.
        if self.last_error.as_ref() != Some(&text) {
            tracing::warn!(node = self.context.nodes.current(), %error, "cannot follow the node");
            self.last_error = Some(text);
        }
    }

    async fn look_at_provers(&mut self) {
        // After a look that found none, the next is at once.
        let fresh = |seen: Instant| seen.elapsed() < PROVERS && self.provers_took.is_some_and(|took| took >= seen);
        let first = self.provers_seen.is_none();
        if self.look.is_none() && !self.provers_seen.is_some_and(fresh) {
            self.provers_seen = Some(Instant::now());
            let context = self.context.clone();
            self.look = Some(tokio::spawn(async move { context.provers.status_all().await }));
        }
        // A pod on a lost node takes seconds to be silent, and blocks do not wait for it. The first answer tells what can be planned.
        let Some(look) = self.look.take_if(|look| first || look.is_finished()) else { return };
        let Ok(pods) = look.await else { return };
        let ready: Vec<_> =
            pods.iter().filter_map(|pod| pod.answer.as_ref().ok()).filter(|(capacity, _)| capacity.ready).collect();
        let highest = ready.iter().filter_map(|(capacity, _)| capacity.max_log2_padded_height).max();
        if highest.is_some() {
            self.provers_took = Some(Instant::now());
        } else if self.provers_took.is_some_and(|took| took.elapsed() < PROVERS_AWAY) {
            tracing::debug!(pods = pods.len(), "no prover pod answers that takes jobs");
            return;
        }
        let gpu = ready.iter().any(|(_, devices)| devices.iter().any(|device| device.ready && device.backend == "gpu"));
        let had_gpu = self.context.gpu.swap(gpu, Ordering::Relaxed);
        if first || gpu != had_gpu {
            logs::available(gpu);
        }
        if self.max_log2_padded_height.is_some() != highest.is_some() {
            if let Some(highest) = highest {
                tracing::info!(pods = ready.len(), highest, "provers are ready");
            } else {
                tracing::warn!(pods = pods.len(), "no prover pod takes jobs");
            }
        }
        self.max_log2_padded_height = highest;
        self.board.provers(ready.len(), highest);
    }

    fn publish(&self, began: Instant) {
        let metrics = &self.context.metrics;
        let ring = self.ring.borrow();
        let ready = self.last_error.is_none() && self.max_log2_padded_height.is_some() && !ring.is_empty();
        metrics.tip(ring.tip().map_or(0, |tip| tip.height), self.tip_since.elapsed().as_secs_f64(), ready);
        metrics.nodes(&self.context.nodes.stats());
        let proofs = self.context.running.load(Ordering::Relaxed);
        let plan: Arc<Plan> = self.board.plan();
        metrics.round(began.elapsed().as_secs_f64(), &plan, self.mempool.len(), self.running.len(), proofs);
        let running = self.running.values().map(|handle| Running {
            txids: handle.planned.work.txids().collect(),
            kind: match handle.planned.work {
                Work::Raise { .. } => "raise",
                Work::Update { .. } => "update",
                Work::Merge { .. } => "merge",
            },
            stage: handle.stage.borrow().clone(),
        });
        self.board.round(self.last_error.clone(), running.collect(), self.mempool.order(), self.mempool.own().collect());
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn list(txids: &[TxId]) -> String {
    txids.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Poison { because } | Failure::NoProver { because } | Failure::Node { because } => because.clone(),
        Failure::TooBig { log2_padded_height } => format!("no prover takes 2^{log2_padded_height} rows"),
        Failure::Refused { reason } => format!("the node refuses it: {reason}"),
        Failure::Orphaned => "its mutator set is on no block of the chain".to_owned(),
    }
}

impl From<FollowError> for NodeError {
    fn from(error: FollowError) -> Self {
        match error {
            FollowError::Node(error) => error,
            bad @ FollowError::BadBlock { .. } => Self::Nonsense(bad.to_string()),
        }
    }
}

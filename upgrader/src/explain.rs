//! What a person may ask: what is going on, and why this transaction is (not) being upgraded.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use serde::Serialize;

use crate::dag::Outcome;
use crate::engine::Stage;
use crate::select::{Plan, WhyNot, Work};
use crate::{Shard, TxId};

/// Ended upgrades that are remembered.
const RECENT: usize = 1_000;

/// An upgrade that ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recent {
    /// What was upgraded.
    pub txids: Vec<TxId>,
    /// How.
    pub kind: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The id of what was submitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TxId>,
    /// Height of the tip then.
    pub height: u64,
    /// How long it took.
    pub seconds: f64,
}

/// An upgrade under way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Running {
    /// What is being upgraded.
    pub txids: Vec<TxId>,
    /// How.
    pub kind: &'static str,
    /// How far it is.
    #[serde(flatten)]
    pub stage: Stage,
}

/// What is known about one transaction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Which.
    pub txid: TxId,
    /// The shard of the upgrader that answers.
    pub shard: Shard,
    /// Whether that shard is the transaction's.
    pub in_this_shard: bool,
    /// The shard with the same divisor that is.
    pub owner: Shard,
    /// Whether the node's mempool has it.
    pub in_mempool: bool,
    /// In short.
    pub state: State,
    /// While it is being upgraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// Its place in the plan, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// What is to be done with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<&'static str>,
    /// Why nothing is done with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<WhyNot>,
    /// Upgrades of it that ended, or that it came from; newest first.
    pub history: Vec<Recent>,
    /// What is the matter with this upgrader, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The state of a transaction, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Being upgraded.
    InProgress,
    /// Will be upgraded.
    Planned,
    /// In the mempool and left alone; `why_not` says why.
    PassedOver,
    /// In the mempool and not looked at yet.
    NotLookedAt,
    /// It was upgraded and is no longer in the mempool under this id; `history` says what became of it.
    Upgraded,
    /// Nobody here has heard of it.
    Unknown,
}

#[derive(Debug, Default)]
struct Inner {
    plan: Arc<Plan>,
    running: Vec<Running>,
    recent: VecDeque<Recent>,
    listed: HashSet<TxId>,
    own: HashMap<TxId, NativeCurrencyAmount>,
    height: Option<u64>,
    rules_supported: bool,
    behind: Option<Duration>,
    node_trouble: Option<String>,
    pods: usize,
    max_log2_padded_height: Option<u8>,
}

/// What the engine writes and the HTTP server reads.
#[derive(Debug)]
pub struct Board {
    shard: Shard,
    inner: RwLock<Inner>,
}

/// Whether the upgrader can work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether it can.
    pub ready: bool,
    /// Whether the node answers and is synced.
    pub node: bool,
    /// Whether some prover takes jobs.
    pub provers: bool,
    /// Whether this build can prove under the next block's rules.
    pub rules: bool,
    /// Height of the tip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// What is the matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

fn not_synced(age: Duration) -> String {
    format!("the node's tip is {:.0} hours old: it is not synced, or has lost its peers", age.as_secs_f64() / 3600.0)
}

impl Board {
    /// An empty board of an upgrader of this shard.
    pub fn new(shard: Shard) -> Self {
        Self { shard, inner: RwLock::default() }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a new plan. `behind` is the age of a tip that is too old for a synced node.
    pub fn planned(&self, plan: Plan, height: u64, rules_supported: bool, behind: Option<Duration>) {
        let mut inner = self.write();
        if let (Some(age), None) = (behind, inner.behind) {
            tracing::warn!(height, trouble = not_synced(age), "no upgrades until the node has caught up");
        }
        inner.behind = behind;
        if !rules_supported && (inner.rules_supported || inner.height.is_none()) {
            tracing::warn!(height, "the next block's rules are not supported by this build; no upgrades until it is updated");
        }
        inner.plan = Arc::new(plan);
        inner.height = Some(height);
        inner.rules_supported = rules_supported;
    }

    /// The plan.
    pub fn plan(&self) -> Arc<Plan> {
        self.read().plan.clone()
    }

    /// A round is over.
    pub fn round(
        &self,
        trouble: Option<String>,
        running: Vec<Running>,
        listed: Vec<TxId>,
        own: HashMap<TxId, NativeCurrencyAmount>,
    ) {
        let mut inner = self.write();
        inner.node_trouble = trouble;
        inner.running = running;
        inner.listed = listed.into_iter().collect();
        inner.own = own;
    }

    /// An upgrade ended.
    pub fn ended(&self, recent: Recent) {
        let mut inner = self.write();
        inner.running.retain(|running| running.txids != recent.txids);
        inner.recent.push_front(recent);
        inner.recent.truncate(RECENT);
    }

    /// What provers can do.
    pub fn provers(&self, pods: usize, max_log2_padded_height: Option<u8>) {
        let mut inner = self.write();
        (inner.pods, inner.max_log2_padded_height) = (pods, max_log2_padded_height);
    }

    /// Whether the upgrader can work.
    pub fn readiness(&self) -> Readiness {
        let inner = self.read();
        let node = inner.node_trouble.is_none() && inner.height.is_some() && inner.behind.is_none();
        let provers = inner.max_log2_padded_height.is_some();
        let trouble = inner.node_trouble.clone().or_else(|| inner.behind.map(not_synced)).or_else(|| {
            let text = match (inner.height, provers, inner.rules_supported) {
                (None, ..) => "the node has not answered yet",
                (_, false, _) => "no prover pod takes jobs",
                (.., false) => "the next block's rules are not supported by this build",
                _ => return None,
            };
            Some(text.to_owned())
        });
        let ready = node && provers && inner.rules_supported;
        Readiness { ready, node, provers, rules: inner.rules_supported, height: inner.height, trouble }
    }

    /// Upgrades under way, and those that ended, newest first.
    pub fn upgrades(&self) -> (Vec<Running>, Vec<Recent>) {
        let inner = self.read();
        (inner.running.clone(), inner.recent.iter().cloned().collect())
    }

    /// All that is known about a transaction.
    pub fn explain(&self, txid: TxId) -> Explanation {
        let inner = self.read();
        let concerns = |txids: &[TxId]| txids.contains(&txid);
        let running = inner.running.iter().find(|running| concerns(&running.txids)).cloned();
        let position = inner.plan.work.iter().position(|planned| planned.work.txids().any(|other| other == txid));
        let planned = position.map(|position| match inner.plan.work[position].work {
            Work::Raise { .. } => "raise",
            Work::Update { .. } => "update",
            Work::Merge { .. } => "merge",
        });
        let why_not = inner.plan.why_not.get(&txid).cloned();
        let history: Vec<Recent> =
            inner.recent.iter().filter(|recent| concerns(&recent.txids) || recent.result == Some(txid)).cloned().collect();
        let in_mempool = inner.listed.contains(&txid);
        let state = match (&running, position, &why_not) {
            (Some(_), ..) | (.., Some(WhyNot::InProgress)) => State::InProgress,
            (None, Some(_), _) => State::Planned,
            (None, None, Some(_)) => State::PassedOver,
            _ if in_mempool && self.shard.matches(txid) => State::NotLookedAt,
            _ if in_mempool => State::PassedOver,
            _ if history.iter().any(|recent| recent.outcome == Outcome::Submitted) => State::Upgraded,
            _ => State::Unknown,
        };
        let owner = self.shard.owner_of(txid);
        let elsewhere = in_mempool && state == State::PassedOver && why_not.is_none();
        let why_not = if elsewhere { Some(WhyNot::OtherShard { owner }) } else { why_not };
        drop(inner);
        let trouble = self.readiness().trouble;
        let in_this_shard = self.shard.matches(txid);
        let (shard, position) = (self.shard, position.filter(|_| running.is_none()));
        Explanation {
            txid,
            shard,
            in_this_shard,
            owner,
            in_mempool,
            state,
            running,
            position,
            planned,
            why_not,
            history,
            trouble,
        }
    }
}

//! Which upgrades to do next: a pure function of the mempool, the tip, the shard, the policy and what happened before.
//!
//! The order is the node's. A node looks at its best raise, its best update and its best merge, and takes the one with the
//! greatest [incentive](crate::policy::Incentive); among raises (and so on) the one with the highest fee density is best. Here
//! that choice is repeated until nothing is left, so the plan is what a node would do one after the other. Two differences, both
//! so that nothing starves: a raise that is not worth it does not hide the ones behind it, and what has waited for
//! [`PATIENCE`](crate::select::PATIENCE) goes first.

mod history;
mod pairs;
mod view;

#[cfg(test)]
mod tests;

pub use history::{History, Rest, Until};
pub use view::{Candidate, ProofKind, Sync, View};

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;
use serde::Serialize;

use crate::policy::{Incentive, Policy};
use crate::{Shard, TxId};

/// A candidate that has waited this long goes before all younger ones, whatever it pays.
pub const PATIENCE: Duration = Duration::from_mins(20);

/// One thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Raise a ProofCollection, and keep this much of its fee (zero: for free).
    Raise {
        /// Which.
        txid: TxId,
        /// What is gobbled.
        gobble: NativeCurrencyAmount,
    },
    /// Update a SingleProof to the tip.
    Update {
        /// Which.
        txid: TxId,
    },
    /// Merge two SingleProofs.
    Merge {
        /// The one that stands left.
        left: TxId,
        /// The other.
        right: TxId,
    },
}

impl Work {
    /// The transactions that this upgrades.
    pub fn txids(&self) -> impl Iterator<Item = TxId> {
        let (first, second) = match *self {
            Self::Raise { txid, .. } | Self::Update { txid } => (txid, None),
            Self::Merge { left, right } => (left, Some(right)),
        };
        std::iter::once(first).chain(second)
    }
}

/// Work with its reason and rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// What to do.
    pub work: Work,
    /// What it brings.
    pub incentive: Incentive,
}

/// Why a transaction of the mempool is not upgraded now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WhyNot {
    /// Another upgrader's.
    OtherShard {
        /// The shard of our divisor that it belongs to.
        owner: Shard,
    },
    /// Would bring less than the least that we work for.
    FeeTooLow {
        /// What it would bring, in nau.
        gobble_nau: String,
        /// The least, in nau.
        least_nau: String,
    },
    /// The collection has too many proofs.
    TooManyProofs {
        /// At least this many.
        proofs: usize,
        /// `--max-num-proofs`.
        most: usize,
    },
    /// A SingleProof at the tip with nothing to merge with: done.
    UpToDate,
    /// A foreign SingleProof behind the tip. Updating it pays nothing; `--min-gobbling-fee 0` does it anyway.
    UpdatePaysNothing,
    /// Its mutator set is none of the last 100 blocks': a reorganization, or too old.
    UnknownMutatorSet,
    /// A block has spent one of its inputs.
    DoubleSpend,
    /// An attempt failed; it rests for some blocks, or for some time.
    Resting {
        /// When it is tried again.
        #[serde(flatten)]
        until: Until,
        /// Why the last attempt failed.
        because: String,
    },
    /// It can never be proven and is not tried again.
    Poison {
        /// What happened.
        because: String,
    },
    /// No prover takes a proof of this height.
    ProverTooSmall {
        /// log2 of the padded height.
        log2_padded_height: u8,
    },
    /// The node shows no proof of it: it is backed by a witness that only its owner has.
    NoProofShown,
    /// It retires too soon to be worth a proof.
    RetiresSoon,
    /// We are at it.
    InProgress,
}

impl WhyNot {
    /// A word for labels; the same as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OtherShard { .. } => "other-shard",
            Self::FeeTooLow { .. } => "fee-too-low",
            Self::TooManyProofs { .. } => "too-many-proofs",
            Self::UpToDate => "up-to-date",
            Self::UpdatePaysNothing => "update-pays-nothing",
            Self::UnknownMutatorSet => "unknown-mutator-set",
            Self::DoubleSpend => "double-spend",
            Self::Resting { .. } => "resting",
            Self::Poison { .. } => "poison",
            Self::ProverTooSmall { .. } => "prover-too-small",
            Self::NoProofShown => "no-proof-shown",
            Self::RetiresSoon => "retires-soon",
            Self::InProgress => "in-progress",
        }
    }
}

/// What to do, best first, and why the rest is left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Best first.
    pub work: Vec<Planned>,
    /// One reason for every transaction that is in no work.
    pub why_not: BTreeMap<TxId, WhyNot>,
}

/// Makes the plan. Every transaction in the view is in exactly one piece of work or has a reason why not.
pub fn select(view: &View, shard: Shard, policy: &Policy, history: &History) -> Plan {
    let mut plan = Plan::default();
    let (mut raises, mut updates, mut singles) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in order(view) {
        match judge(candidate, view, shard, policy, history) {
            Ok(Found::Raise(planned)) => raises.push((candidate, planned)),
            Ok(Found::Update(planned)) => updates.push((candidate, planned)),
            Ok(Found::Single) => singles.push(candidate),
            Err(reason) => {
                plan.why_not.insert(candidate.txid, reason);
            }
        }
    }
    let merges = pairs::pair_up(&singles, view, shard, policy, &mut plan.why_not);
    let mut queues = [raises, merges, updates].map(VecDeque::from);
    while let Some(best) = (0..queues.len()).filter(|&i| !queues[i].is_empty()).max_by_key(|&i| urgency(view, &queues[i], i)) {
        if let Some((_, planned)) = queues[best].pop_front() {
            plan.work.push(planned);
        }
    }
    plan
}

/// What decides between the heads of the queues: impatience, then incentive, then the node's preference for updates over
/// merges over raises (its sort is stable and it takes the last).
fn urgency(view: &View, queue: &VecDeque<(&Candidate, Planned)>, preference: usize) -> Option<(bool, Incentive, usize)> {
    queue.front().map(|(candidate, planned)| (is_impatient(view, candidate), planned.incentive, preference))
}

fn is_impatient(view: &View, candidate: &Candidate) -> bool {
    view.now.saturating_sub(candidate.first_seen) >= PATIENCE
}

/// The impatient by their waiting time, then our own, then all others by fee density; ties by id.
fn order(view: &View) -> Vec<&Candidate> {
    let mut candidates: Vec<_> = view.candidates.iter().collect();
    candidates.sort_by_key(|candidate| {
        let impatient = is_impatient(view, candidate);
        let waiting_since = if impatient { candidate.first_seen } else { Duration::ZERO };
        let own = candidate.own.map(|amount| std::cmp::Reverse(amount.to_nau()));
        (!impatient, waiting_since, own.is_none(), own, candidate.rank, candidate.txid)
    });
    candidates
}

enum Found {
    Raise(Planned),
    Update(Planned),
    /// A SingleProof at the tip, ready to be merged.
    Single,
}

fn judge(candidate: &Candidate, view: &View, shard: Shard, policy: &Policy, history: &History) -> Result<Found, WhyNot> {
    let Candidate { txid, fee, .. } = *candidate;
    if view.busy.contains(&txid) {
        return Err(WhyNot::InProgress);
    }
    // A pair may be ours although this half of it is not; the pairing looks at that again.
    let ours = candidate.own.is_some() || shard.matches(txid);
    let single_at_tip = matches!((candidate.proof, candidate.sync), (ProofKind::Single, Sync::Behind(0)));
    if !ours && !single_at_tip {
        return Err(WhyNot::OtherShard { owner: shard.owner_of(txid) });
    }
    if let Some(because) = history.poison(txid) {
        return Err(WhyNot::Poison { because: because.to_owned() });
    }
    if let Some(rest) = history.rest(txid, view.height, view.now) {
        return Err(WhyNot::Resting { until: rest.until, because: rest.because.clone() });
    }
    match candidate.sync {
        Sync::Unknown => return Err(WhyNot::UnknownMutatorSet),
        Sync::Spent => return Err(WhyNot::DoubleSpend),
        Sync::Behind(_) => {}
    }
    let too_high = |log2: u8| view.max_log2_padded_height.filter(|&most| log2 > most).map(|_| log2);
    match candidate.proof {
        ProofKind::Hidden => Err(WhyNot::NoProofShown),
        ProofKind::Collection { at_least_proofs } => {
            if at_least_proofs > policy.max_num_proofs {
                return Err(WhyNot::TooManyProofs { proofs: at_least_proofs, most: policy.max_num_proofs });
            }
            let log2 = crate::jobs::expected_log2_padded_height(prover_api::JobKind::Raise, at_least_proofs);
            if let Some(log2_padded_height) = too_high(log2) {
                return Err(WhyNot::ProverTooSmall { log2_padded_height });
            }
            if candidate.retires_soon {
                return Err(WhyNot::RetiresSoon);
            }
            let potential = policy.gobbling_potential(fee);
            let incentive = candidate.own.map_or(Incentive::Gobble(potential), Incentive::BalanceAffecting);
            if !policy.is_worth_it(incentive) {
                return Err(WhyNot::FeeTooLow {
                    gobble_nau: potential.to_nau().to_string(),
                    least_nau: policy.min_gobbling_fee.to_nau().to_string(),
                });
            }
            let gobble = match incentive {
                Incentive::Gobble(amount) => amount,
                Incentive::BalanceAffecting(_) => NativeCurrencyAmount::from_nau(0),
            };
            Ok(Found::Raise(Planned { work: Work::Raise { txid, gobble }, incentive }))
        }
        ProofKind::Single if candidate.sync == Sync::Behind(0) => Ok(Found::Single),
        ProofKind::Single => {
            if candidate.inputs.is_empty() {
                return Err(WhyNot::UnknownMutatorSet); // nothing can update it: it is lost with its block
            }
            let log2 = crate::jobs::expected_log2_padded_height(prover_api::JobKind::Update, candidate.inputs.len());
            if let Some(log2_padded_height) = too_high(log2) {
                return Err(WhyNot::ProverTooSmall { log2_padded_height });
            }
            let nothing = NativeCurrencyAmount::from_nau(0);
            let incentive = candidate.own.map_or(Incentive::Gobble(nothing), Incentive::BalanceAffecting);
            if !policy.is_worth_it(incentive) {
                return Err(WhyNot::UpdatePaysNothing);
            }
            Ok(Found::Update(Planned { work: Work::Update { txid }, incentive }))
        }
    }
}

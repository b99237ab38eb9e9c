//! Which SingleProofs at the tip to merge.

use std::collections::BTreeMap;

use fleet::transaction::RULE_SET;
use neptune_consensus::type_scripts::native_currency_amount::NativeCurrencyAmount;

use super::{Candidate, Planned, View, WhyNot, Work};
use crate::policy::{Incentive, Policy, minimum_fee_for_free_merge};
use crate::{Shard, TxId};

/// Outputs and announcements that a merged transaction leaves free for the composer.
const COMPOSERS_SHARE: usize = 6;

/// Pairs up SingleProofs at the tip, best first; what finds no partner gets its reason.
///
/// As a node does: both are this shard's, or one is and the pair's combined id too; neither is worthless; and together they
/// still fit into a block beside the composer's own outputs.
pub(super) fn pair_up<'a>(
    singles: &[&'a Candidate],
    view: &View,
    shard: Shard,
    policy: &Policy,
    why_not: &mut BTreeMap<TxId, WhyNot>,
) -> Vec<(&'a Candidate, Planned)> {
    let mut free: Vec<Option<&Candidate>> =
        singles.iter().map(|&single| (single.own.is_some() || !is_worthless(single)).then_some(single)).collect();
    let mut pairs = Vec::new();
    for i in 0..free.len() {
        let Some(left) = free[i].filter(|left| !left.retires_soon) else { continue };
        let partner = (i + 1..free.len()).find_map(|j| {
            let right = free[j]?;
            let incentive = worth_merging(left, right, view, shard, policy)?;
            Some((j, right, incentive))
        });
        if let Some((j, right, incentive)) = partner {
            pairs.push((left, Planned { work: Work::Merge { left: left.txid, right: right.txid }, incentive }));
            (free[i], free[j]) = (None, None);
        }
    }
    for single in singles {
        let paired = pairs.iter().any(|(_, planned)| planned.work.txids().any(|txid| txid == single.txid));
        if !paired {
            let ours = single.own.is_some() || shard.matches(single.txid);
            let reason = if ours { WhyNot::UpToDate } else { WhyNot::OtherShard { owner: shard.owner_of(single.txid) } };
            why_not.insert(single.txid, reason);
        }
    }
    pairs
}

fn is_worthless(candidate: &Candidate) -> bool {
    candidate.fee < minimum_fee_for_free_merge()
}

fn worth_merging(left: &Candidate, right: &Candidate, view: &View, shard: Shard, policy: &Policy) -> Option<Incentive> {
    let is_ours = |candidate: &Candidate| candidate.own.is_some() || shard.matches(candidate.txid);
    let ours = match (is_ours(left), is_ours(right)) {
        (true, true) => true,
        (false, false) => false,
        _ => shard.matches(left.txid.combine(right.txid)),
    };
    let conflict = left.inputs.iter().any(|input| right.inputs.contains(input));
    let inputs = left.inputs.len() + right.inputs.len();
    let fits = inputs <= RULE_SET.max_num_inputs()
        && left.outputs + right.outputs + COMPOSERS_SHARE <= RULE_SET.max_num_outputs()
        && left.announcements + right.announcements + COMPOSERS_SHARE <= RULE_SET.max_num_announcements();
    let height = crate::jobs::expected_log2_padded_height(prover_api::JobKind::Merge, inputs);
    let provable = view.max_log2_padded_height.is_none_or(|most| height <= most);
    if !ours || conflict || !fits || !provable || right.retires_soon {
        return None;
    }
    let own = [left.own, right.own].into_iter().flatten().reduce(|sum, amount| sum + amount);
    let potential: NativeCurrencyAmount = policy.gobbling_potential(left.fee + right.fee);
    let incentive = own.map_or(Incentive::Gobble(potential), Incentive::BalanceAffecting);
    policy.is_worth_it(incentive).then_some(incentive)
}

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use triton_vm::prelude::{BFieldElement, Digest};

use super::*;

fn coins(n: u32) -> NativeCurrencyAmount {
    NativeCurrencyAmount::coins(n)
}

/// An id with this last byte.
fn txid(n: u64, last_byte: u8) -> TxId {
    let top = (u64::from(last_byte) << 56) % BFieldElement::P;
    TxId::new(Digest::new([n, 0, 0, 0, top].map(BFieldElement::new)))
}

fn candidate(n: u64, last_byte: u8, proof: ProofKind, fee: u32) -> Candidate {
    Candidate {
        txid: txid(n, last_byte),
        fee: coins(fee),
        rank: n as usize,
        proof,
        sync: Sync::Behind(0),
        inputs: vec![Digest::new([BFieldElement::new(n); 5])],
        outputs: 2,
        announcements: 1,
        retires_soon: false,
        own: None,
        first_seen: Duration::from_secs(1_000),
    }
}

const COLLECTION: ProofKind = ProofKind::Collection { at_least_proofs: 6 };

fn view(candidates: Vec<Candidate>) -> View {
    View { candidates, height: 10, now: Duration::from_secs(1_010), ..View::default() }
}

fn plan(view: &View) -> Plan {
    select(view, Shard::ALL, &Policy::default(), &History::default())
}

#[test]
fn the_densest_fee_is_raised_first_and_pays_the_usual_share() {
    let plan =
        plan(&view(vec![candidate(1, 0, COLLECTION, 5), candidate(0, 0, COLLECTION, 1), candidate(2, 0, COLLECTION, 9)]));
    let order: Vec<_> = plan.work.iter().map(|planned| planned.work).collect();
    let raise = |n, fee| Work::Raise { txid: txid(n, 0), gobble: Policy::default().gobbling_potential(coins(fee)) };
    assert_eq!(order, [raise(0, 1), raise(1, 5), raise(2, 9)]);
}

#[test]
fn a_raise_that_pays_nothing_hides_none_behind_it() {
    let plan = plan(&view(vec![candidate(0, 0, COLLECTION, 0), candidate(1, 0, COLLECTION, 1)]));
    assert_eq!(plan.work.len(), 1);
    assert!(matches!(plan.why_not[&txid(0, 0)], WhyNot::FeeTooLow { .. }), "{plan:?}");
}

#[test]
fn what_is_ours_goes_first_and_knows_no_shard() {
    let mut own = candidate(5, 1, ProofKind::Single, 0);
    (own.own, own.sync) = (Some(coins(1)), Sync::Behind(2));
    let view = view(vec![candidate(0, 0, COLLECTION, 100), own]);
    let shard: Shard = "2:0".parse().expect("is a shard");
    let plan = select(&view, shard, &Policy::default(), &History::default());
    assert_eq!(plan.work[0].work, Work::Update { txid: txid(5, 1) });
    assert_eq!(plan.work.len(), 2);
}

#[test]
fn foreign_updates_are_done_only_by_who_works_for_free() {
    let mut behind = candidate(0, 0, ProofKind::Single, 3);
    behind.sync = Sync::Behind(1);
    let view = view(vec![behind]);
    assert_eq!(plan(&view).why_not[&txid(0, 0)], WhyNot::UpdatePaysNothing);
    let free = Policy { min_gobbling_fee: coins(0), ..Policy::default() };
    let plan = select(&view, Shard::ALL, &free, &History::default());
    assert_eq!(plan.work[0].work, Work::Update { txid: txid(0, 0) });
}

#[test]
fn pairs_never_spend_one_utxo_twice_and_the_worthless_are_left_alone() {
    let mut twin = candidate(1, 0, ProofKind::Single, 4);
    twin.inputs = candidate(0, 0, ProofKind::Single, 4).inputs;
    let singles = vec![
        candidate(0, 0, ProofKind::Single, 4),
        twin,
        candidate(2, 0, ProofKind::Single, 0),
        candidate(3, 0, ProofKind::Single, 4),
    ];
    let plan = plan(&view(singles));
    assert_eq!(
        plan.work.iter().map(|planned| planned.work).collect::<Vec<_>>(),
        [Work::Merge { left: txid(0, 0), right: txid(3, 0) }]
    );
    assert_eq!(plan.why_not.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([txid(1, 0), txid(2, 0)]));
}

#[test]
fn each_reason_is_said() {
    let mut history = History::default();
    history.failed(txid(1, 0), 10, "no prover");
    history.poisoned(txid(2, 0), 10, "panics");
    let mut view = view((0..10).map(|n| candidate(n, 0, COLLECTION, 1)).collect());
    view.candidates[0].txid = txid(0, 3);
    view.candidates[3].proof = ProofKind::Collection { at_least_proofs: 17 };
    view.candidates[4].sync = Sync::Unknown;
    view.candidates[5].sync = Sync::Spent;
    view.candidates[6].proof = ProofKind::Hidden;
    view.candidates[7].proof = ProofKind::Collection { at_least_proofs: 7 };
    view.candidates[8].retires_soon = true;
    view.busy.insert(txid(9, 0));
    view.max_log2_padded_height = Some(21);
    let shard: Shard = "4:0".parse().expect("is a shard");
    let plan = select(&view, shard, &Policy::default(), &history);
    let reasons: Vec<_> = view.candidates.iter().map(|candidate| plan.why_not[&candidate.txid].clone()).collect();
    assert_eq!(
        reasons,
        [
            WhyNot::OtherShard { owner: "4:3".parse().expect("is a shard") },
            WhyNot::Resting { until: Until::Height(11), because: "no prover".to_owned() },
            WhyNot::Poison { because: "panics".to_owned() },
            WhyNot::TooManyProofs { proofs: 17, most: 16 },
            WhyNot::UnknownMutatorSet,
            WhyNot::DoubleSpend,
            WhyNot::NoProofShown,
            WhyNot::ProverTooSmall { log2_padded_height: 22 },
            WhyNot::RetiresSoon,
            WhyNot::InProgress,
        ]
    );
    assert!(plan.work.is_empty());
}

fn arbitrary_candidate() -> impl Strategy<Value = Candidate> {
    let proof = prop_oneof![
        (5..20_usize).prop_map(|at_least_proofs| ProofKind::Collection { at_least_proofs }),
        Just(ProofKind::Single),
        Just(ProofKind::Hidden),
    ];
    let sync = prop_oneof![5 => (0..3_usize).prop_map(Sync::Behind), 1 => Just(Sync::Spent), 1 => Just(Sync::Unknown)];
    (any::<u8>(), proof, sync, 0..5_u32, vec(0..30_u64, 1..4), any::<[bool; 2]>(), 0..3_000_u64).prop_map(
        |(last_byte, proof, sync, fee, inputs, [own, retires_soon], first_seen)| Candidate {
            sync,
            inputs: inputs.into_iter().map(|n| Digest::new([BFieldElement::new(n); 5])).collect(),
            own: own.then(|| coins(fee)),
            retires_soon,
            first_seen: Duration::from_secs(first_seen),
            ..candidate(0, last_byte, proof, fee)
        },
    )
}

fn arbitrary_view() -> impl Strategy<Value = View> {
    vec((arbitrary_candidate(), any::<bool>()), 0..40).prop_map(|candidates| {
        let mut view = View { now: Duration::from_mins(50), height: 10, ..View::default() };
        for (n, (mut candidate, busy)) in candidates.into_iter().enumerate() {
            candidate.txid = txid(n as u64, candidate.txid.last_byte());
            candidate.rank = n;
            if busy && n % 3 == 0 {
                view.busy.insert(candidate.txid);
            }
            view.candidates.push(candidate);
        }
        view
    })
}

proptest! {
    #[test]
    fn every_transaction_is_in_one_work_or_has_one_reason(view in arbitrary_view(), divisor in 1_u8..9) {
        let shard = Shard::new(divisor, 0).expect("is a shard");
        let plan = select(&view, shard, &Policy::default(), &History::default());
        let mut seen: Vec<TxId> = plan.work.iter().flat_map(|planned| planned.work.txids()).chain(plan.why_not.keys().copied()).collect();
        seen.sort();
        let mut all: Vec<TxId> = view.candidates.iter().map(|candidate| candidate.txid).collect();
        all.sort();
        prop_assert_eq!(seen, all);
    }

    #[test]
    fn the_order_in_which_the_node_lists_or_we_learned_does_not_matter(view in arbitrary_view()) {
        let mut other = view.clone();
        other.candidates.reverse();
        prop_assert_eq!(plan(&view), plan(&other));
    }

    #[test]
    fn shards_together_raise_and_update_each_transaction_once(mut view in arbitrary_view(), divisor in 1_u8..9) {
        for candidate in &mut view.candidates {
            candidate.own = None;
        }
        let policy = Policy { min_gobbling_fee: coins(0), ..Policy::default() };
        let singly = |work: &Work| !matches!(work, Work::Merge { .. });
        let of = |shard| -> Vec<TxId> {
            let plan = select(&view, shard, &policy, &History::default());
            plan.work.iter().map(|planned| planned.work).filter(singly).flat_map(|work| work.txids().collect::<Vec<_>>()).collect()
        };
        let mut together: Vec<TxId> =
            (0..divisor).flat_map(|remainder| of(Shard::new(divisor, remainder).expect("is a shard"))).collect();
        together.sort();
        let mut alone = of(Shard::ALL);
        alone.sort();
        prop_assert_eq!(together, alone);
    }

    #[test]
    fn nothing_that_is_worth_it_starves(mut view in arbitrary_view(), last_byte: u8) {
        // One poor old transaction among many rich young ones: it is first as soon as it has waited long enough.
        for candidate in &mut view.candidates {
            (candidate.own, candidate.first_seen) = (None, view.now);
        }
        view.busy.clear();
        let mut poor = candidate(99, last_byte, COLLECTION, 1);
        (poor.rank, poor.first_seen) = (usize::MAX, view.now.saturating_sub(PATIENCE));
        view.candidates.push(poor);
        prop_assert_eq!(plan(&view).work.first().map(|planned| planned.work.txids().collect::<Vec<_>>()), Some(vec![txid(99, last_byte)]));
    }

    #[test]
    fn doing_the_first_work_again_and_again_ends(mut view in arbitrary_view()) {
        let mut rounds = 0;
        while let Some(planned) = plan(&view).work.first().copied() {
            view.busy.extend(planned.work.txids());
            rounds += 1;
            prop_assert!(rounds <= view.candidates.len());
        }
    }
}

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn prove(nodes: &[Node]) -> Vec<Effect> {
    nodes.iter().copied().map(Effect::Prove).collect()
}

#[test]
fn a_paid_raise_runs_all_that_can_run_at_once() {
    let (mut dag, effects) = Dag::begin(Kind::PaidRaise { leaves: 2 }, Lag::Blocks(0));
    assert_eq!(effects, prove(&[Node::Raise, Node::GobblerLeaf(0), Node::GobblerLeaf(1)]));
    assert_eq!(dag.on(Event::Proven(Node::GobblerLeaf(1))), []);
    assert_eq!(dag.on(Event::Proven(Node::GobblerLeaf(0))), prove(&[Node::RaiseGobbler]));
    assert_eq!(dag.on(Event::Proven(Node::RaiseGobbler)), []);
    assert_eq!(dag.on(Event::Proven(Node::Raise)), prove(&[Node::Merge]));
    assert_eq!(dag.on(Event::Proven(Node::Merge)), [Effect::Submit]);
    assert_eq!(dag.on(Event::Accepted), [Effect::Finish(Outcome::Submitted)]);
    assert_eq!(dag.progress(), (5, 5));
}

#[test]
fn a_block_in_the_middle_of_a_raise_turns_into_an_update_after_the_first_submission() {
    let (mut dag, _) = Dag::begin(Kind::FreeRaise, Lag::Blocks(0));
    assert_eq!(dag.on(Event::Lag(Lag::Blocks(1))), []);
    assert_eq!(dag.on(Event::Proven(Node::Raise)), [Effect::Submit]);
    assert_eq!(dag.on(Event::Accepted), prove(&[Node::Update]));
    // The update is done for the tip of its time; the lag of the new result is said before its proof.
    assert_eq!(dag.on(Event::Lag(Lag::Blocks(0))), []);
    assert_eq!(dag.on(Event::Proven(Node::Update)), [Effect::Submit]);
    assert_eq!(dag.on(Event::Accepted), [Effect::Finish(Outcome::Submitted)]);
}

#[test]
fn too_far_behind_it_is_updated_before_it_is_submitted() {
    let (mut dag, _) = Dag::begin(Kind::FreeRaise, Lag::Blocks(ADMITTED_LAG + 1));
    assert_eq!(dag.on(Event::Proven(Node::Raise)), prove(&[Node::Update]));
    assert_eq!(dag.on(Event::Lag(Lag::Blocks(0))), []);
    assert_eq!(dag.on(Event::Proven(Node::Update)), [Effect::Submit]);
}

#[test]
fn a_refusal_behind_the_tip_is_cured_by_an_update_and_one_at_the_tip_is_final() {
    let refused = Failure::Refused { reason: "NotConfirmable".to_owned() };
    let (mut dag, _) = Dag::begin(Kind::Merge, Lag::Blocks(0));
    dag.on(Event::Lag(Lag::Blocks(1)));
    dag.on(Event::Proven(Node::Merge));
    assert_eq!(dag.on(Event::NotAccepted(refused.clone())), prove(&[Node::Update]));
    dag.on(Event::Lag(Lag::Blocks(0)));
    dag.on(Event::Proven(Node::Update));
    assert_eq!(dag.on(Event::NotAccepted(refused.clone())), [Effect::Finish(Outcome::Failed { failure: refused })]);
}

#[test]
fn whatever_ends_it_stops_every_proof() {
    let (mut dag, _) = Dag::begin(Kind::PaidRaise { leaves: 1 }, Lag::Blocks(0));
    let outcome = Outcome::Superseded { why: Superseded::BetterProof };
    let effects = dag.on(Event::Superseded(Superseded::BetterProof));
    assert_eq!(effects, [Effect::Cancel(Node::Raise), Effect::Cancel(Node::GobblerLeaf(0)), Effect::Finish(outcome)]);
    assert_eq!(dag.on(Event::Proven(Node::Raise)), [], "late news");

    let (mut dag, _) = Dag::begin(Kind::FreeRaise, Lag::Blocks(0));
    let effects = dag.on(Event::Lag(Lag::Unknown));
    assert_eq!(effects, [Effect::Cancel(Node::Raise), Effect::Finish(Outcome::Failed { failure: Failure::Orphaned })]);
}

fn arbitrary_event() -> impl Strategy<Value = Choice> {
    prop_oneof![
        12 => any::<prop::sample::Index>().prop_map(Choice::Proven),
        1 => any::<prop::sample::Index>().prop_map(Choice::Failed),
        6 => (0..6_usize).prop_map(|blocks| Choice::Lag(Lag::Blocks(blocks))),
        1 => prop_oneof![Just(Lag::Spent), Just(Lag::Unknown)].prop_map(Choice::Lag),
        1 => Just(Choice::Superseded),
        1 => Just(Choice::Retarget),
        8 => Just(Choice::Accepted),
        2 => Just(Choice::Refused),
        1 => Just(Choice::Unreachable),
        2 => any::<prop::sample::Index>().prop_map(Choice::LateNews),
    ]
}

#[derive(Debug, Clone)]
enum Choice {
    Proven(prop::sample::Index),
    Failed(prop::sample::Index),
    Lag(Lag),
    Superseded,
    Retarget,
    Accepted,
    Refused,
    Unreachable,
    LateNews(prop::sample::Index),
}

fn arbitrary_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::FreeRaise),
        (1..6_usize).prop_map(|leaves| Kind::PaidRaise { leaves }),
        Just(Kind::Merge),
        Just(Kind::Update)
    ]
}

/// What a driver holds: which proofs run, whether a submission is on its way.
#[derive(Default)]
struct Driver {
    running: BTreeSet<Node>,
    submitting: bool,
    finished: Vec<Outcome>,
}

impl Driver {
    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Prove(node) => assert!(self.running.insert(node), "{node:?} runs already"),
                Effect::Cancel(node) => assert!(self.running.remove(&node), "{node:?} does not run"),
                Effect::Submit => assert!(!std::mem::replace(&mut self.submitting, true), "submitted twice at once"),
                Effect::Finish(outcome) => self.finished.push(outcome),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn under_any_failures_it_ends_once_with_no_proof_left_running(
        kind in arbitrary_kind(),
        lag in 0..6_usize,
        choices in vec(arbitrary_event(), 0..60),
    ) {
        let (mut dag, effects) = Dag::begin(kind, Lag::Blocks(lag));
        let mut driver = Driver::default();
        driver.take(effects);
        let pick = |running: &BTreeSet<Node>, index: prop::sample::Index| {
            (!running.is_empty()).then(|| *index.get(&running.iter().copied().collect::<Vec<_>>()))
        };
        for choice in choices {
            let refused = Failure::Refused { reason: String::new() };
            let event = match choice {
                Choice::Proven(index) => pick(&driver.running, index).map(|node| {
                    driver.running.remove(&node);
                    Event::Proven(node)
                }),
                Choice::Failed(index) => pick(&driver.running, index).map(|node| {
                    driver.running.remove(&node);
                    Event::ProofFailed(node, Failure::Poison { because: String::new() })
                }),
                Choice::Lag(lag) => Some(Event::Lag(lag)),
                Choice::Retarget => Some(Event::Retarget),
                Choice::Superseded => Some(Event::Superseded(Superseded::Gone)),
                Choice::Accepted => std::mem::take(&mut driver.submitting).then_some(Event::Accepted),
                Choice::Refused => std::mem::take(&mut driver.submitting).then_some(Event::NotAccepted(refused)),
                Choice::Unreachable => std::mem::take(&mut driver.submitting)
                    .then_some(Event::NotAccepted(Failure::Node { because: String::new() })),
                Choice::LateNews(index) => {
                    let idle: Vec<Node> = kind.nodes().into_iter().filter(|node| !driver.running.contains(node)).collect();
                    (!idle.is_empty()).then(|| Event::Proven(*index.get(&idle)))
                }
            };
            let Some(event) = event else { continue };
            let was_failure = matches!(event, Event::ProofFailed(..));
            driver.take(dag.on(event));
            prop_assert_eq!(driver.running.iter().copied().collect::<Vec<_>>(), dag.running().collect::<Vec<_>>());
            if dag.outcome().is_some() {
                prop_assert!(driver.running.is_empty(), "over, and still proving {:?}", driver.running);
                prop_assert_eq!(driver.finished.len(), 1);
                driver.submitting = false; // whoever drives it drops the submission
            } else {
                prop_assert!(!was_failure);
                prop_assert!(driver.submitting || !driver.running.is_empty(), "neither over nor at work");
                prop_assert_eq!(driver.submitting, dag.is_submitting());
            }
        }
    }

    #[test]
    fn when_all_goes_well_it_ends_submitted(kind in arbitrary_kind(), blocks in vec(0..6_usize, 1..6)) {
        let mut lag = blocks[0].max(usize::from(kind == Kind::Update));
        let (mut dag, effects) = Dag::begin(kind, Lag::Blocks(lag));
        let mut driver = Driver::default();
        driver.take(effects);
        let mut blocks = blocks.into_iter();
        let mut proofs = 0;
        while dag.outcome().is_none() {
            if std::mem::take(&mut driver.submitting) {
                prop_assert!(lag <= ADMITTED_LAG);
                driver.take(dag.on(Event::Accepted));
            } else if let Some(&node) = driver.running.iter().next() {
                driver.running.remove(&node);
                proofs += 1;
                if node == Node::Update {
                    // Blocks that came while it was proven.
                    lag = blocks.next().unwrap_or(0);
                    driver.take(dag.on(Event::Lag(Lag::Blocks(lag))));
                }
                driver.take(dag.on(Event::Proven(node)));
            }
            prop_assert!(proofs < 30);
        }
        prop_assert_eq!(dag.outcome(), Some(&Outcome::Submitted));
        prop_assert_eq!(lag, 0);
    }
}

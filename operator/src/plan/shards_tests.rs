//! The planner against a simulated cluster.

use fleet_api::shard::plan as cut;
use proptest::prelude::*;

use super::*;

fn classes(shards: i64) -> BTreeSet<ResidueClass> {
    cut(shards).expect("in range").into_iter().collect()
}

fn wanted(shards: i64) -> Wanted {
    Wanted {
        classes: classes(shards),
        revision: "a".to_owned(),
        suspend: false,
        max_surge: 4,
        max_unavailable: 1,
        takeover_after: Some(20),
    }
}

/// A cluster that does what it is told, where pods become ready and die when the test says so.
#[derive(Debug, Clone, Default)]
struct Cluster {
    workloads: BTreeMap<Key, Workload>,
}

impl Cluster {
    fn steady(wanted: &Wanted) -> Self {
        let mut cluster = Self::default();
        cluster.settle(wanted);
        cluster
    }

    fn coverage(&self) -> Coverage {
        self.workloads.iter().filter(|(_, workload)| workload.health.is_ready()).map(|(key, _)| key.class).collect()
    }

    fn take(&mut self, wanted: &Wanted, step: Step) {
        match step {
            Step::Start(key) => {
                let new =
                    Workload { revision: wanted.revision.clone(), rolled_out: true, health: Health::Starting, stopped: false };
                assert!(self.workloads.insert(key, new).is_none(), "{key:?} was there already");
            }
            Step::Update(key) => {
                let workload = self.workloads.get_mut(&key).expect("only what is there is updated");
                workload.revision.clone_from(&wanted.revision);
                workload.rolled_out = false; // a Deployment surges: the old pod stays ready meanwhile
                workload.stopped = false;
            }
            Step::Stop(key) => {
                let workload = self.workloads.get_mut(&key).expect("only what is there is stopped");
                workload.stopped = true;
                workload.health = Health::Starting;
            }
            Step::Retire(key) => {
                self.workloads.remove(&key).expect("only what is there is retired");
            }
        }
    }

    /// Time passes and all pods come up.
    fn calm(&mut self) {
        for workload in self.workloads.values_mut().filter(|workload| !workload.stopped) {
            workload.rolled_out = true;
            workload.health = Health::Ready { seconds: 60 };
        }
    }

    fn settle(&mut self, wanted: &Wanted) {
        for _ in 0..600 {
            let steps = plan(wanted, &self.workloads);
            if steps.is_empty() {
                return;
            }
            for step in steps {
                self.take(wanted, step);
            }
            self.calm();
        }
        panic!("no end: {:?}", plan(wanted, &self.workloads));
    }
}

#[test]
fn a_new_fleet_starts_all_shards_at_once() {
    let steps = plan(&wanted(128), &BTreeMap::new());
    assert_eq!(steps.len(), 128);
    assert!(steps.iter().all(|step| matches!(step, Step::Start(key) if key.role == Role::Primary)));
}

#[test]
fn a_steady_fleet_needs_nothing_whoever_asks() {
    for shards in [1, 3, 8, 128] {
        let cluster = Cluster::steady(&wanted(shards));
        assert_eq!(cluster.workloads.len(), shards as usize);
        assert_eq!(plan(&wanted(shards), &cluster.workloads), []);
    }
}

#[test]
fn a_resize_starts_new_shards_first_and_no_more_than_may() {
    let mut cluster = Cluster::steady(&wanted(1));
    let steps = plan(&wanted(8), &cluster.workloads);
    assert_eq!(steps.len(), 4);
    assert!(steps.iter().all(|step| matches!(step, Step::Start(_))));
    for step in steps {
        cluster.take(&wanted(8), step);
    }
    assert_eq!(plan(&wanted(8), &cluster.workloads), [], "no more before the first are ready");
}

#[test]
fn a_shard_that_never_gets_ready_keeps_its_parent_and_blocks_nothing_else() {
    let wanted = wanted(4);
    let mut cluster = Cluster::steady(&self::wanted(2));
    let stuck = Key::primary("4:3".parse().expect("a class"));
    for _ in 0..20 {
        for step in plan(&wanted, &cluster.workloads) {
            cluster.take(&wanted, step);
        }
        cluster.calm();
        cluster.workloads.get_mut(&stuck).expect("started").health = Health::Starting;
        assert!(cluster.coverage().covered.is_full());
    }
    let left: Vec<_> = cluster.workloads.keys().map(|key| key.class.to_string()).collect();
    assert_eq!(left, ["2:1", "4:0", "4:1", "4:2", "4:3"]);
}

#[test]
fn a_resize_taken_back_in_the_middle_removes_only_the_new() {
    let mut cluster = Cluster::steady(&wanted(4));
    for step in plan(&wanted(8), &cluster.workloads) {
        cluster.take(&wanted(8), step);
    }
    let steps = plan(&wanted(4), &cluster.workloads);
    assert_eq!(steps.len(), 4);
    assert!(steps.iter().all(|step| matches!(step, Step::Retire(key) if key.class.divisor() == 8)));
}

#[test]
fn a_lost_shard_gets_one_substitute_in_time_and_loses_it_when_it_is_back() {
    let wanted = wanted(4);
    let mut cluster = Cluster::steady(&wanted);
    let key = Key::primary("4:2".parse().expect("a class"));
    let set = |cluster: &mut Cluster, health| cluster.workloads.get_mut(&key).expect("there").health = health;
    set(&mut cluster, Health::Lost { seconds: 19 });
    assert_eq!(plan(&wanted, &cluster.workloads), []);
    set(&mut cluster, Health::Lost { seconds: 20 });
    let start = Step::Start(Key::substitute(key.class));
    assert_eq!(plan(&wanted, &cluster.workloads), [start]);
    cluster.take(&wanted, start);
    assert_eq!(plan(&wanted, &cluster.workloads), []);
    set(&mut cluster, Health::Ready { seconds: 9 });
    assert_eq!(plan(&wanted, &cluster.workloads), []);
    set(&mut cluster, Health::Ready { seconds: 10 });
    assert_eq!(plan(&wanted, &cluster.workloads), [Step::Retire(Key::substitute(key.class))]);
}

#[test]
fn outdated_shards_get_a_new_revision_at_once_and_no_substitutes() {
    let mut wanted = wanted(4);
    let mut cluster = Cluster::steady(&wanted);
    for workload in cluster.workloads.values_mut() {
        workload.health = Health::Outdated;
    }
    assert_eq!(plan(&wanted, &cluster.workloads), Vec::new());
    wanted.revision = "b".to_owned();
    let updates: Vec<_> = cluster.workloads.keys().map(|key| Step::Update(*key)).collect();
    assert_eq!(plan(&wanted, &cluster.workloads), updates);
}

#[test]
fn a_bad_revision_stops_after_the_first_shard_and_a_good_one_repairs_it() {
    let old = wanted(4);
    let mut cluster = Cluster::steady(&old);
    let mut bad = old.clone();
    bad.revision = "bad".to_owned();
    let steps = plan(&bad, &cluster.workloads);
    assert_eq!(steps.len(), 1);
    cluster.take(&bad, steps[0]);
    assert_eq!(plan(&bad, &cluster.workloads), [], "the first has not rolled out");
    let mut good = old;
    good.revision = "good".to_owned();
    let [Step::Update(first)] = steps[..] else { panic!("an update") };
    cluster.workloads.get_mut(&first).expect("there").health = Health::Lost { seconds: 1 };
    assert!(plan(&good, &cluster.workloads).contains(&Step::Update(first)));
    cluster.settle(&good);
    assert!(cluster.workloads.values().all(|workload| workload.revision == "good"));
}

#[test]
fn suspend_stops_all_and_resume_brings_all_back() {
    let mut suspended = wanted(4);
    suspended.suspend = true;
    let mut cluster = Cluster::steady(&wanted(4));
    cluster.settle(&suspended);
    assert!(cluster.workloads.len() == 4 && cluster.workloads.values().all(|workload| workload.stopped));
    assert_eq!(plan(&wanted(4), &cluster.workloads).len(), 4);
    cluster.settle(&wanted(4));
    assert!(cluster.coverage().covered.is_full());
}

/// What may happen between two looks of the operator.
#[derive(Debug, Clone)]
enum Happening {
    /// A person asks for so many shards.
    Shards(i64),
    /// A person changes the image.
    Revision(u8),
    /// A person suspends or resumes.
    Suspend(bool),
    /// One of the workloads becomes ready.
    Up(prop::sample::Index),
    /// One of them dies.
    Down(prop::sample::Index),
    /// Someone deletes one.
    Deleted(prop::sample::Index),
    /// The operator takes so many of the steps that it planned, and is killed.
    Steps(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        1 => (1_i64..=16).prop_map(Happening::Shards),
        1 => (0_u8..3).prop_map(Happening::Revision),
        1 => prop::bool::weighted(0.2).prop_map(Happening::Suspend),
        8 => index().prop_map(Happening::Up),
        2 => index().prop_map(Happening::Down),
        1 => index().prop_map(Happening::Deleted),
        8 => (0_usize..6).prop_map(Happening::Steps),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_step_uncovers_and_no_survivor_is_touched(story in prop::collection::vec(happening(), 1..80)) {
        let mut wanted = wanted(4);
        let mut cluster = Cluster::default();
        for happening in story {
            let pick = |index: prop::sample::Index, cluster: &Cluster| {
                (!cluster.workloads.is_empty()).then(|| *cluster.workloads.keys().nth(index.index(cluster.workloads.len())).expect("in range"))
            };
            match happening {
                Happening::Shards(shards) => wanted.classes = classes(shards),
                Happening::Revision(revision) => wanted.revision = revision.to_string(),
                Happening::Suspend(suspend) => wanted.suspend = suspend,
                Happening::Up(index) => if let Some(key) = pick(index, &cluster) {
                    let workload = cluster.workloads.get_mut(&key).expect("there");
                    if !workload.stopped {
                        workload.health = Health::Ready { seconds: 30 };
                        workload.rolled_out = true;
                    }
                },
                Happening::Down(index) => if let Some(key) = pick(index, &cluster) {
                    let workload = cluster.workloads.get_mut(&key).expect("there");
                    if workload.health.is_ready() {
                        workload.health = Health::Lost { seconds: 60 };
                    }
                },
                Happening::Deleted(index) => if let Some(key) = pick(index, &cluster) {
                    cluster.workloads.remove(&key);
                },
                Happening::Steps(taken) => {
                    let planned = plan(&wanted, &cluster.workloads);
                    let unique: BTreeSet<_> = planned.iter().collect();
                    prop_assert_eq!(unique.len(), planned.len());
                    let updates = planned.iter().filter(|step| {
                        matches!(step, Step::Update(key) if key.role == Role::Primary && cluster.workloads[key].health.is_ready())
                    });
                    prop_assert!(updates.count() <= wanted.max_unavailable);
                    for step in planned.into_iter().take(taken) {
                        let before = cluster.coverage();
                        if let Step::Update(key) | Step::Stop(key) | Step::Retire(key) = step {
                            let workload = &cluster.workloads[&key];
                            let survivor = key.role == Role::Primary && wanted.classes.contains(&key.class);
                            prop_assert!(
                                wanted.suspend || !survivor || workload.revision != wanted.revision || workload.stopped,
                                "{step:?} touches a survivor"
                            );
                        }
                        cluster.take(&wanted, step);
                        let after = cluster.coverage();
                        prop_assert!(wanted.suspend || after.covered == before.covered, "{step:?} uncovers");
                    }
                }
            }
        }
        // Whatever happened: when no more happens, it ends where it should, and stays covered once it is.
        let mut covered = false;
        for _ in 0..600 {
            cluster.calm();
            covered |= cluster.coverage().covered.is_full();
            let steps = plan(&wanted, &cluster.workloads);
            if steps.is_empty() {
                break;
            }
            for step in steps {
                cluster.take(&wanted, step);
                covered |= cluster.coverage().covered.is_full();
                prop_assert!(wanted.suspend || !covered || cluster.coverage().covered.is_full());
            }
        }
        prop_assert_eq!(plan(&wanted, &cluster.workloads), []);
        let expected: BTreeSet<_> = wanted.classes.iter().copied().map(Key::primary).collect();
        if wanted.suspend {
            prop_assert!(cluster.workloads.keys().all(|key| expected.contains(key)));
        } else {
            prop_assert_eq!(cluster.workloads.keys().copied().collect::<BTreeSet<_>>(), expected);
            prop_assert!(cluster.workloads.values().all(|workload| workload.revision == wanted.revision));
        }
    }
}

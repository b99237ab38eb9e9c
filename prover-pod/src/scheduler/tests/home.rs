//! Two GPUs: who goes where.

use std::collections::{BTreeMap, HashSet};

use super::*;

const A: WorkerId = WorkerId(0);
const B: WorkerId = WorkerId(1);

/// A pod with two GPUs and a job of each of these log2 heights, which somebody has found out.
fn pod(config: Config, heights: &[u8]) -> World {
    let mut world = World::new(config, &[Backend::Gpu, Backend::Gpu]);
    for n in 0..heights.len() as u64 {
        let wish = world.wish(n, 0, Priority::Normal);
        world.submit(&wish).expect("accepted");
    }
    for (n, &height) in (0..).zip(heights) {
        answer(&mut world, n, height);
    }
    world
}

/// Whoever works on a job is done with what it does for it now.
fn answer(world: &mut World, n: u64, height: u8) {
    let at = world.orders.keys().position(|&(_, other)| other == job(n)).expect("somebody works on it");
    world.answer_order(at, 9, height);
}

fn home(world: &World, n: u64) -> Option<WorkerId> {
    world.scheduler.jobs[&job(n)].home
}

#[test]
fn what_is_ready_waits_for_its_own_device_and_what_is_ready_there_goes_first() {
    let mut world = pod(config(), &[12, 12, 18, 18]);
    assert_eq!([0, 1, 2, 3].map(|n| home(&world, n)), [Some(A), Some(B), Some(A), Some(B)], "each has its share");
    answer(&mut world, 2, 18);
    answer(&mut world, 3, 18);
    assert_eq!(world.traces, HashSet::from([(A, job(2)), (B, job(3))]));
    answer(&mut world, 1, 12);
    assert_eq!(world.running(), BTreeMap::from([(job(0), A), (job(3), B)]), "B does not make again what A has");
    answer(&mut world, 0, 12);
    assert_eq!(world.running(), BTreeMap::from([(job(2), A), (job(3), B)]));
    world.run_out();
}

#[test]
fn a_device_with_nothing_to_do_takes_over_what_would_wait_longer_at_home() {
    // The host's part of 2^18 rows takes 0.15 s; a proof of 2^18 rows 0.28, one of 2^12 rows 0.02.
    for (before, moves) in [(18, true), (12, false)] {
        let mut world = pod(config(), &[before, 12, 18]);
        let on_a = world.effects.iter().any(|e| matches!(e, Effect::Inspect { worker: A, job: id, .. } if *id == job(2)));
        assert!(on_a, "it was at home there");
        // Made ready there meanwhile, so that the device does not wait.
        assert_eq!(world.orders.contains_key(&(B, job(2))), moves);
        answer(&mut world, 1, 12);
        let discarded = world.effects.contains(&Effect::Discard { worker: A, job: job(2) });
        assert_eq!((world.running().get(&job(2)).copied(), discarded), (moves.then_some(B), moves), "behind 2^{before} rows");
        world.run_out();
    }
}

#[test]
fn an_urgent_job_that_would_wait_at_home_takes_the_next_device() {
    let mut world = pod(config(), &[18, 12, 18, 18]);
    let urgent = world.wish(7, 0, Priority::High);
    world.submit(&urgent).expect("accepted");
    while world.scheduler.jobs[&job(7)].log2_padded_height.is_none() {
        answer(&mut world, 7, 16);
    }
    answer(&mut world, 1, 12);
    assert_eq!(world.running().get(&job(7)), Some(&B), "job 3 is ready there, and has to wait");
    world.run_out();
}

#[test]
fn the_trace_of_who_leaves_is_forgotten_where_it_may_be() {
    let mut world = pod(one_ahead(), &[12; 6]);
    let idle = (2..6).find(|&n| world.scheduler.jobs[&job(n)].phase == Phase::Idle).expect("there is room for one on each");
    let at = home(&world, idle).expect("was looked at");
    let forgets = Effect::Discard { worker: at, job: job(idle) };
    assert!(!world.effects.contains(&forgets));
    let interest = *world.open.iter().find(|(_, other)| **other == job(idle)).expect("is wanted").0;
    world.step(|s, now, effects| s.cancel(now, job(idle), interest, effects));
    assert!(world.effects.contains(&forgets));
    world.run_out();
}

#[test]
fn who_is_at_home_on_a_device_that_is_gone_goes_to_the_other() {
    let mut world = pod(config(), &[18, 18, 18, 18]);
    assert_eq!(home(&world, 2), Some(A));
    world.up.remove(&A);
    world.lose_process(A);
    world.step(|s, now, effects| s.worker_down(now, A, effects));
    assert_ne!(home(&world, 2), Some(A));
    world.run_out();
    assert!((0..4).all(|n| world.cached.contains(&job(n))), "all are proven");
}

#[test]
fn a_device_that_hangs_does_not_keep_those_who_wait_for_it() {
    let mut world = pod(config(), &[12, 12, 18]);
    answer(&mut world, 2, 18);
    answer(&mut world, 1, 12);
    assert_eq!(world.running(), BTreeMap::from([(job(0), A)]), "A will have done it in 0.02 s");
    world.now += Duration::from_secs(1);
    world.step(Scheduler::tick);
    assert_eq!(world.running(), BTreeMap::from([(job(0), A), (job(2), B)]));
    world.run_out();
}

#[test]
fn a_long_queue_for_the_cpu_does_not_keep_the_gpu_from_being_prepared() {
    let config = Config { max_queued: 2_000, max_body_bytes: 1 << 20, routing: Routing::CollectionsOnCpu, ..config() };
    let mut world = World::new(config, &[Backend::Gpu, Backend::Cpu]);
    for n in 0..1_000 {
        let wish = world.wish(n, 0, Priority::Normal);
        world.submit(&Submission { kind: JobKind::Leaf, log2_padded_height: Some(12), ..wish }).expect("accepted");
    }
    for n in 1_000..1_002 {
        let wish = world.wish(n, 0, Priority::Normal);
        world.submit(&Submission { kind: JobKind::Raise, log2_padded_height: Some(18), ..wish }).expect("accepted");
    }
    assert_eq!(world.running().get(&job(1_000)), Some(&A));
    answer(&mut world, 1_001, 18);
    assert!(world.traces.contains(&(A, job(1_001))));
}

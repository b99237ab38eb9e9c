//! The scheduler against random event sequences, with a world around it that answers like real workers, and worse ones.

mod home;
mod saturation;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use prover_api::{JobId, JobState, Priority};
use triton_vm::prelude::{BFieldElement, Claim, Digest, bfe};

use self::world::{Order, World};
use super::job::Phase;
use super::*;

fn job(n: u64) -> JobId {
    JobId::of(&Claim::new(Digest::default()).with_input(vec![bfe!(n)]))
}

fn body(n: u8) -> BodyId {
    BodyId([n; 32])
}

const GIB: u64 = 1 << 30;

/// Largest log2 height of the GPUs in these tests.
const GPU_LOG2_HEIGHT: u8 = 18;

fn config() -> Config {
    Config { max_queued: 6, max_body_bytes: 1_000, history: 4, ..Config::default() }
}

/// Room for one trace of 2^12 rows ahead of the GPU.
fn one_ahead() -> Config {
    Config { gpu_ahead_bytes: crate::memory::gpu_ahead_bytes(12), ..config() }
}

#[derive(Debug, Clone)]
enum Event {
    Submit { job: u64, body: u8, priority: usize, limit: Option<u8>, deadline: Option<u64>, force_cpu: bool },
    Withdraw { at: usize },
    Cancel { at: usize },
    Answer { at: usize, luck: u8, height: u8 },
    Verify { at: usize, good: bool },
    Crash { at: usize },
    Tick { seconds: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u64..7, 0u8..2, 0usize..5, prop::option::weighted(0.2, 9u8..14), prop::option::weighted(0.2, 1u64..30), any::<bool>())
            .prop_map(|(job, body, priority, limit, deadline, force_cpu)| Event::Submit { job, body, priority, limit, deadline, force_cpu }),
        2 => (0usize..9).prop_map(|at| Event::Withdraw { at }),
        1 => (0usize..9).prop_map(|at| Event::Cancel { at }),
        // Heights up to one that never fits into 20 GiB.
        9 => (0usize..9, 0u8..12, 9u8..23).prop_map(|(at, luck, height)| Event::Answer { at, luck, height }),
        4 => (0usize..9, prop::bool::weighted(0.85)).prop_map(|(at, good)| Event::Verify { at, good }),
        1 => (0usize..3).prop_map(|at| Event::Crash { at }),
        1 => (1u64..10).prop_map(|seconds| Event::Tick { seconds }),
    ]
}

fn play(world: &mut World, event: &Event) {
    match *event {
        Event::Submit { job, body, priority, limit, deadline, force_cpu } => {
            let mut wish = world.wish(job, body, Priority::ALL[priority]);
            wish.max_log2_padded_height = limit;
            wish.deadline = deadline.map(|seconds| world.now + Duration::from_secs(seconds));
            // One answer for one body: the flag is a property of the bytes in this world.
            wish.force_cpu = force_cpu && body == 1;
            let was_cached = world.scheduler.cache().contains(wish.job);
            let result = world.submit(&wish);
            assert_eq!(was_cached, result == Ok(Accepted::Cached));
        }
        Event::Withdraw { at } | Event::Cancel { at } => {
            let mut open: Vec<_> = world.open.iter().map(|(&interest, &job)| (interest, job)).collect();
            open.sort_unstable();
            let Some(&(interest, job)) = open.get(at % open.len().max(1)) else { return };
            if matches!(event, Event::Cancel { .. }) {
                world.step(|s, now, effects| s.cancel(now, job, interest, effects));
                assert_eq!(world.answered.get(&interest), Some(&Outcome::Cancelled));
            } else {
                world.open.remove(&interest);
                world.step(|s, now, effects| s.withdraw(now, job, interest, effects));
                assert!(!world.answered.contains_key(&interest), "who left hears nothing");
            }
            if !world.open.values().any(|&other| other == job) {
                assert!(!world.running().contains_key(&job), "the slot is free");
            }
        }
        Event::Answer { at, luck, height } => world.answer_order(at, luck, height),
        Event::Verify { at, good } => world.verify(at, good),
        Event::Crash { at } => world.crash(at),
        Event::Tick { seconds } => {
            world.now += Duration::from_secs(seconds);
            world.step(Scheduler::tick);
        }
    }
}

fn backends() -> impl Strategy<Value = Vec<Backend>> {
    prop_oneof![
        Just(vec![Backend::Cpu]),
        Just(vec![Backend::Cpu, Backend::Cpu]),
        Just(vec![Backend::Gpu]),
        Just(vec![Backend::Gpu, Backend::Gpu]),
        Just(vec![Backend::Gpu, Backend::Cpu]),
        Just(vec![Backend::Gpu, Backend::Gpu, Backend::Cpu]),
        Just(vec![Backend::Mock]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    /// Whatever happens, in whatever order: the invariants hold after each event, and in the end every accepted wish has ended
    /// exactly once and nothing is left behind.
    #[test]
    fn nothing_is_lost(
        kinds in backends(),
        jobs in 1usize..5,
        collections_on_cpu: bool,
        quarantine_after in 0u32..3,
        drains: bool,
        gpu_lanes in 1usize..6,
        log2_ahead in 9u8..24,
        events in prop::collection::vec(event(), 1..120),
    ) {
        let routing = if collections_on_cpu { Routing::CollectionsOnCpu } else { Routing::default() };
        let gpu_ahead_bytes = crate::memory::gpu_ahead_bytes(log2_ahead);
        let config = Config { routing, quarantine_after, proof_cache_bytes: 70, gpu_lanes, gpu_ahead_bytes, ..config() };
        let mut world = World::with_jobs(config, &kinds, jobs);
        let mut accepted = 0;
        for event in &events {
            let open = world.open.len();
            play(&mut world, event);
            accepted += usize::from(matches!(event, Event::Submit { .. }) && world.open.len() > open);
        }
        let _ = accepted;
        if drains {
            let waits: Vec<JobId> = world.open.values().copied()
                .filter(|&job| world.scheduler.view(job).is_some_and(|view| view.position.is_some())).collect();
            world.step(Scheduler::drain);
            for job in waits {
                prop_assert!(!world.scheduler.is_live(job), "who has no slot is sent elsewhere");
            }
            let late = world.wish(99, 0, Priority::High);
            prop_assert_eq!(world.submit(&late), Err(Refusal::Draining));
            // What is still made may be joined, with the same body and with another.
            for n in 0..6 {
                let joins = world.wish(n, u8::try_from(n % 2).expect("is small"), Priority::Normal);
                let expected = match (world.cached.contains(&job(n)), world.scheduler.is_live(job(n))) {
                    (true, _) => Ok(Accepted::Cached),
                    (false, true) => Ok(Accepted::Attached),
                    (false, false) => Err(Refusal::Draining),
                };
                let answer = world.submit(&joins);
                let crowded = matches!(answer, Err(Refusal::QueueFull { .. } | Refusal::NoDevice)) && expected == Ok(Accepted::Attached);
                prop_assert!(answer == expected || crowded, "{answer:?} instead of {expected:?}");
            }
        }
        world.run_out();
        prop_assert!(world.open.is_empty(), "all have ended: {:?}", world.open);
        prop_assert!(world.scheduler.is_idle());
        prop_assert_eq!(world.scheduler.body_bytes(), 0);
        prop_assert_eq!(world.scheduler.queued(), 0);
        prop_assert!(world.scheduler.reserved.is_empty() && world.scheduler.unknown.is_empty());
        prop_assert!(world.running().is_empty());
        prop_assert!(world.scheduler.workers.values().all(|worker| worker.lanes.is_empty()));
        prop_assert!(world.traces.is_empty(), "no worker holds the trace of a job that ended");
        prop_assert_eq!(world.cached.len(), world.scheduler.cache().len());
    }

    /// With one slot, a High job waits for at most one Low one: that which has the slot already.
    #[test]
    fn high_waits_for_at_most_one_low(lows in 1u64..5, done_before in 0usize..6, jobs in 1usize..4, on_gpu: bool) {
        let backend = if on_gpu { Backend::Gpu } else { Backend::Cpu };
        let mut world = World::with_jobs(config(), &[backend], jobs);
        for n in 0..lows {
            let wish = world.wish(n, 0, Priority::Low);
            world.submit(&wish).expect("accepted");
        }
        for _ in 0..done_before {
            world.answer_order(0, 9, 10);
            world.verify(0, true);
        }
        let high = world.wish(77, 0, Priority::High);
        let answer_of = high.interest;
        world.submit(&high).expect("accepted");
        let started = world.starts.len();
        world.run_out();
        let before_high = world.starts[started..].iter().take_while(|&&started| started != job(77)).count();
        prop_assert!(before_high <= 1, "{before_high} Low jobs started first");
        prop_assert_eq!(&world.answered[&answer_of], &Outcome::Proved);
    }
}

#[test]
fn who_joins_a_draining_pod_with_a_better_body_is_sent_elsewhere_when_the_other_fails() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    let (bad, good) = (world.wish(1, 0, Priority::Low), world.wish(1, 1, Priority::Low));
    assert_eq!(world.submit(&bad), Ok(Accepted::Queued));
    world.step(Scheduler::drain);
    assert_eq!(world.submit(&good), Ok(Accepted::Attached));
    world.answer_order(0, 0, 10);
    assert!(matches!(world.answered[&bad.interest], Outcome::Failed(Failure::Endless { .. })));
    assert_eq!(world.answered[&good.interest], Outcome::Draining);
    assert!(world.scheduler.is_idle());
}

#[test]
fn first_in_first_out_inside_a_priority() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    for n in 0..4 {
        let wish = world.wish(n, 0, Priority::Normal);
        world.submit(&wish).expect("accepted");
    }
    world.run_out();
    assert_eq!(world.starts, [job(0), job(1), job(2), job(3)]);
}

#[test]
fn equal_claims_share_one_run_and_one_may_leave() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    let (first, second) = (world.wish(1, 0, Priority::Low), world.wish(1, 0, Priority::Low));
    assert_eq!(world.submit(&first), Ok(Accepted::Queued));
    assert_eq!(world.submit(&second), Ok(Accepted::Attached));
    world.answer_order(0, 9, 10);
    world.open.remove(&first.interest);
    world.step(|s, now, effects| s.withdraw(now, first.job, first.interest, effects));
    world.run_out();
    assert_eq!(world.starts, [job(1)]);
    assert_eq!(world.answered[&second.interest], Outcome::Proved);
    let third = world.wish(1, 0, Priority::Low);
    assert_eq!(world.submit(&third), Ok(Accepted::Cached));
}

#[test]
fn another_body_gets_its_own_run_when_the_first_fails() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    let (bad, good) = (world.wish(1, 0, Priority::Low), world.wish(1, 1, Priority::Low));
    world.submit(&bad).expect("accepted");
    world.submit(&good).expect("accepted");
    world.answer_order(0, 0, 0);
    assert!(matches!(world.answered[&bad.interest], Outcome::Failed(Failure::Endless { .. })));
    assert!(!world.answered.contains_key(&good.interest));
    world.run_out();
    assert_eq!(world.answered[&good.interest], Outcome::Proved);
}

#[test]
fn an_urgent_caller_lifts_the_job_it_joins() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    for n in 0..3 {
        let wish = world.wish(n, 0, Priority::Low);
        world.submit(&wish).expect("accepted");
    }
    let urgent = world.wish(2, 0, Priority::Highest);
    world.submit(&urgent).expect("accepted");
    world.run_out();
    assert_eq!(world.starts, [job(0), job(2), job(1)]);
}

#[test]
fn a_lost_worker_is_retried_once_and_elsewhere() {
    let mut world = World::new(config(), &[Backend::Cpu, Backend::Cpu]);
    let wish = world.wish(1, 0, Priority::Low);
    world.submit(&wish).expect("accepted");
    world.answer_order(0, 9, 10);
    let first = world.running()[&job(1)];
    world.crash(first.0 as usize);
    let second = world.running()[&job(1)];
    assert_ne!(first, second);
    if world.orders.values().all(|&order| order == Order::Inspect) {
        world.answer_order(0, 9, 10);
    }
    world.crash(second.0 as usize);
    assert_eq!(world.answered[&wish.interest], Outcome::Failed(Failure::WorkerLost));
}

#[test]
fn too_big_is_said_while_others_still_run() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    let (long, huge) = (world.wish(1, 0, Priority::Low), world.wish(2, 0, Priority::Low));
    world.submit(&long).expect("accepted");
    world.answer_order(0, 9, 18);
    world.submit(&huge).expect("accepted");
    let at = world.orders.keys().position(|&(_, other)| other == job(2)).expect("is inspected at once");
    world.answer_order(at, 9, 22);
    let limit = crate::memory::largest_log2_height(20 * GIB);
    let expected = Outcome::Failed(Failure::TooBig { log2_padded_height: 22, limit });
    assert_eq!(world.answered[&huge.interest], expected);
    assert!(world.running().contains_key(&job(1)), "the other goes on");
}

#[test]
fn a_job_above_the_only_callers_own_limit_has_failed_and_says_why() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    let limited = Submission { max_log2_padded_height: Some(11), ..world.wish(1, 0, Priority::Low) };
    world.submit(&limited).expect("accepted");
    world.answer_order(0, 9, 12);
    let failure = Failure::TooBig { log2_padded_height: 12, limit: 11 };
    assert_eq!(world.answered[&limited.interest], Outcome::Failed(failure.clone()));
    let view = world.scheduler.view(job(1)).expect("is remembered");
    assert_eq!((view.state, view.failure), (JobState::Failed, Some(failure)));
    // Nobody else is concerned: who asks without a limit gets the proof.
    let free = world.wish(1, 0, Priority::Low);
    world.submit(&free).expect("accepted");
    let limited = Submission { max_log2_padded_height: Some(11), ..world.wish(1, 0, Priority::Low) };
    world.submit(&limited).expect("attached");
    world.answer_order(0, 9, 12);
    assert!(matches!(world.answered[&limited.interest], Outcome::Failed(Failure::TooBig { limit: 11, .. })));
    world.run_out();
    assert_eq!(world.answered[&free.interest], Outcome::Proved);
}

#[test]
fn wrong_proofs_quarantine_the_device() {
    let mut world = World::new(Config { quarantine_after: 1, ..config() }, &[Backend::Cpu]);
    let wish = world.wish(1, 0, Priority::Low);
    world.submit(&wish).expect("accepted");
    while world.verifying.is_empty() {
        world.answer_order(0, 9, 10);
    }
    world.verify(0, false);
    assert_eq!(world.answered[&wish.interest], Outcome::Failed(Failure::NoDevice));
    let next = world.wish(2, 0, Priority::Low);
    assert_eq!(world.submit(&next), Err(Refusal::NoDevice));
}

#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    for n in 0..7 {
        let wish = world.wish(n, 0, Priority::Low);
        world.submit(&wish).expect("one runs, six wait");
    }
    let wish = world.wish(8, 0, Priority::Highest);
    let Err(Refusal::QueueFull { retry_after }) = world.submit(&wish) else { panic!("is full") };
    assert!(retry_after >= Duration::from_secs(1));
    // Who only joins a waiting job takes no room.
    let joins = world.wish(3, 0, Priority::Low);
    assert_eq!(world.submit(&joins), Ok(Accepted::Attached));
    let bytes = Submission { bytes: 2_000, ..world.wish(3, 1, Priority::Low) };
    assert!(matches!(world.submit(&bytes), Err(Refusal::QueueFull { .. })), "but not with bytes past the limit");
}

#[test]
fn the_status_tells_stage_and_place() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    for n in 0..3 {
        let wish = world.wish(n, 0, Priority::Low);
        world.submit(&wish).expect("accepted");
    }
    assert_eq!(world.scheduler.view(job(0)).map(|view| (view.state, view.position)), Some((JobState::Tracing, None)));
    assert_eq!(world.scheduler.view(job(2)).and_then(|view| view.position), Some(1));
    world.run_out();
    let view = world.scheduler.view(job(0)).expect("is remembered");
    assert_eq!((view.state, view.log2_padded_height), (JobState::Done, Some(10)));
    assert_eq!(world.scheduler.view(job(50)), None);
}

/// Answers orders until nothing is left to answer but what `keep` says.
fn answer_all_but(world: &mut World, height: u8, keep: Order) {
    for _ in 0..100 {
        let Some(at) = world.orders.values().position(|&order| order != keep) else { return };
        world.answer_order(at, 9, height);
    }
}

#[test]
fn the_next_job_is_traced_while_the_gpu_proves_and_starts_from_its_trace() {
    let mut world = World::new(one_ahead(), &[Backend::Gpu]);
    for n in 0..3 {
        let wish = world.wish(n, 0, Priority::Low);
        world.submit(&wish).expect("accepted");
    }
    answer_all_but(&mut world, 12, Order::Prove);
    assert_eq!(world.running().keys().copied().collect::<Vec<_>>(), [job(0)], "one proof at a time");
    assert_eq!(world.traces.iter().map(|&(_, job)| job).collect::<Vec<_>>(), [job(1)], "there is room for one");
    assert_eq!(world.scheduler.view(job(1)).map(|view| view.state), Some(JobState::Traced));
    world.answer_order(0, 9, 12);
    assert_eq!(world.scheduler.view(job(1)).map(|view| view.state), Some(JobState::Proving), "needs no trace any more");
    world.run_out();
    assert_eq!(world.starts, [job(0), job(1), job(2)]);
}

#[test]
fn the_cpu_leaves_the_first_jobs_to_the_gpu_whose_worker_keeps_their_traces() {
    let mut world = World::new(config(), &[Backend::Cpu, Backend::Gpu]);
    for n in 0..6 {
        let wish = world.wish(n, 0, Priority::Low);
        world.submit(&wish).expect("accepted");
    }
    let inspected = |world: &World, worker: u32| {
        let by = |effect: &Effect| match effect {
            Effect::Inspect { worker: at, job, .. } if *at == WorkerId(worker) => Some(*job),
            _ => None,
        };
        world.effects.iter().filter_map(by).collect::<Vec<_>>()
    };
    let (by_cpu, by_gpu) = (inspected(&world, 0), inspected(&world, 1));
    assert_eq!(by_gpu[..2], [job(0), job(1)], "{by_gpu:?}");
    assert!(by_cpu.iter().all(|job| !by_gpu.contains(job)), "nobody is looked at twice: {by_cpu:?}, {by_gpu:?}");
    world.run_out();
    assert!(!inspected(&world, 0).contains(&job(0)));
}

#[test]
fn small_jobs_do_not_keep_the_large_one_behind_them_from_being_traced() {
    let mut world = World::new(config(), &[Backend::Gpu]);
    for n in 0..6 {
        let wish = world.wish(n, 0, Priority::Low);
        world.submit(&wish).expect("accepted");
    }
    for _ in 0..20 {
        let orders: Vec<_> = world.orders.iter().map(|(&(_, job), &order)| (job, order)).collect();
        let Some(at) = orders.iter().position(|&(_, order)| order != Order::Prove) else { break };
        let height = if orders[at].0 == job(5) { 18 } else { 9 };
        world.answer_order(at, 9, height);
    }
    assert_eq!(world.traces.len(), 5, "all but the one that is proven");
}

#[test]
fn an_urgent_job_takes_the_place_of_a_trace_and_the_gpu_next() {
    let mut world = World::new(one_ahead(), &[Backend::Gpu]);
    for n in 0..2 {
        let wish = world.wish(n, 0, Priority::Low);
        world.submit(&wish).expect("accepted");
    }
    answer_all_but(&mut world, 12, Order::Prove);
    assert!(world.traces.contains(&(WorkerId(0), job(1))));
    let urgent = world.wish(7, 0, Priority::High);
    world.submit(&urgent).expect("accepted");
    answer_all_but(&mut world, 12, Order::Prove);
    assert_eq!(world.traces.iter().map(|&(_, job)| job).collect::<Vec<_>>(), [job(7)]);
    world.run_out();
    assert_eq!(world.starts, [job(0), job(7), job(1)]);
}

#[test]
fn what_is_too_big_for_the_gpu_goes_to_the_cpu_and_only_there() {
    let big = GPU_LOG2_HEIGHT + 1;
    let mut world = World::new(config(), &[Backend::Gpu, Backend::Cpu]);
    let wish = world.wish(1, 0, Priority::Low);
    world.submit(&wish).expect("accepted");
    world.answer_order(0, 9, big);
    assert_eq!(world.running()[&job(1)], WorkerId(1));
    let proves = |effect: &&Effect| matches!(effect, Effect::Prove { .. });
    let Some(Effect::Prove { why, .. }) = world.effects.iter().rfind(proves) else { panic!("proves") };
    assert_eq!(*why, Why::TooBigForGpu);
    world.run_out();

    // Without the CPU it is refused, with the height that would do.
    let mut world = World::new(config(), &[Backend::Gpu]);
    let wish = world.wish(1, 0, Priority::Low);
    world.submit(&wish).expect("accepted");
    world.answer_order(0, 9, big);
    let expected = Failure::TooBig { log2_padded_height: big, limit: GPU_LOG2_HEIGHT };
    assert_eq!(world.answered[&wish.interest], Outcome::Failed(expected));
}

#[test]
fn a_wish_for_the_cpu_is_kept_also_while_its_worker_starts() {
    let mut world = World::new(config(), &[Backend::Gpu, Backend::Cpu]);
    world.up.remove(&WorkerId(1));
    world.step(|s, now, effects| s.worker_down(now, WorkerId(1), effects));
    let wish = Submission { force_cpu: true, ..world.wish(1, 1, Priority::Low) };
    world.submit(&wish).expect("accepted");
    assert!(world.running().is_empty());
    world.start_worker(WorkerId(1), Backend::Cpu);
    assert_eq!(world.running()[&job(1)], WorkerId(1));
    world.run_out();
}

#[test]
fn a_gpu_that_fails_a_job_loses_it_to_another_gpu_or_else_to_the_cpu() {
    for (workers, second) in [
        (vec![Backend::Gpu, Backend::Gpu, Backend::Cpu], WorkerId(1)),
        (vec![Backend::Gpu, Backend::Cpu], WorkerId(1)),
        (vec![Backend::Gpu], WorkerId(0)),
    ] {
        let mut world = World::new(config(), &workers);
        let wish = world.wish(1, 0, Priority::Low);
        world.submit(&wish).expect("accepted");
        answer_all_but(&mut world, 12, Order::Prove);
        assert_eq!(world.running()[&job(1)], WorkerId(0));
        let failure = Failure::DeviceMemory { needed: 2, free: 1 };
        world.orders.clear();
        world.step(|s, now, effects| s.failed(now, WorkerId(0), job(1), failure, effects));
        assert_eq!(world.running()[&job(1)], second, "{workers:?}");
        world.run_out();
        assert_eq!(world.answered[&wish.interest], Outcome::Proved);
    }
}

#[test]
fn quarantine_is_for_one_device_and_the_other_goes_on() {
    let mut world = World::new(Config { quarantine_after: 1, ..config() }, &[Backend::Gpu, Backend::Gpu]);
    let wish = world.wish(1, 0, Priority::Low);
    world.submit(&wish).expect("accepted");
    while world.verifying.is_empty() {
        world.answer_order(0, 9, 10);
    }
    world.verify(0, false);
    let views = world.scheduler.workers();
    assert_eq!(views.iter().map(|view| view.quarantined).collect::<Vec<_>>(), [true, false]);
    world.run_out();
    assert_eq!(world.answered[&wish.interest], Outcome::Proved);
}

#[test]
fn a_gpu_that_never_comes_up_does_not_hold_jobs_for_ever() {
    let mut world = World::new(config(), &[Backend::Cpu]);
    world.scheduler.expect_worker(WorkerId(9), Backend::Gpu);
    let wish = world.wish(1, 0, Priority::Low);
    world.submit(&wish).expect("accepted");
    world.answer_order(0, 9, 12);
    assert!(world.orders.is_empty(), "waits for the GPU");
    for _ in 0..3 {
        world.step(|s, now, effects| s.worker_down(now, WorkerId(9), effects));
    }
    assert_eq!(world.running()[&job(1)], WorkerId(0));
    world.run_out();
    assert_eq!(world.answered[&wish.interest], Outcome::Proved);
}

#[test]
fn traces_ahead_make_room_for_what_runs() {
    // A CPU proof of 2^18 rows takes 14 of 20 GiB; traces ahead may take the rest, and no more.
    let mut world = World::with_jobs(config(), &[Backend::Gpu, Backend::Cpu], 4);
    for n in 0..4 {
        let wish = world.wish(n, 0, Priority::Low);
        world.submit(&wish).expect("accepted");
    }
    answer_all_but(&mut world, GPU_LOG2_HEIGHT, Order::Prove);
    assert!(!world.traces.is_empty());
    let on_cpu = Submission { force_cpu: true, ..world.wish(8, 1, Priority::High) };
    world.submit(&on_cpu).expect("accepted");
    answer_all_but(&mut world, GPU_LOG2_HEIGHT, Order::Prove);
    assert_eq!(world.running()[&job(8)], WorkerId(1));
    world.run_out();
}

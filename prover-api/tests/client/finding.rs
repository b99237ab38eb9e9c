//! Which pods are asked for a job, and which one gets it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use prover_api::JobState;
use prover_api::client::{Client, ClientBuilder, ClientError, Timing};

use crate::support::{FakePod, builder, client, id, pods, status, timing};
use crate::{prove, proving, real_proof};

/// A client of the pods behind a name, which is resolved to what stands there at that time.
fn named(addresses: &Arc<Mutex<Vec<SocketAddr>>>) -> ClientBuilder {
    let addresses = Arc::clone(addresses);
    let resolver = Arc::new(move |host: String, _| {
        assert_eq!(host, "prover-pods");
        let now = addresses.lock().unwrap().clone();
        async move { Ok(now) }.boxed()
    });
    Client::builder().endpoints(["dns+http://prover-pods:80"]).resolver(resolver).timing(timing())
}

#[tokio::test]
async fn a_proof_that_one_of_the_first_two_has_is_fetched() {
    for holder in [0, 1] {
        let pods = pods::<3>(&proving());
        pods[holder].set(status(JobState::Done), Some(real_proof()));
        assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[holder].url);
        assert!(pods.iter().all(|pod| pod.requests("POST").is_empty()), "no body had to travel");
    }
}

#[tokio::test]
async fn where_pods_come_and_go_a_proof_is_found_whoever_has_it() {
    for state in [JobState::Done, JobState::Proving] {
        let pods = pods::<4>(&proving());
        pods[3].set(status(state), (state == JobState::Done).then(real_proof));
        let addresses = Arc::new(Mutex::new(pods.iter().map(FakePod::address).collect()));
        let client = named(&addresses).build().unwrap();
        assert_eq!(prove(&client).await.unwrap().pod, pods[3].url, "{state:?}");
        assert!(pods[..3].iter().all(|pod| pod.requests("POST").is_empty()), "proven again");
    }
}

#[tokio::test]
async fn a_proof_that_has_left_the_cache_is_made_again() {
    let pods = pods::<2>(&proving());
    pods[0].set(status(JobState::Done), None);
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[0].url);
    assert_eq!(pods[0].requests("POST").len(), 1);
}

#[tokio::test]
async fn a_job_in_flight_at_the_second_is_joined_there() {
    let pods = pods::<3>(&proving());
    pods[1].set(status(JobState::Proving), None);
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[1].url);
    assert_eq!(pods[1].requests("POST").len(), 1, "to be counted among those who want it");
    assert!(pods[0].requests("POST").is_empty());
}

#[tokio::test]
async fn a_job_that_a_draining_pod_makes_is_joined_there_under_its_name() {
    let pods = pods::<3>(&proving());
    pods[1].set(status(JobState::Proving), None);
    pods[1].script().capacity.draining = true;
    pods[1].script().capacity.ready = false;
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[1].url);
    let sent = pods[1].requests("POST").pop().unwrap();
    assert_eq!(sent.header("x-job-id"), Some(id().to_string().as_str()), "or the pod would refuse it before it is uploaded");
}

#[tokio::test]
async fn what_others_send_during_a_slow_look_is_seen() {
    let pods = pods::<2>(&proving());
    pods[0].script().slow_once = Some(Duration::from_millis(600));
    let client = client(&pods);
    let job = tokio::spawn(async move { prove(&client).await });
    pods[1].wait_for("GET", 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    // By another client, after the pod was asked and before the other one has answered.
    pods[1].set(status(JobState::Proving), None);
    assert_eq!(job.await.unwrap().unwrap().pod, pods[1].url);
    assert!(pods[0].requests("POST").is_empty(), "proven twice");
}

#[tokio::test]
async fn a_pod_that_has_just_come_is_asked() {
    let pods = pods::<2>(&proving());
    let addresses = Arc::new(Mutex::new(vec![pods[0].address()]));
    // The name would not be resolved again for an hour if nothing were to be sent.
    let limits = Timing { resolve: Duration::from_hours(1), ..timing() };
    let client = named(&addresses).timing(limits).build().unwrap();
    assert_eq!(prove(&client).await.unwrap().pod, pods[0].url);
    pods[0].forget_jobs();
    pods[1].set(status(JobState::Proving), None);
    addresses.lock().unwrap().push(pods[1].address());
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(prove(&client).await.unwrap().pod, pods[1].url);
    assert_eq!(pods[0].requests("POST").len(), 1, "proven twice");
}

#[tokio::test]
async fn a_pod_that_was_silent_and_is_back_is_asked() {
    let pods = pods::<2>(&proving());
    pods[0].script().slow_once = Some(Duration::from_millis(800));
    let limits = Timing { ask: Duration::from_millis(400), ..timing() };
    let client = builder(&pods).timing(limits).build().unwrap();
    assert_eq!(prove(&client).await.unwrap().pod, pods[1].url, "the other is not waited for");
    pods[1].forget_jobs();
    pods[0].set(status(JobState::Proving), None);
    assert_eq!(prove(&client).await.unwrap().pod, pods[0].url);
    assert_eq!(pods[1].requests("POST").len(), 1, "proven twice");
}

#[tokio::test]
async fn pods_that_are_not_up_are_not_among_the_first_two() {
    let mut pods = pods::<4>(&proving());
    pods[0].kill();
    pods[1].script().capacity.ready = false;
    pods[3].set(status(JobState::Proving), None);
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[3].url);
}

#[tokio::test]
async fn who_does_not_answer_is_waited_for_once() {
    // Connections stand, by the kernel's hand, and nobody answers: what a lost node does, with a time limit of its own.
    let lost = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let lost_url = format!("http://{}", lost.local_addr().unwrap());
    let pod = FakePod::start(proving());
    let limits = Timing { ask: Duration::from_millis(1500), ..timing() };
    let both = [lost_url.clone(), pod.url.clone()];
    let client = Client::builder().endpoints(both).timing(limits).build().unwrap();
    let started = Instant::now();
    prove(&client).await.unwrap();
    assert!(started.elapsed() >= limits.ask, "it might have had the job");
    let started = Instant::now();
    for _ in 0..3 {
        prove(&client).await.unwrap();
    }
    assert!(started.elapsed() < limits.ask, "it is waited for again: {:?}", started.elapsed());
    // Where there is no other, it is asked all the same.
    let limits = Timing { patience: Duration::from_millis(700), ..limits };
    let client = Client::builder().endpoints([lost_url]).timing(limits).build().unwrap();
    for _ in 0..2 {
        let started = Instant::now();
        assert!(matches!(prove(&client).await, Err(ClientError::Patience { .. })));
        assert!(started.elapsed() >= limits.ask);
    }
}

#[tokio::test]
async fn the_first_idle_pod_gets_the_job() {
    let pods = pods::<4>(&proving());
    pods[0].script().capacity.idle = false;
    pods[1].script().capacity.draining = true;
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[2].url);
    assert!(pods[3].requests("GET").is_empty(), "only the first two are asked for the job");
}

#[tokio::test]
async fn a_pod_that_comes_up_later_is_found_through_its_name() {
    let mut dead = FakePod::start(proving());
    dead.kill();
    let pod = FakePod::start(proving());
    let (first, later) = (dead.address(), pod.address());
    let answers = Arc::new(Mutex::new(vec![vec![later], vec![first], vec![]]));
    let resolver = Arc::new(move |host: String, _port| {
        assert_eq!(host, "prover-pods");
        let mut answers = answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() };
        async move { Ok(answer) }.boxed()
    });
    let client =
        Client::builder().endpoints(["dns+http://prover-pods:80"]).resolver(resolver).timing(timing()).build().unwrap();
    assert_eq!(prove(&client).await.unwrap().pod, pod.url);
}

//! Which pods are asked for a job, and which one gets it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use prover_api::client::{Client, ClientBuilder, ClientError, Timing};
use prover_api::{JobState, Problem, ProblemType};

use crate::support::{FakePod, OnJob, builder, client, id, pods, status, timing};
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

/// A client that has had the proof from the pod there, which does not know it any more. It would not resolve the name again for an
/// hour if nothing were to be sent.
async fn at_home_with(pod: &FakePod, addresses: &Arc<Mutex<Vec<SocketAddr>>>) -> Client {
    let limits = Timing { resolve: Duration::from_hours(1), ..timing() };
    let client = named(addresses).timing(limits).build().unwrap();
    assert_eq!(prove(&client).await.unwrap().pod, pod.url);
    pod.forget_jobs();
    client
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
    let client = at_home_with(&pods[0], &addresses).await;
    pods[1].set(status(JobState::Proving), None);
    addresses.lock().unwrap().push(pods[1].address());
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(prove(&client).await.unwrap().pod, pods[1].url);
    assert_eq!(pods[0].requests("POST").len(), 1, "proven twice");
}

#[tokio::test]
async fn a_pod_that_was_silent_and_is_back_is_asked() {
    let pods = pods::<4>(&proving());
    pods[0].script().slow_once = Some(Duration::from_millis(800));
    let limits = Timing { ask: Duration::from_millis(400), ..timing() };
    let client = builder(&pods).timing(limits).build().unwrap();
    assert_eq!(prove(&client).await.unwrap().pod, pods[1].url, "the other is not waited for");
    pods[1].forget_jobs();
    pods[0].set(status(JobState::Proving), None);
    assert_eq!(prove(&client).await.unwrap().pod, pods[0].url);
    let sent = pods.each_ref().map(|pod| pod.requests("POST").len());
    assert_eq!(sent, [1, 1, 0, 0], "proven twice, or joined where nobody makes it");
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
async fn two_who_look_at_the_same_moment_go_to_the_same_pod() {
    let pods = pods::<3>(&proving());
    pods[0].script().slow_jobs = Duration::from_secs(1);
    let (one, other) = (client(&pods), client(&pods));
    let first = tokio::spawn(async move { prove(&one).await });
    pods[1].wait_for("PUT", 1).await;
    // By the time that the other one looks, the pod has something to do, and the job is still on its way.
    pods[0].script().capacity.idle = false;
    assert_eq!(prove(&other).await.unwrap().pod, pods[0].url);
    assert_eq!(first.await.unwrap().unwrap().pod, pods[0].url);
    assert!(pods[1].requests("POST").is_empty(), "proven twice");
    assert_eq!(pods[0].requests("PUT").len(), 2, "nobody had it when the second one looked");
}

#[tokio::test]
async fn a_pod_that_only_the_other_client_knew_is_looked_up() {
    let pods = pods::<2>(&proving());
    let addresses = Arc::new(Mutex::new(vec![pods[0].address()]));
    let client = at_home_with(&pods[0], &addresses).await;
    pods[0].script().agreed = Some(HashMap::from([(id(), pods[1].url.clone())]));
    addresses.lock().unwrap().push(pods[1].address());
    assert_eq!(prove(&client).await.unwrap().pod, pods[1].url);
    assert_eq!(pods[0].requests("POST").len(), 1, "proven twice");
}

#[tokio::test]
async fn a_job_that_went_to_a_pod_behind_the_first_two_is_found_there() {
    let pods = pods::<4>(&proving());
    for pod in &pods[..2] {
        pod.script().capacity.idle = false;
    }
    pods[2].script().on_job = [OnJob::Hold].into();
    let client = client(&pods);
    let first = {
        let client = client.clone();
        tokio::spawn(async move { prove(&client).await })
    };
    pods[2].wait_for("POST", 1).await;
    // Now it would get the job.
    pods[0].script().capacity.idle = true;
    let second = tokio::spawn(async move { prove(&client).await });
    pods[2].wait_for("POST", 2).await;
    pods[2].set(status(JobState::Done), Some(real_proof()));
    for proved in [first, second] {
        assert_eq!(proved.await.unwrap().unwrap().pod, pods[2].url);
    }
    assert!(pods[0].requests("POST").is_empty(), "proven twice");
    assert!(pods[3].requests("GET").is_empty(), "only those are asked that may have it");
}

#[tokio::test]
async fn where_nothing_can_be_agreed_on_each_goes_its_way() {
    let pods = pods::<3>(&proving());
    for pod in &pods {
        pod.script().agreed = None;
    }
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[0].url);
    let alone = FakePod::start(proving());
    prove(&client([&alone])).await.unwrap();
    assert!(alone.requests("PUT").is_empty(), "there is no choice");
}

#[tokio::test]
async fn a_destination_that_refuses_is_replaced() {
    let pods = pods::<3>(&proving());
    pods[2].script().on_job =
        [OnJob::Refuse(Problem { retry_after_seconds: Some(5), ..Problem::new(ProblemType::QueueFull) })].into();
    for pod in &pods {
        pod.script().agreed = Some(HashMap::from([(id(), pods[2].url.clone())]));
    }
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[0].url);
    assert_eq!(pods[2].requests("POST").len(), 1, "where another client sends it");
    for pod in &pods[..2] {
        assert_eq!(pod.script().agreed.as_ref().unwrap()[&id()], pods[0].url);
    }
}

#[tokio::test]
async fn a_destination_that_is_none_of_the_pods_gets_no_job() {
    let stranger = FakePod::start(proving());
    let pods = pods::<2>(&proving());
    for pod in &pods {
        pod.script().agreed = Some(HashMap::from([(id(), stranger.url.clone())]));
    }
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[0].url);
    assert!(stranger.script().seen.is_empty());
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

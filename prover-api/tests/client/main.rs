//! The client against pods that say what they are told to say: one test for each rule.
#![expect(clippy::unwrap_used, reason = "tests")]

mod finding;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use prover_api::client::{Client, ClientError, Encoding, JobBody, ProveOptions, Timing, Token};
use prover_api::{JobKind, JobState, MockJob, Priority, Problem, ProblemType, ProverJob, proof};
use support::{FakePod, OnJob, body, builder, client, id, pods, real_job, status, timing, too_big};
use triton_vm::prelude::*;

fn real_proof() -> Bytes {
    real_job().1
}

fn proving() -> OnJob {
    OnJob::Prove(real_proof())
}

fn refusing(kind: ProblemType) -> OnJob {
    OnJob::Refuse(Problem::new(kind))
}

async fn prove(client: &Client) -> Result<prover_api::client::Proved, ClientError> {
    client.prove(body(), ProveOptions::default()).await
}

#[tokio::test]
async fn a_job_is_sent_followed_and_its_proof_verified() {
    let pod = FakePod::start(proving());
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = told.clone();
    let options = ProveOptions {
        priority: Priority::High,
        kind: JobKind::Raise,
        force_cpu: true,
        deadline: Some(Duration::from_secs(90)),
        progress: Some(Arc::new(move |pod, status| tell.lock().unwrap().push((pod.to_owned(), status.state)))),
    };
    let client = client([&pod]);
    let proved = client.prove(body(), options).await.unwrap();
    assert_eq!((&proved.bytes, &proved.pod), (&real_proof(), &pod.url));
    assert_eq!(proved.proof, proof::decode(&real_proof()).unwrap());
    assert_eq!(proved.status.unwrap().log2_padded_height, Some(8));
    let expected = [JobState::Queued, JobState::Done].map(|state| (pod.url.clone(), state));
    assert_eq!(*told.lock().unwrap(), expected);

    let [sent] = &pod.requests("POST")[..] else { panic!("one request") };
    assert_eq!(sent.body, *body().json());
    let header = |name| sent.header(name).unwrap_or_default();
    assert_eq!((header("x-priority"), header("x-job-kind"), header("x-force-cpu")), ("high", "raise", "true"));
    assert_eq!((header("prefer"), header("content-encoding")), ("respond-async", "zstd"));
    assert!((85..=90).contains(&header("x-deadline").parse::<u64>().unwrap()));
    assert!((1..=64).contains(&header("x-client-id").len()));
    assert!(client.settle(Duration::from_secs(5)).await);
    assert!(pod.requests("DELETE").is_empty(), "nothing to withdraw");
}

#[tokio::test]
async fn jobs_can_be_sent_as_gzip_or_plain() {
    let pod = FakePod::start(OnJob::Cached(real_proof()));
    for (encoding, name) in [(Encoding::Gzip, Some("gzip")), (Encoding::Identity, None)] {
        let client = builder([&pod]).encoding(encoding).build().unwrap();
        let proved = prove(&client).await.unwrap();
        assert!(proved.status.is_none(), "the pod had the proof");
        let sent = pod.requests("POST").pop().unwrap();
        assert_eq!((sent.header("content-encoding"), &sent.body[..]), (name, &body().json()[..]));
    }
}

#[tokio::test]
async fn a_job_too_big_for_one_pod_goes_to_one_that_admits_it() {
    let pods = pods::<3>(&OnJob::Refuse(too_big(21)));
    pods[2].script().capacity.max_log2_padded_height = Some(21);
    pods[2].script().on_job = [proving()].into();
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[2].url);
    assert_eq!(pods[0].requests("POST").len(), 1);
    assert!(pods[1].requests("POST").is_empty(), "its capacity tells that it will refuse");
}

#[tokio::test]
async fn too_big_is_final_when_no_pod_admits_it() {
    let mut pods = pods::<3>(&OnJob::Refuse(too_big(21)));
    let too_big = Err(ClientError::TooBig { log2_padded_height: 21, over_own_limit: false });
    assert_eq!(prove(&client(&pods)).await.map(drop), too_big);
    let sent: usize = pods.iter().map(|pod| pod.requests("POST").len()).sum();
    assert_eq!(sent, 1);
    // A dead pod cannot say so, and does not keep the caller waiting for as long as patience lasts.
    pods[2].kill();
    let patient = Timing { patience: Duration::from_hours(1), ..timing() };
    assert_eq!(prove(&builder(&pods).timing(patient).build().unwrap()).await.map(drop), too_big);
}

#[tokio::test]
async fn who_promises_more_than_he_keeps_is_asked_twice_only() {
    let pod = FakePod::start(OnJob::Refuse(too_big(19)));
    let error = prove(&client([&pod])).await.unwrap_err();
    assert_eq!(error, ClientError::TooBig { log2_padded_height: 19, over_own_limit: false });
    assert_eq!(pod.requests("POST").len(), 2);
}

#[tokio::test]
async fn the_jobs_own_limit_is_final_at_once() {
    let pods = pods::<3>(&OnJob::Refuse(too_big(12)));
    let job = ProverJob { max_log2_padded_height: Some(11), ..real_job().0 };
    let error = client(&pods).prove(JobBody::from_job(&job).unwrap(), ProveOptions::default()).await.unwrap_err();
    assert_eq!(error, ClientError::TooBig { log2_padded_height: 12, over_own_limit: true });
    assert!(error.is_about_the_job());
    assert_eq!(pods.iter().map(|pod| pod.requests("POST").len()).sum::<usize>(), 1);
}

#[tokio::test]
async fn what_no_pod_can_prove_is_final_at_once() {
    for kind in [ProblemType::ProgramFailed, ProblemType::MalformedJob, ProblemType::OutputMismatch] {
        let pods = pods::<2>(&refusing(kind));
        let error = prove(&client(&pods)).await.unwrap_err();
        assert!(error.is_about_the_job());
        assert!(matches!(error, ClientError::Refused { problem, .. } if problem.problem_type == kind));
        assert_eq!((pods[0].requests("POST").len(), pods[1].requests("POST").len()), (1, 0));
    }
}

#[tokio::test]
async fn a_full_pod_is_left_for_another_and_asked_again_when_it_said() {
    let full = || OnJob::Refuse(Problem { retry_after_seconds: Some(1), ..Problem::new(ProblemType::QueueFull) });
    let pods = pods::<2>(&proving());
    pods[0].script().on_job = [full()].into();
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[1].url);

    let alone = FakePod::start(proving());
    alone.script().on_job.push_front(full());
    let started = Instant::now();
    prove(&client([&alone])).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "not before the pod said");
    assert_eq!(alone.requests("POST").len(), 2);
}

#[tokio::test]
async fn failures_of_a_pod_are_tried_elsewhere_and_end_when_nobody_is_left() {
    for kind in [ProblemType::WorkerLost, ProblemType::InvalidProof, ProblemType::WrongNetwork] {
        let pods = pods::<2>(&proving());
        pods[0].script().on_job = [refusing(kind)].into();
        assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[1].url, "{kind}");
        let [first, _] = pods;
        let error = prove(&client([&first])).await.unwrap_err();
        assert!(matches!(&error, ClientError::NowhereLeft { pod, .. } if *pod == first.url), "{error}");
        assert!(!error.is_about_the_job());
    }
}

#[tokio::test]
async fn a_failed_run_is_repeated_elsewhere() {
    let pods = pods::<2>(&OnJob::Hold);
    pods[1].script().on_job = [proving()].into();
    let client = client(&pods);
    let job = tokio::spawn(async move { prove(&client).await });
    pods[0].wait_for("POST", 1).await;
    let problem = Some(Problem::new(ProblemType::WorkerLost));
    pods[0].set(prover_api::JobStatus { problem, ..status(JobState::Failed) }, None);
    assert_eq!(job.await.unwrap().unwrap().pod, pods[1].url);
}

#[tokio::test]
async fn a_wrong_proof_never_reaches_the_caller() {
    let mut flipped = real_proof().to_vec();
    flipped[100] ^= 1;
    let other_claim = {
        let program = triton_program!(halt);
        let (aet, _) = VM::trace_execution(program.clone(), PublicInput::default(), NonDeterminism::default()).unwrap();
        proof::encode(&Stark::default().prove(&Claim::about_program(&program), &aet).unwrap()).unwrap()
    };
    for wrong in [flipped, other_claim, vec![], real_proof()[..1_000].to_vec(), proof::encode(&proof::valid_mock()).unwrap()] {
        for on_job in [OnJob::Prove(wrong.clone().into()), OnJob::Cached(wrong.clone().into())] {
            let pods = pods::<2>(&proving());
            pods[0].script().on_job = [on_job.clone()].into();
            let client = client(&pods);
            assert_eq!(prove(&client).await.unwrap().bytes, real_proof());
            assert_eq!(client.wrong_proofs().get(&pods[0].url), Some(&1));
            // From now on it comes last.
            assert_eq!(prove(&client).await.unwrap().pod, pods[1].url);
            assert_eq!(pods[0].requests("POST").len(), 1);
        }
    }
    let alone = FakePod::start(OnJob::Prove(Bytes::from_static(b"nonsense")));
    assert!(matches!(prove(&client([&alone])).await, Err(ClientError::NowhereLeft { .. })));
}

#[tokio::test]
async fn a_pod_that_dies_with_the_job_is_replaced() {
    let mut pods = pods::<2>(&OnJob::Hold);
    pods[1].script().on_job = [proving()].into();
    let client = client(&pods);
    let job = tokio::spawn(async move { prove(&client).await });
    pods[0].wait_for("POST", 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    pods[0].kill();
    assert_eq!(job.await.unwrap().unwrap().pod, pods[1].url);
}

#[tokio::test]
async fn a_lost_progress_stream_does_not_lose_the_job() {
    let pod = FakePod::start(OnJob::Hold);
    pod.script().short_events = true;
    let client = client([&pod]);
    let job = tokio::spawn(async move { prove(&client).await });
    // The stream ends again and again; in between the client asks.
    pod.wait_for("GET", 5).await;
    pod.set(status(JobState::Done), Some(real_proof()));
    assert_eq!(job.await.unwrap().unwrap().bytes, real_proof());
    assert_eq!((pod.requests("POST").len(), pod.requests("DELETE").len()), (1, 0));
}

#[tokio::test]
async fn a_silent_progress_stream_is_not_waited_for() {
    let pod = FakePod::start(OnJob::Hold);
    let quick = Timing { silence: Duration::from_millis(50), ..timing() };
    let client = builder([&pod]).timing(quick).build().unwrap();
    let job = tokio::spawn(async move { prove(&client).await });
    // One question to find the pod, then one after each silence.
    pod.wait_for("GET", 4).await;
    pod.set(status(JobState::Done), Some(real_proof()));
    job.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pod_that_forgot_the_job_gets_it_again() {
    let pod = FakePod::start(proving());
    pod.script().on_job.push_front(OnJob::Hold);
    pod.script().short_events = true;
    let client = client([&pod]);
    let job = tokio::spawn(async move { prove(&client).await });
    pod.wait_for("GET", 3).await;
    pod.forget_jobs();
    job.await.unwrap().unwrap();
    assert_eq!(pod.requests("POST").len(), 2);
}

#[tokio::test]
async fn dropping_the_call_withdraws_exactly_its_wish() {
    let pod = FakePod::start(OnJob::Hold);
    let client = client([&pod]);
    let start = || {
        let client = client.clone();
        tokio::spawn(async move { prove(&client).await })
    };
    let (first, second) = (start(), start());
    let sent = pod.wait_for("POST", 2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.abort();
    assert!(first.await.is_err());
    assert!(client.settle(Duration::from_secs(5)).await);
    let withdrawn = pod.wait_for("DELETE", 1).await;
    assert_eq!(withdrawn.len(), 1, "the other still wants it");
    let names: Vec<_> = sent.iter().map(|request| request.header("x-client-id")).collect();
    assert_ne!(names[0], names[1]);
    assert!(names.contains(&withdrawn[0].header("x-client-id")));
    pod.set(status(JobState::Done), Some(real_proof()));
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn settling_ends_even_if_the_pod_is_gone() {
    let mut pod = FakePod::start(OnJob::Hold);
    let client = client([&pod]);
    let call = tokio::time::timeout(Duration::from_millis(200), prove(&client));
    assert!(call.await.is_err());
    pod.kill();
    let started = Instant::now();
    client.settle(Duration::from_millis(300)).await;
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn the_deadline_ends_the_call_and_the_job() {
    let pod = FakePod::start(OnJob::Hold);
    let client = client([&pod]);
    let options = ProveOptions { deadline: Some(Duration::from_millis(300)), ..ProveOptions::default() };
    assert_eq!(client.prove(body(), options).await.map(drop), Err(ClientError::Deadline));
    assert_eq!(pod.wait_for("POST", 1).await[0].header("x-deadline"), Some("1"));
    pod.wait_for("DELETE", 1).await;
}

#[tokio::test]
async fn a_changed_token_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    fs::write(&path, "first").unwrap();
    let pod = FakePod::start(proving());
    pod.script().token = Some("first".to_owned());
    let client = builder([&pod]).token(Token::from_file(&path).unwrap()).build().unwrap();
    prove(&client).await.unwrap();
    pod.script().token = Some("second".to_owned());
    let writer = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        fs::write(&path, "second").unwrap();
    });
    pod.forget_jobs();
    prove(&client).await.unwrap();
    writer.await.unwrap();
    pod.script().token = Some("third".to_owned());
    pod.forget_jobs();
    let error = prove(&client).await.unwrap_err();
    assert!(matches!(&error, ClientError::NowhereLeft { why, .. } if why.contains("token")), "{error}");
}

#[tokio::test]
async fn pods_of_another_proof_system_are_not_even_sent_the_job() {
    let pods = pods::<2>(&proving());
    pods[0].script().capacity.proof_versions = vec![5];
    assert_eq!(prove(&client(&pods)).await.unwrap().pod, pods[1].url);
    pods[1].script().capacity.mock = true;
    pods[1].forget_jobs();
    assert!(matches!(prove(&client(&pods)).await, Err(ClientError::NowhereLeft { .. })));
    assert_eq!((pods[0].requests("POST").len(), pods[1].requests("POST").len()), (0, 1));
}

#[tokio::test]
async fn patience_ends_when_nobody_takes_the_job() {
    let mut pod = FakePod::start(proving());
    pod.kill();
    let impatient = Timing { patience: Duration::from_millis(200), ..timing() };
    let client = builder([&pod]).timing(impatient).build().unwrap();
    let error = prove(&client).await.unwrap_err();
    assert!(matches!(&error, ClientError::Patience { last, .. } if last.contains(&pod.url)), "{error}");
}

#[tokio::test]
async fn mock_jobs_go_to_mock_pods_and_get_the_mock_proof() {
    let job = MockJob { claim: real_job().0.claim, kind: JobKind::Merge, log2_padded_height: 21, duration_ms: 1 };
    let mock_proof = Bytes::from(proof::encode(&proof::valid_mock()).unwrap());
    let pods = pods::<2>(&proving());
    pods[1].script().on_job = [OnJob::Prove(mock_proof.clone())].into();
    pods[1].script().capacity.mock = true;
    let proved = client(&pods).prove_mock(&job, ProveOptions::default()).await.unwrap();
    assert_eq!((proved.bytes, &proved.pod), (mock_proof, &pods[1].url));
    assert_eq!(serde_json::from_slice::<MockJob>(&pods[1].requests("POST")[0].body).unwrap(), job);
    // A real proof is no mock proof.
    pods[1].script().on_job = [proving()].into();
    pods[1].forget_jobs();
    assert!(client(&pods).prove_mock(&job, ProveOptions::default()).await.is_err());
}

#[tokio::test]
async fn all_pods_are_asked_for_their_state() {
    let mut pods = pods::<2>(&proving());
    pods[1].kill();
    let mut all = client(&pods).status_all().await;
    all.sort_by_key(|status| status.pod != pods[0].url);
    assert_eq!(all[0].answer, Ok((support::capacity(), vec![])));
    assert!(all[1].answer.is_err());
    assert_eq!(all[1].pod, pods[1].url);
}

#[tokio::test]
async fn many_jobs_at_once_share_the_pods() {
    let pods = pods::<3>(&OnJob::Hold);
    // The pods refuse what is not the job whose proof exists; so: the same job, many times, each with a wish of its own.
    let client = client(&pods);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { prove(&client).await })
        })
        .collect();
    pods[0].wait_for("POST", 20).await;
    pods[0].set(status(JobState::Done), Some(real_proof()));
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().pod, pods[0].url, "equal claims meet in one pod");
    }
    assert_eq!(pods[0].script().seen.iter().filter(|seen| seen.method == "POST").count(), 20);
    assert_eq!(id(), body().id());
}

/// A listener that speaks TLS with a certificate for `prover-pods` from an authority of its own.
struct TlsListener {
    listener: tokio::net::TcpListener,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[tokio::test]
async fn tls_is_about_the_services_name_and_the_given_authority() {
    let key = rcgen::generate_simple_self_signed(["prover-pods".to_owned()]).unwrap();
    let stranger = rcgen::generate_simple_self_signed(["prover-pods".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [trusted, untrusted] = [("ca.pem", &key), ("other.pem", &stranger)].map(|(name, key)| {
        let path = folder.path().join(name);
        fs::write(&path, key.cert.pem()).unwrap();
        path
    });
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], key.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let pod = FakePod::start_with(proving(), "https", listener, |listener, app| async move {
        axum::serve(TlsListener { listener, acceptor }, app).await.unwrap();
    });
    let address = pod.address();
    let through = |authorities: &std::path::Path| {
        Client::builder()
            .endpoints([format!("dns+https://prover-pods:{}", address.port())])
            .resolver(Arc::new(move |_, _| async move { Ok(vec![address]) }.boxed()))
            .authorities(authorities)
            .timing(Timing { patience: Duration::from_millis(200), ..timing() })
            .build()
            .unwrap()
    };
    assert_eq!(prove(&through(&trusted)).await.unwrap().pod, pod.url);
    pod.forget_jobs();
    let before = pod.requests("POST").len();
    // Not from that authority; and by address, which the certificate does not name.
    assert!(matches!(prove(&through(&untrusted)).await, Err(ClientError::Patience { .. })));
    let by_address = builder([&pod]).authorities(&trusted);
    let impatient = Timing { patience: Duration::from_millis(200), ..timing() };
    assert!(matches!(prove(&by_address.timing(impatient).build().unwrap()).await, Err(ClientError::Patience { .. })));
    assert_eq!(pod.requests("POST").len(), before, "no secret goes to a stranger");
    assert!(Client::builder().endpoints([&pod.url]).authorities(folder.path().join("none")).build().is_err());
}

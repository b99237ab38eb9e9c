//! The real binary `prover-proxy`, between a caller and a pod that says what each test tells it to.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prover_api::framing::FiveTexts;
use prover_api::{
    Capacity, JobState, JobStatus, PROBLEM_JSON, Priority, Problem, ProblemType, ProverJob, StageSeconds, headers, proof,
};
use triton_vm::prelude::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A job and its true proof, made once.
fn proven() -> &'static (ProverJob, Bytes) {
    static PROVEN: OnceLock<(ProverJob, Bytes)> = OnceLock::new();
    PROVEN.get_or_init(|| {
        let program = triton_program!(divine 1 write_io 1 halt);
        let claim = Claim::about_program(&program).with_output(bfe_vec![123_454_321]);
        let witness = NonDeterminism::new(bfe_vec![123_454_321]);
        let (aet, _) = VM::trace_execution(program.clone(), PublicInput::default(), witness.clone()).expect("runs");
        let proof = Stark::default().prove(&claim, &aet).expect("proves");
        (ProverJob::new(program, claim, witness), proof::encode(&proof).expect("encodes").into())
    })
}

fn document(max_log2_padded_height: Option<u8>) -> Vec<u8> {
    ProverJob { max_log2_padded_height, ..proven().0.clone() }.to_json().expect("encodes")
}

fn five_texts(max_log2_padded_height: Option<u8>) -> Vec<u8> {
    let (document, mut lines) = (document(max_log2_padded_height), Vec::new());
    FiveTexts::of_document(&document).expect("parses").write_lines(&mut lines).expect("writes");
    lines
}

/// What the pod does with a job.
#[derive(Clone)]
enum OnJob {
    /// Has this proof already.
    Answer(Bytes),
    /// Says no.
    Refuse(Problem),
    /// Takes it and never ends.
    Hold,
}

struct Pod {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

#[derive(Clone)]
struct Seen {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone)]
struct Script {
    on_job: OnJob,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Pod {
    fn start(on_job: OnJob) -> Self {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let script = Script { on_job, seen: seen.clone() };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        listener.set_nonblocking(true).expect("switches");
        let url = format!("http://{}", listener.local_addr().expect("has an address"));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("listens");
                let app = axum::Router::new().fallback(answer).with_state(script);
                axum::serve(listener, app).await.expect("serves");
            });
        });
        Self { url, seen }
    }

    fn requests(&self, method: &Method) -> Vec<Seen> {
        let seen: MutexGuard<'_, _> = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|seen| seen.method == method).cloned().collect()
    }

    fn wait_for(&self, method: &Method) -> Seen {
        wait_until(&format!("a {method}"), || self.requests(method).into_iter().next())
    }
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("arrives");
    let path = parts.uri.path().to_owned();
    let seen = Seen { method: parts.method.clone(), headers: parts.headers, body };
    script.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    let json =
        |status: StatusCode, kind: &'static str, json: Vec<u8>| (status, [(header::CONTENT_TYPE, kind)], json).into_response();
    let problem = |problem: &Problem| {
        let status = StatusCode::from_u16(problem.status).expect("is a status");
        json(status, PROBLEM_JSON, serde_json::to_vec(problem).expect("encodes"))
    };
    let status = serde_json::to_vec(&held()).expect("encodes");
    match (parts.method, path.as_str()) {
        (Method::GET, "/v1/capacity") => {
            json(StatusCode::OK, "application/json", serde_json::to_vec(&capacity()).expect("encodes"))
        }
        (Method::DELETE, _) => StatusCode::NO_CONTENT.into_response(),
        (Method::POST, "/v1/proofs") => match &script.on_job {
            OnJob::Answer(proof) => proof.clone().into_response(),
            OnJob::Refuse(refusal) => problem(refusal),
            OnJob::Hold => json(StatusCode::ACCEPTED, "application/json", status),
        },
        (Method::GET, path) if path.ends_with("/events") => {
            let event = Bytes::from([b"event: status\ndata: ".as_slice(), &status, b"\n\n"].concat());
            let stream = futures::StreamExt::chain(
                futures::stream::iter([Ok::<_, std::convert::Infallible>(event)]),
                futures::stream::pending(),
            );
            ([(header::CONTENT_TYPE, "text/event-stream")], axum::body::Body::from_stream(stream)).into_response()
        }
        _ => problem(&Problem::new(ProblemType::NotFound)),
    }
}

fn capacity() -> Capacity {
    Capacity {
        idle: true,
        ready: true,
        draining: false,
        max_log2_padded_height: Some(20),
        slots: 1,
        running: 0,
        queue: std::collections::BTreeMap::new(),
        body_bytes: 0,
        max_body_bytes: 1 << 30,
        proof_versions: vec![prover_api::PROOF_VERSION],
        backends: vec!["cpu".to_owned()],
        mock: false,
    }
}

fn held() -> JobStatus {
    JobStatus {
        id: proven().0.id(),
        state: JobState::Proving,
        priority: Priority::Normal,
        position: None,
        progress: 0.5,
        stage: None,
        log2_padded_height: Some(8),
        backend: Some("cpu".to_owned()),
        device: None,
        seconds: StageSeconds::default(),
        lost_runs: 0,
        problem: None,
    }
}

fn too_big(log2_padded_height: u8, max: u8) -> OnJob {
    OnJob::Refuse(Problem {
        log2_padded_height: Some(log2_padded_height),
        max_log2_padded_height: Some(max),
        ..Problem::new(ProblemType::PaddedHeightTooBig)
    })
}

fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what} never came");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn proxy(endpoints: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prover-proxy"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PROVER_PROXY_")) {
        command.env_remove(name);
    }
    command.env("PROVER_PROXY_ENDPOINTS", endpoints).env("PROVER_PROXY_PATIENCE", "1s");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

fn feed(child: &mut Child, input: &[u8]) {
    let mut stdin = child.stdin.take().expect("is piped");
    // A proxy that ends before it has read everything is a result, not an error of the test.
    drop(stdin.write_all(input));
}

fn run(command: &mut Command, input: &[u8]) -> Ended {
    let mut child = command.spawn().expect("starts");
    feed(&mut child, input);
    let output = child.wait_with_output().expect("ends");
    Ended { status: output.status, stdout: output.stdout, stderr: String::from_utf8(output.stderr).expect("is text") }
}

fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("writes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("marks");
    path
}

#[test]
fn both_nodes_get_their_proof_and_nothing_else_on_standard_output() {
    let (job, proof) = proven();
    for input in [document(None), five_texts(None), five_texts(Some(20))] {
        let pod = Pod::start(OnJob::Answer(proof.clone()));
        let ended = run(&mut proxy(&pod.url), &input);
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert_eq!(ended.stdout, proof[..]);
        for line in ended.stderr.lines() {
            let (level, rest) = line.split_once(':').expect("has a level");
            assert!(["TRACE", "DEBUG", "INFO", "WARN", "ERROR"].contains(&level), "{line}");
            assert!(rest.starts_with(" [proxy] "), "{line}");
        }
        assert!(ended.stderr.contains(&job.id().to_string()));
        assert!(!ended.stderr.contains("123454321"), "witness on standard error");
        let sent = pod.wait_for(&Method::POST);
        assert_eq!(sent.headers[headers::PRIORITY], "normal");
        let sent = zstd::decode_all(&sent.body[..]).expect("is zstd");
        assert_eq!(ProverJob::from_json(&sent).expect("is a job").id(), job.id());
    }
}

#[test]
fn priorities_come_from_the_settings_else_from_the_program() {
    let block = {
        let digest = Digest::try_from_hex(prover_api::BLOCK_PROGRAM_DIGEST).expect("is a digest");
        let job = &proven().0;
        let claim = Claim { program_digest: digest, ..job.claim.clone() };
        ProverJob { claim, ..job.clone() }.to_json().expect("encodes")
    };
    let refusal = || OnJob::Refuse(Problem::new(ProblemType::ProgramDigestMismatch));
    for (input, setting, priority, kind) in [
        (&block, None, "high", "block"),
        (&block, Some("lowest"), "lowest", "block"),
        (&document(None), Some("highest"), "highest", "other"),
    ] {
        let pod = Pod::start(refusal());
        let mut command = proxy(&pod.url);
        command.envs(setting.map(|setting| ("PROVER_PROXY_PRIORITY", setting)));
        assert_eq!(run(&mut command, input).status.code(), Some(1));
        let sent = pod.wait_for(&Method::POST);
        assert_eq!([&sent.headers[headers::PRIORITY], &sent.headers[headers::JOB_KIND]], [priority, kind]);
    }
}

#[test]
fn a_height_over_the_limit_has_its_exit_code_only_for_a_node_that_set_one() {
    for (limit, refusal, code) in [
        (Some(7), too_big(8, 7), 208),
        (Some(31), too_big(22, 21), 222),
        (None, too_big(22, 21), 1),
        (Some(7), OnJob::Refuse(Problem::new(ProblemType::ProgramFailed)), 1),
    ] {
        for input in [document(limit), five_texts(limit)] {
            let pod = Pod::start(refusal.clone());
            let ended = run(&mut proxy(&pod.url), &input);
            assert_eq!(ended.status.code(), Some(code), "{}", ended.stderr);
            assert!(ended.stdout.is_empty());
            assert!(ended.stderr.lines().any(|line| line.starts_with("ERROR: [proxy] ")), "{}", ended.stderr);
        }
    }
}

#[test]
fn wrong_proofs_and_unusable_input_never_reach_standard_output() {
    let (_, proof) = proven();
    let mut wrong = proof.to_vec();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    let pod = Pod::start(OnJob::Answer(wrong.into()));
    let ended = run(&mut proxy(&pod.url), &document(None));
    assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0), "{}", ended.stderr);
    let whole = five_texts(None);
    for input in [b"".as_slice(), b"{}", b"not json", &whole[..whole.len() / 2], &document(None)[1..]] {
        let ended = run(&mut proxy(&pod.url), input);
        assert_eq!((ended.status.code(), ended.stdout.len()), (Some(1), 0), "{}", ended.stderr);
        assert!(ended.stderr.contains("standard input holds no job"), "{}", ended.stderr);
    }
    let no_pods = run(proxy("").env_remove("PROVER_PROXY_ENDPOINTS"), &document(None));
    assert_eq!(no_pods.status.code(), Some(1));
    assert!(no_pods.stderr.contains("PROVER_PROXY_ENDPOINTS"), "{}", no_pods.stderr);
}

#[test]
fn a_fallback_gets_the_job_as_it_came_but_not_the_hook() {
    let folder = tempfile::tempdir().expect("a folder");
    let got = folder.path().join("got");
    let text = format!("cat > {}; printf %s \"${{NEPTUNE_PROVER_PROXY:-unset}}\"; exit 7", got.display());
    let fallback = script(folder.path(), "prover", &text);
    // Nobody listens at port 1.
    for input in [document(Some(20)), five_texts(Some(20))] {
        let mut command = proxy("http://127.0.0.1:1");
        command.env("PROVER_PROXY_FALLBACK", &fallback).env("NEPTUNE_PROVER_PROXY", "would call itself");
        let ended = run(&mut command, &input);
        assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(7), b"unset".as_slice()), "{}", ended.stderr);
        assert_eq!(std::fs::read(&got).expect("was written"), input);
    }
    let mut without = proxy("http://127.0.0.1:1");
    without.env("PROVER_PROXY_FALLBACK", "none");
    assert_eq!(run(&mut without, &document(None)).status.code(), Some(1));
    // A job that is wrong itself is not tried again.
    std::fs::remove_file(&got).expect("removes");
    let pod = Pod::start(OnJob::Refuse(Problem::new(ProblemType::OutputMismatch)));
    let mut command = proxy(&pod.url);
    command.env("PROVER_PROXY_FALLBACK", &fallback);
    assert_eq!(run(&mut command, &document(None)).status.code(), Some(1));
    assert!(!got.exists());
}

#[test]
fn a_signal_a_hang_up_and_the_death_of_the_parent_cancel_the_remote_job() {
    // Terminated.
    let pod = Pod::start(OnJob::Hold);
    let mut child = proxy(&pod.url).spawn().expect("starts");
    feed(&mut child, &document(None));
    let posted = pod.wait_for(&Method::POST);
    signal(child.id(), nix::sys::signal::Signal::SIGTERM);
    let withdrawn = pod.wait_for(&Method::DELETE);
    assert_eq!(withdrawn.headers[headers::CLIENT_ID], posted.headers[headers::CLIENT_ID]);
    assert_eq!(child.wait().expect("ends").code(), Some(128 + 15));

    // Nobody reads.
    let pod = Pod::start(OnJob::Hold);
    let mut child = proxy(&pod.url).spawn().expect("starts");
    feed(&mut child, &document(None));
    pod.wait_for(&Method::POST);
    drop(child.stdout.take());
    pod.wait_for(&Method::DELETE);
    assert_eq!(child.wait().expect("ends").code(), Some(1));

    // The parent is killed outright, with the proxy as its child, and with a shell in between.
    for inner in ["\"$PROXY\" < \"$JOB\" & wait", "sh -c '\"$PROXY\" < \"$JOB\"; exit $?' & wait"] {
        let folder = tempfile::tempdir().expect("a folder");
        let job = folder.path().join("job");
        std::fs::write(&job, document(None)).expect("writes");
        let pod = Pod::start(OnJob::Hold);
        let mut parent = Command::new("sh");
        parent.args(["-c", inner]).env("PROXY", env!("CARGO_BIN_EXE_prover-proxy")).env("JOB", &job);
        parent.env("PROVER_PROXY_ENDPOINTS", &pod.url).stdout(Stdio::inherit()).stderr(Stdio::null());
        let mut parent = parent.spawn().expect("starts");
        pod.wait_for(&Method::POST);
        parent.kill().expect("kills");
        parent.wait().expect("ends");
        pod.wait_for(&Method::DELETE);
    }
}

#[test]
fn a_fallback_does_not_outlive_the_proxy() {
    let folder = tempfile::tempdir().expect("a folder");
    let pid_file = folder.path().join("pid");
    let fallback = script(folder.path(), "prover", &format!("echo $$ > {}; exec sleep 600", pid_file.display()));
    for fatal in [nix::sys::signal::Signal::SIGTERM, nix::sys::signal::Signal::SIGKILL] {
        let mut child = proxy("http://127.0.0.1:1").env("PROVER_PROXY_FALLBACK", &fallback).spawn().expect("starts");
        feed(&mut child, &document(None));
        let pid: u32 = wait_until("the fallback", || std::fs::read_to_string(&pid_file).ok()?.trim().parse().ok());
        signal(child.id(), fatal);
        child.wait().expect("ends");
        wait_until("its end", || {
            // Nobody may have reaped it yet: a zombie has ended too.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        std::fs::remove_file(&pid_file).expect("removes");
    }
}

#[test]
fn settings_come_from_a_file_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, proof) = proven();
    let pod = Pod::start(OnJob::Answer(proof.clone()));
    let config = folder.path().join("proxy.json");
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").expect("writes");
    let text = format!(r#"{{"endpoints":["{}"],"priority":"low","token_file":"{}"}}"#, pod.url, token.display());
    std::fs::write(&config, text).expect("writes");
    let mut command = proxy("");
    command.env_remove("PROVER_PROXY_ENDPOINTS").arg("--config").arg(&config);
    let ended = run(&mut command, &document(None));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("s3cret"));
    let sent = pod.wait_for(&Method::POST);
    assert_eq!([&sent.headers[headers::PRIORITY], &sent.headers["authorization"]], ["low", "Bearer s3cret"]);
}

#[test]
fn it_starts_in_milliseconds() {
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let start = Instant::now();
            let mut child = proxy("http://127.0.0.1:1").arg("--version").spawn().expect("starts");
            let mut text = String::new();
            child.stdout.take().expect("is piped").read_to_string(&mut text).expect("reads");
            assert!(child.wait().expect("ends").success() && text.starts_with("prover-proxy "));
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("start to end: median {:?}", times[times.len() / 2]);
    // Generous, for machines that do much else.
    assert!(times[0] < Duration::from_millis(100), "{times:?}");
    let pod = Pod::start(OnJob::Refuse(Problem::new(ProblemType::ProgramFailed)));
    let job = document(None);
    let whole = (0..10).map(|_| {
        let start = Instant::now();
        assert_eq!(run(&mut proxy(&pod.url), &job).status.code(), Some(1));
        start.elapsed()
    });
    let best = whole.min().expect("ran");
    println!("start, three requests and end: {best:?}");
    assert!(best < Duration::from_millis(500), "{best:?}");
}

fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().expect("is a process"));
    nix::sys::signal::kill(pid, signal).expect("is there");
}

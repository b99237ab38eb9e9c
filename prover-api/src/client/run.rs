//! One job from the call to the verified proof: asks, sends, follows, and does what `judge` and `ledger` say.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use triton_vm::prelude::Claim;

use super::endpoints::Endpoint;
use super::http::{Accepted, CallError, Pod, Sending};
use super::judge::{Choice, Need, Verdict, View, choose, judge};
use super::ledger::{Availability, Ledger, Trouble};
use super::wish::Wish;
use super::{ClientError, JobBody, ProveOptions, Proved, Shared, rendezvous};
use crate::{JobId, JobState, JobStatus, Problem, ProblemType, proof};

/// Where clients meet that want the same proof: this many pods, the first in the order of the job, are asked for it by each.
const MEETING: usize = 2;

/// Nothing that is known of the pods may be older when a job is sent anew: neither who they are nor what they said. So a look that
/// took longer is repeated, so many looks at most.
const STALE: Duration = Duration::from_millis(200);
const LOOKS: usize = 3;

/// How long a pod that did not answer lately is waited for beside others: long enough for one that is there again.
const GLANCE: Duration = Duration::from_millis(100);

/// How long after a change of the pods a job is looked for on all of them. An upgrade that began before it is over by then.
const UNSETTLED: Duration = Duration::from_mins(30);

/// Proves. See [`super::Client::prove`].
pub async fn prove(shared: &Arc<Shared>, job: JobBody, options: ProveOptions) -> Result<Proved, ClientError> {
    let deadline = options.deadline.map(|deadline| Instant::now() + deadline);
    let proving = async {
        let (claim, id, limit, mock) = (job.claim().clone(), job.id(), job.max_log2_padded_height(), job.is_mock());
        let encoding = shared.encoding;
        // The text is dropped here unless the caller keeps it: from now on there is the compressed job only.
        let body = tokio::task::spawn_blocking(move || encoding.apply(job.json()))
            .await
            .map_err(|error| ClientError::Encoding(error.to_string()))?
            .map_err(|error| ClientError::Encoding(error.to_string()))?;
        let ledger = Ledger::new(shared.timing.backoff);
        let now = Instant::now();
        let (without_proof, options) = (HashSet::new(), &options);
        Run { shared, claim, id, limit, mock, body, options, deadline, ledger, without_proof, rounds: 0, waiting_since: now }
            .run()
            .await
    };
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), proving).await.unwrap_or(Err(ClientError::Deadline)),
        None => proving.await,
    }
}

struct Run<'a> {
    shared: &'a Arc<Shared>,
    claim: Claim,
    id: JobId,
    limit: Option<u8>,
    mock: bool,
    /// Compressed.
    body: Bytes,
    options: &'a ProveOptions,
    deadline: Option<Instant>,
    ledger: Ledger,
    /// Pods that were done with the job and have its proof no more.
    without_proof: HashSet<String>,
    /// Without anybody to send the job to, since the last time that there was.
    rounds: u32,
    waiting_since: Instant,
}

/// What came of a job that a pod had accepted.
enum Followed {
    Proof(Bytes, Option<Box<JobStatus>>),
    /// The pod says that there will be none.
    Ended(Box<Problem>),
    /// The pod does not know the job any more.
    Gone,
    /// The pod cannot be reached any more.
    Lost(String),
}

/// Where to go in a round.
enum Target {
    Fetch(Endpoint),
    Send(Endpoint),
    /// Nowhere now.
    None,
    /// Nowhere now; no pod that answered admits the height. `silent`: some did not answer.
    TooBig {
        silent: bool,
    },
}

impl Run<'_> {
    async fn run(mut self) -> Result<Proved, ClientError> {
        loop {
            let proved = match self.find().await? {
                Target::Fetch(pod) => self.fetch(&pod).await?,
                Target::Send(pod) => self.send(&pod).await?,
                Target::TooBig { silent } if self.ledger.nobody_admits(silent) => {
                    let log2_padded_height = self.ledger.needed_height().unwrap_or_default();
                    return Err(ClientError::TooBig { log2_padded_height, over_own_limit: false });
                }
                Target::None | Target::TooBig { .. } => {
                    self.pause().await?;
                    None
                }
            };
            if let Some(proved) = proved {
                return Ok(proved);
            }
        }
    }

    /// The pods in the order in which this job asks them. Those that have given wrong proofs come last.
    fn order(&self, pods: &[Endpoint]) -> Vec<Endpoint> {
        let names: Vec<_> = pods.iter().map(|pod| &*pod.name).collect();
        let mut order: Vec<_> = rendezvous::order(&names, self.id).into_iter().map(|index| pods[index].clone()).collect();
        order.sort_by_key(|pod| self.shared.is_suspect(&pod.name));
        order
    }

    fn need(&self) -> Need {
        Need {
            log2_padded_height: self.ledger.needed_height(),
            proof_version: self.claim.version,
            mock: self.mock,
            priority: self.options.priority,
        }
    }

    /// Where to go now. What was seen of the pods must not be old when the job is sent: meanwhile another client may have sent it
    /// to another of them, or to one that was not there yet. A pod that is just starting or has just ended can hold up a look by
    /// seconds.
    async fn find(&mut self) -> Result<Target, ClientError> {
        let mut look = 0;
        loop {
            look += 1;
            let began = Instant::now();
            let pods = self.order(&self.shared.endpoints.within(STALE).await);
            let (target, is_new) = self.look(&pods).await?;
            if !is_new || began.elapsed() < STALE || look == LOOKS {
                if is_new {
                    let asked = pods.iter().map(|pod| &*pod.name).collect::<Vec<_>>().join(" ");
                    tracing::debug!(job = %self.id, asked, look, "nobody has it");
                }
                return Ok(target);
            }
        }
    }

    /// Asks the first two for the job and all for their capacity, as far as needed. Those that cannot have it, because they are not
    /// up, do not count. Where pods have come or gone lately, all are asked for the job: those that were its first two need not be
    /// any more. Tells, too, whether nobody was found who has the job, so that it would be sent anew.
    async fn look(&mut self, pods: &[Endpoint]) -> Result<(Target, bool), ClientError> {
        let now = Instant::now();
        let available = |pod: &&Endpoint| self.ledger.availability(&pod.name, now);
        let left = pods.iter().filter(|pod| available(pod) != Availability::Never).count();
        if left == 0 && !pods.is_empty() {
            return Err(self.nowhere_left());
        }
        let askable = pods.iter().filter(|pod| available(pod) == Availability::Now).cloned();
        let (mut shunned, mut ready): (Vec<_>, Vec<_>) = askable.partition(|pod| self.shared.is_shunned(&pod.name));
        if ready.is_empty() {
            std::mem::swap(&mut ready, &mut shunned);
        }
        let waits_for_busy =
            pods.iter().any(|pod| matches!(available(&pod), Availability::At(_)) && !self.ledger.is_silent(&pod.name));
        let mut views: Vec<View> = Vec::new();
        loop {
            let rest = &ready[views.len()..];
            let wanted = MEETING.saturating_sub(views.iter().filter(|view| view.may_hold()).count()).min(rest.len());
            if wanted == 0 {
                break;
            }
            views.extend(self.ask(&rest[..wanted], true, Duration::MAX).await);
        }
        let rest = &ready[views.len()..];
        let mut choice = choose(&views, &self.need());
        let full = matches!(choice, Choice::Queue(_) | Choice::Nowhere);
        let found = |choice: Choice| matches!(choice, Choice::Fetch(_) | Choice::Join(_));
        let moved = !found(choice) && self.shared.endpoints.moved_within(UNSETTLED);
        if (full || moved) && !rest.is_empty() {
            views.extend(self.ask(rest, moved, Duration::MAX).await);
            let wider = choose(&views, &self.need());
            if full || found(wider) {
                choice = wider;
            }
        }
        // Other clients may have found them back, and have sent the job there.
        if !found(choice) && !shunned.is_empty() {
            let glances = self.ask(&shunned, true, GLANCE).await;
            let other = choose(&glances, &self.need());
            if found(other) || matches!(choice, Choice::Nowhere) {
                views.extend(glances);
                ready.extend(shunned);
                choice = choose(&views, &self.need());
            }
        }
        Ok(match choice {
            Choice::Fetch(pod) => (Target::Fetch(ready[pod].clone()), false),
            Choice::Join(pod) => (Target::Send(ready[pod].clone()), false),
            Choice::Idle(pod) | Choice::Queue(pod) => (Target::Send(ready[pod].clone()), true),
            Choice::Nowhere => (self.why_nowhere(&views, left, waits_for_busy), false),
        })
    }

    fn why_nowhere(&self, views: &[View], left: usize, waits_for_busy: bool) -> Target {
        let Some(height) = self.ledger.needed_height() else { return Target::None };
        let most = |view: &View| view.capacity.as_ref().and_then(|capacity| capacity.max_log2_padded_height);
        if waits_for_busy || views.iter().any(|view| most(view).is_some_and(|most| most >= height)) {
            return Target::None;
        }
        let said_no = views.iter().filter(|view| most(view).is_some()).count();
        Target::TooBig { silent: said_no < left }
    }

    /// Asks these pods. Who does not answer within `most` is not held to have been asked.
    async fn ask(&mut self, pods: &[Endpoint], for_the_job: bool, most: Duration) -> Vec<View> {
        let shared = self.shared;
        let id = self.id;
        let answers = join_all(pods.iter().map(|endpoint| async move {
            let pod = shared.pod(endpoint);
            let state = async {
                if !for_the_job {
                    return None;
                }
                pod.status(id).await.ok().map(|status| status.state)
            };
            let answer = async { tokio::join!(state, shared.capacity(endpoint)) };
            tokio::time::timeout(most, answer).await.ok()
        }))
        .await;
        let mut views = Vec::with_capacity(pods.len());
        for (pod, answer) in pods.iter().zip(answers) {
            let Some((held, capacity)) = answer else {
                views.push(View::default());
                continue;
            };
            // What it was done with counts as unknown to it, or it would be asked in vain for ever.
            let held = held.filter(|&state| state != JobState::Done || !self.without_proof.contains(&*pod.name));
            let capacity = match capacity {
                Ok(capacity) => {
                    self.ledger.answered(&pod.name);
                    if let Some(kind) = self.need().refusal(&capacity) {
                        self.ledger.exclude(&pod.name, Trouble::Problem(Box::new(Problem::new(kind))));
                    }
                    Some(capacity)
                }
                Err(error) => {
                    self.not_now(pod, error);
                    None
                }
            };
            views.push(View { held, capacity });
        }
        views
    }

    /// A question was not answered.
    fn not_now(&mut self, pod: &Endpoint, error: CallError) {
        match error {
            CallError::Unreachable(why) => self.postpone(pod, Trouble::Unreachable(why), None),
            CallError::Problem { problem, token, .. } if problem.problem_type == ProblemType::Unauthorized => {
                self.unauthorized(pod, *problem, token.as_deref());
            }
            CallError::Problem { problem, retry_after, .. } => self.postpone(pod, Trouble::Problem(problem), retry_after),
        }
    }

    fn postpone(&mut self, pod: &Endpoint, trouble: Trouble, told: Option<Duration>) {
        tracing::debug!(job = %self.id, pod = %pod.name, ?trouble, "postponed");
        self.ledger.postpone(&pod.name, trouble, told, Instant::now(), rand::random());
    }

    fn run_failed(&mut self, pod: &Endpoint, trouble: Trouble, told: Option<Duration>) {
        tracing::warn!(job = %self.id, pod = %pod.name, ?trouble, "the pod did not bring the job to an end");
        self.ledger.run_failed(&pod.name, trouble, told, Instant::now(), rand::random());
    }

    fn unauthorized(&mut self, pod: &Endpoint, problem: Problem, token: Option<&str>) {
        if !self.shared.token.renew(token) {
            // The file, or the pod's, may be about to change: a few more attempts.
            self.run_failed(pod, Trouble::Problem(Box::new(problem)), None);
        }
    }

    /// A pod refused the job, or ended it: `Err` when that is final.
    fn refused(
        &mut self,
        pod: &Endpoint,
        problem: Problem,
        told: Option<Duration>,
        token: Option<&str>,
        ran: bool,
    ) -> Result<(), ClientError> {
        let verdict = judge(&problem, self.limit);
        tracing::debug!(job = %self.id, pod = %pod.name, problem = %problem, ?verdict, "refused");
        match verdict {
            Verdict::Final => return Err(ClientError::refused(&pod.name, problem)),
            Verdict::NotHere => self.ledger.exclude(&pod.name, Trouble::Problem(Box::new(problem))),
            Verdict::Bigger(height) => self.ledger.too_big(&pod.name, height, problem),
            Verdict::Later if ran => self.run_failed(pod, Trouble::Problem(Box::new(problem)), told),
            Verdict::Later => self.postpone(pod, Trouble::Problem(Box::new(problem)), told),
            Verdict::NewToken => self.unauthorized(pod, problem, token),
        }
        Ok(())
    }

    fn nowhere_left(&self) -> ClientError {
        match (self.ledger.last(), self.ledger.needed_height()) {
            (Some((_, Trouble::Problem(problem))), Some(log2_padded_height))
                if problem.problem_type == ProblemType::PaddedHeightTooBig =>
            {
                ClientError::TooBig { log2_padded_height, over_own_limit: false }
            }
            (Some((pod, trouble)), _) => ClientError::NowhereLeft { pod: pod.clone(), why: trouble.to_string() },
            (None, _) => ClientError::NowhereLeft { pod: String::new(), why: "there is no pod".to_owned() },
        }
    }

    async fn pause(&mut self) -> Result<(), ClientError> {
        let pods = self.shared.endpoints.current().await;
        let waited = self.waiting_since.elapsed();
        if waited >= self.shared.timing.patience {
            let last = match self.ledger.last() {
                Some((pod, trouble)) => format!("{pod}: {trouble}"),
                None if pods.is_empty() => "no pod is known".to_owned(),
                None => "no pod is ready".to_owned(),
            };
            return Err(ClientError::Patience { waited, last });
        }
        self.rounds += 1;
        let names = pods.iter().map(|pod| &*pod.name);
        let pause = self.ledger.pause(names, self.rounds, Instant::now(), rand::random());
        tokio::time::sleep(pause.min(self.shared.timing.patience.saturating_sub(waited))).await;
        Ok(())
    }

    async fn fetch(&mut self, endpoint: &Endpoint) -> Result<Option<Proved>, ClientError> {
        match self.shared.pod(endpoint).proof(self.id).await {
            Ok(bytes) => Ok(self.check(endpoint, bytes, None).await),
            Err(CallError::Problem { problem, .. }) if problem.problem_type == ProblemType::NotFound => {
                tracing::debug!(job = %self.id, pod = %endpoint.name, "the proof has left the pod's cache");
                self.without_proof.insert(endpoint.name.to_string());
                Ok(None)
            }
            Err(error) => {
                self.not_now(endpoint, error);
                Ok(None)
            }
        }
    }

    async fn send(&mut self, endpoint: &Endpoint) -> Result<Option<Proved>, ClientError> {
        let mut wish = Wish::new(self.shared, endpoint, self.id);
        let job = Sending {
            id: self.id,
            body: self.body.clone(),
            encoding: self.shared.encoding.header(),
            priority: self.options.priority,
            kind: self.options.kind,
            force_cpu: self.options.force_cpu,
            deadline: self.deadline.map(|at| seconds_up(at.saturating_duration_since(Instant::now()))),
            client_id: wish.client_id(),
        };
        let answer = self.shared.pod(endpoint).send(&job).await;
        let followed = match answer {
            Ok(Accepted::Proof(bytes)) => Followed::Proof(bytes, None),
            Ok(Accepted::Status(status)) => {
                tracing::debug!(job = %self.id, pod = %endpoint.name, "accepted");
                wish.accepted();
                self.ledger.succeeded(&endpoint.name);
                self.rounds = 0;
                let followed = self.follow(endpoint, status.map(|status| *status)).await;
                self.waiting_since = Instant::now();
                followed
            }
            Err(CallError::Unreachable(why)) => {
                // It may have arrived all the same: dropping the wish withdraws it.
                self.postpone(endpoint, Trouble::Unreachable(why), None);
                return Ok(None);
            }
            Err(CallError::Problem { problem, retry_after, token }) => {
                wish.ended();
                self.refused(endpoint, *problem, retry_after, token.as_deref(), false)?;
                return Ok(None);
            }
        };
        match followed {
            Followed::Proof(bytes, status) => {
                wish.ended();
                return Ok(self.check(endpoint, bytes, status.map(|status| *status)).await);
            }
            Followed::Ended(problem) => {
                wish.ended();
                let told = problem.retry_after_seconds.map(Duration::from_secs);
                self.refused(endpoint, *problem, told, None, true)?;
            }
            Followed::Gone => {
                wish.ended();
                let why = "the pod does not know the job any more: it was restarted, or forgot it".to_owned();
                self.run_failed(endpoint, Trouble::Unreachable(why), None);
            }
            Followed::Lost(why) => self.run_failed(endpoint, Trouble::Unreachable(why), None),
        }
        Ok(None)
    }

    /// Follows an accepted job to its end there, through lost connections.
    async fn follow(&self, endpoint: &Endpoint, first: Option<JobStatus>) -> Followed {
        let pod = self.shared.pod(endpoint);
        let mut news = News { endpoint, options: self.options, limit: self.limit, last: None };
        let mut lost_since = None;
        let mut failures = 0;
        let mut ended = first.and_then(|status| news.tell(status));
        loop {
            if ended.is_none() {
                ended = self.watch(&pod, &mut news).await;
            }
            let error = match &ended {
                Some(status) if status.state == JobState::Done => match pod.proof(self.id).await {
                    Ok(bytes) => return Followed::Proof(bytes, ended.map(Box::new)),
                    Err(error) => error,
                },
                Some(status) => return Followed::Ended(Box::new(why_ended(status, self.limit))),
                None => match pod.status(self.id).await {
                    Ok(status) => {
                        (lost_since, failures) = (None, 0);
                        ended = news.tell(status);
                        if ended.is_none() {
                            tokio::time::sleep(self.shared.timing.poll).await;
                        }
                        continue;
                    }
                    Err(error) => error,
                },
            };
            let why = match error {
                CallError::Unreachable(why) => why,
                CallError::Problem { problem, .. } if problem.problem_type == ProblemType::NotFound => return Followed::Gone,
                CallError::Problem { problem, token, .. } if problem.problem_type == ProblemType::Unauthorized => {
                    self.shared.token.renew(token.as_deref());
                    problem.to_string()
                }
                CallError::Problem { problem, .. } if ended.is_some() => return Followed::Ended(problem),
                CallError::Problem { problem, .. } => problem.to_string(),
            };
            failures += 1;
            if lost_since.get_or_insert_with(Instant::now).elapsed() >= self.shared.timing.resume {
                return Followed::Lost(why);
            }
            tokio::time::sleep(self.shared.timing.backoff.wait(failures, rand::random()).min(self.shared.timing.resume / 4))
                .await;
        }
    }

    /// Reads the progress stream as long as there is one. Gives the final status, if that is how it ends.
    async fn watch(&self, pod: &Pod<'_>, news: &mut News<'_>) -> Option<JobStatus> {
        let mut events = pod.events(self.id).await.ok()?;
        loop {
            match tokio::time::timeout(self.shared.timing.silence, events.next()).await {
                Ok(Ok(Some(status))) => {
                    let ended = news.tell(status);
                    if ended.is_some() {
                        return ended;
                    }
                }
                Ok(Ok(None) | Err(_)) | Err(_) => return None,
            }
        }
    }

    /// Lets a proof through only if it verifies for the very claim.
    async fn check(&mut self, endpoint: &Endpoint, bytes: Bytes, status: Option<JobStatus>) -> Option<Proved> {
        let (claim, mock, encoded) = (self.claim.clone(), self.mock, bytes.clone());
        let verified = tokio::task::spawn_blocking(move || {
            let proof = proof::decode(&encoded).ok()?;
            let valid = if mock { proof == proof::valid_mock() } else { proof::verify(&claim, &encoded).is_ok() };
            valid.then_some(proof)
        });
        if let Ok(Some(proof)) = verified.await {
            return Some(Proved { proof, bytes, pod: endpoint.name.to_string(), status });
        }
        tracing::error!(job = %self.id, pod = %endpoint.name, "the pod gave a proof that does not verify");
        self.shared.count_wrong_proof(&endpoint.name);
        self.ledger.exclude(&endpoint.name, Trouble::WrongProof);
        None
    }
}

/// Tells the caller what is new, once.
struct News<'a> {
    endpoint: &'a Endpoint,
    options: &'a ProveOptions,
    limit: Option<u8>,
    last: Option<JobStatus>,
}

impl News<'_> {
    /// Gives the status back if it is final for this caller: others may still want a job that is too big for this one.
    fn tell(&mut self, status: JobStatus) -> Option<JobStatus> {
        if self.last.as_ref() != Some(&status) {
            if let Some(progress) = &self.options.progress {
                progress(&self.endpoint.name, &status);
            }
            self.last = Some(status.clone());
        }
        (status.state.is_final() || is_over(&status, self.limit)).then_some(status)
    }
}

/// Whether the job goes on at the pod although it is bigger than its caller admits.
fn is_over(status: &JobStatus, limit: Option<u8>) -> bool {
    !status.state.is_final() && status.log2_padded_height.zip(limit).is_some_and(|(height, limit)| height > limit)
}

fn why_ended(status: &JobStatus, limit: Option<u8>) -> Problem {
    if is_over(status, limit) {
        let (log2_padded_height, max_log2_padded_height) = (status.log2_padded_height, limit);
        return Problem { log2_padded_height, max_log2_padded_height, ..Problem::new(ProblemType::PaddedHeightTooBig) };
    }
    let unsaid = if status.state == JobState::Cancelled { ProblemType::Cancelled } else { ProblemType::Internal };
    status.problem.clone().unwrap_or_else(|| Problem::new(unsaid))
}

/// Whole seconds, rounded up: a pod must not give up before its caller.
fn seconds_up(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

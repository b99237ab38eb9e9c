//! One job from the call to the verified proof: asks, sends, follows, and does what `judge` and `ledger` say.

mod follow;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use triton_vm::prelude::Claim;

use super::agreement::Agreement;
use super::endpoints::Endpoint;
use super::http::{Accepted, CallError, Sending};
use super::judge::{Choice, Need, Verdict, View, choose, judge};
use super::ledger::{Availability, Ledger, Trouble};
use super::wish::Wish;
use super::{ClientError, JobBody, ProveOptions, Proved, Shared, rendezvous};
use crate::{JobId, JobState, JobStatus, Problem, ProblemType, proof};
use follow::Followed;

/// Where clients meet that want the same proof: this many pods, the first in the order of the job, are asked for it by each.
const MEETING: usize = 2;

/// Nothing that is known of the pods may be older when a job is sent anew: neither who they are nor what they said. So a look that
/// took longer is repeated, so many looks at most.
const STALE: Duration = Duration::from_millis(200);
const LOOKS: usize = 3;

/// How long a pod that did not answer lately is waited for beside others: long enough for one that is there again.
const GLANCE: Duration = Duration::from_millis(100);

/// How long a pod has to say where a job goes. It has just answered another question.
const AGREE_WITHIN: Duration = Duration::from_secs(1);

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

/// What was seen of the pods.
struct Seen {
    target: Target,
    /// Those that were asked, with their answers.
    asked: Vec<(Endpoint, View)>,
}

/// Where to go in a round.
enum Target {
    Fetch(Endpoint),
    /// To somebody else's run of it.
    Join(Endpoint),
    /// Nobody has it.
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
                Target::Join(pod) | Target::Send(pod) => self.send(&pod).await?,
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
        let (mut look, mut oldest) = (0, STALE);
        loop {
            look += 1;
            let is_last = look == LOOKS;
            let began = Instant::now();
            let pods = self.order(&self.shared.endpoints.within(oldest).await);
            let Seen { target, asked } = self.look(&pods).await?;
            let Target::Send(choice) = target else { return Ok(target) };
            if began.elapsed() >= STALE && !is_last {
                continue;
            }
            let names = pods.iter().map(|pod| &*pod.name).collect::<Vec<_>>().join(" ");
            tracing::debug!(job = %self.id, asked = names, look, "nobody has it");
            match self.agree(&choice, &pods, &asked, is_last).await {
                Some(agreed) => return Ok(Target::Send(agreed)),
                // To a pod that has come since the name was resolved.
                None => oldest = Duration::ZERO,
            }
        }
    }

    /// Nobody had the job a moment ago: another client may have seen the same, and be about to send it to another pod. Who comes
    /// second goes where the first one goes. `None`: that is a pod that this client does not know, and as jobs hold secrets never
    /// goes to; it is to look again, or on its last look to go its own way.
    async fn agree(
        &mut self,
        choice: &Endpoint,
        pods: &[Endpoint],
        asked: &[(Endpoint, View)],
        is_last: bool,
    ) -> Option<Endpoint> {
        let is_fixed = self.shared.endpoints.is_fixed();
        if pods.len() == 1 && is_fixed {
            return Some(choice.clone());
        }
        let up = asked.iter().filter(|(_, view)| view.may_hold());
        let meeting: Vec<_> = up.map(|(pod, _)| pod).take(MEETING).collect();
        let mut agreement = Agreement::new(choice.name.to_string(), meeting.len());
        while let Some((index, wish)) = agreement.next() {
            let call = self.shared.pod(meeting[index]);
            // Pods of an earlier release do not know this.
            let counts = tokio::time::timeout(AGREE_WITHIN, call.agree(self.id, &wish)).await.ok().and_then(Result::ok);
            let is_usable = match &counts {
                Some(name) if *name != agreement.choice() => match pods.iter().find(|pod| *pod.name == **name) {
                    Some(pod) => self.is_usable(pod).await,
                    None if is_last || is_fixed => false,
                    None => return None,
                },
                Some(_) | None => true,
            };
            agreement.told(index, counts, is_usable);
        }
        let agreed = pods.iter().find(|pod| *pod.name == *agreement.choice()).unwrap_or(choice);
        if agreed.name != choice.name {
            tracing::debug!(job = %self.id, pod = %agreed.name, "another client sends it there");
        }
        Some(agreed.clone())
    }

    /// Whether this client would send the job to this pod, too. It is asked anew: it may have got the job since it was, and one that
    /// drains takes callers for what it has.
    async fn is_usable(&mut self, pod: &Endpoint) -> bool {
        if self.shared.is_suspect(&pod.name) || self.ledger.availability(&pod.name, Instant::now()) != Availability::Now {
            return false;
        }
        let views = self.ask(std::slice::from_ref(pod), true, AGREE_WITHIN).await;
        views.iter().any(|view| view.is_found() || self.need().can_go_to(view))
    }

    /// Asks the first two for the job, those that clients have said to send it to, and all for their capacity, as far as needed.
    /// Those that cannot have it, because they are not up, do not count. Where pods have come or gone lately, all are asked for the
    /// job: those that were its first two need not be any more.
    async fn look(&mut self, pods: &[Endpoint]) -> Result<Seen, ClientError> {
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
        let found = |choice: Choice| matches!(choice, Choice::Fetch(_) | Choice::Join(_));
        let mut choice = choose(&views, &self.need());
        if !found(choice) && views.iter().any(|view| view.sent_to.is_some()) {
            let is_there = |pod: &Endpoint| views.iter().any(|view| view.sent_to.as_deref() == Some(&*pod.name));
            let (there, others): (Vec<_>, Vec<_>) = ready.split_off(views.len()).into_iter().partition(is_there);
            views.extend(self.ask(&there, true, Duration::MAX).await);
            ready.extend(there.into_iter().chain(others));
            choice = choose(&views, &self.need());
        }
        let rest = &ready[views.len()..];
        let full = matches!(choice, Choice::Queue(_) | Choice::Nowhere);
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
                // Each view is that of the pod in its place.
                ready.truncate(views.len());
                views.extend(glances);
                ready.extend(shunned);
                choice = choose(&views, &self.need());
            }
        }
        let target = match choice {
            Choice::Fetch(pod) => Target::Fetch(ready[pod].clone()),
            Choice::Join(pod) => Target::Join(ready[pod].clone()),
            Choice::Idle(pod) | Choice::Queue(pod) => Target::Send(ready[pod].clone()),
            Choice::Nowhere => self.why_nowhere(&views, left, waits_for_busy),
        };
        Ok(Seen { target, asked: ready.into_iter().zip(views).collect() })
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
                Some(pod.status(id).await)
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
            let (held, sent_to) = match held {
                Some(Ok(status)) => (Some(status.state), None),
                Some(Err(CallError::Problem { problem, .. })) => (None, problem.sent_to),
                Some(Err(CallError::Unreachable(_))) | None => (None, None),
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
            views.push(View { held, capacity, sent_to });
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

/// Whole seconds, rounded up: a pod must not give up before its caller.
fn seconds_up(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

//! One look at a fleet: what is there, what should be, what to write, what to say. Each part is a function elsewhere; here is
//! their order and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet_api::UpgraderFleet;
use fleet_api::v1alpha1::{ConditionType, ShardPhase, UpgraderFleetStatus, UpgraderMode, condition, set_condition};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use tracing::{debug, info, warn};

use crate::announce::Announcer;
use crate::build::{BuildError, Defaults, Fleet, Object};
use crate::caches::Caches;
use crate::error::{Class, Error};
use crate::kinds::Kind;
use crate::metrics::Metrics;
use crate::observe::{Observed, observe};
use crate::plan::provers::{Load, Memory, desired};
use crate::plan::shards::{Health, Key, Role, SUBSTITUTE_LINGERS, Step, Wanted, plan};
use crate::poll::Answers;
use crate::status::{self, Change};
use crate::token::{self, Tokens};
use crate::writer::Writer;

/// A fleet that may not be one: somebody replaced the definition.
pub type Guarded = DeserializeGuard<UpgraderFleet>;

/// How long one look may take.
const LIMIT: Duration = Duration::from_mins(1);
/// A look without any reason.
const RESYNC: Duration = Duration::from_mins(10);
/// A look after a change.
const SOON: Duration = Duration::from_secs(5);
/// Writes of one look at the same time.
const AT_ONCE: usize = 8;
/// How often the Secret of a fleet is read.
const SECRET_EVERY: Duration = Duration::from_hours(1);
/// And when pods have not started for as long: without the Secret, which somebody may have deleted, none does.
const SECRET_EVERY_WHILE_PODS_WAIT: Duration = Duration::from_mins(1);
/// How often the status is written for nothing but another length of the queue.
const QUEUE_EVERY: Duration = Duration::from_secs(15);
/// How often it is written for counts alone: pods get ready one after the other, and each would be a write.
const COUNTS_EVERY: Duration = Duration::from_secs(1);

/// What is remembered of a fleet between two looks. All of it can be lost.
#[derive(Default)]
struct Notes {
    /// What the last look found.
    status: Option<Arc<UpgraderFleetStatus>>,
    /// What was written last: it may lag in counts.
    said: Option<Arc<UpgraderFleetStatus>>,
    written: Option<Instant>,
    secret_read: Option<Instant>,
    /// Since when pods do not start.
    waiting: Option<Instant>,
    /// Whether the last look left the status to this one.
    put_off: bool,
    scaling: BTreeMap<String, (Memory, Instant)>,
    failures: u32,
}

/// What all looks share.
pub struct Context {
    /// What is there.
    pub caches: Caches,
    /// How pods are.
    pub answers: Answers,
    /// The fleets' tokens.
    pub tokens: Tokens,
    /// The way to the server.
    pub writer: Arc<Writer>,
    /// Events.
    pub announcer: Announcer,
    /// Numbers.
    pub metrics: Metrics,
    /// What specifications leave out.
    pub defaults: Defaults,
    /// How often tokens are rotated.
    pub token_every: Duration,
    notes: Mutex<HashMap<String, Notes>>,
}

impl Context {
    /// A context without notes.
    #[expect(clippy::too_many_arguments, reason = "one place puts all parts together")]
    pub fn new(
        caches: Caches,
        answers: Answers,
        tokens: Tokens,
        writer: Arc<Writer>,
        announcer: Announcer,
        metrics: Metrics,
        defaults: Defaults,
        token_every: Duration,
    ) -> Self {
        Self { caches, answers, tokens, writer, announcer, metrics, defaults, token_every, notes: Mutex::default() }
    }

    /// Forgets a fleet that is gone or going. All of it would be learned again.
    pub fn forget(&self, meta: &kube::api::ObjectMeta) {
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
        self.metrics.forget(namespace, name);
        self.tokens.forget(namespace, name);
        self.writer.forget(namespace, name);
        let uid = meta.uid.as_deref().unwrap_or_default();
        self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(uid);
    }

    fn with_notes<T>(&self, uid: &str, read: impl FnOnce(&mut Notes) -> T) -> T {
        let mut notes = self.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        read(notes.entry(uid.to_owned()).or_default())
    }
}

/// Looks at a fleet and does what can be done now.
///
/// # Errors
/// What could not be done. The rest has been.
pub async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let began = Instant::now();
    let result = match tokio::time::timeout(LIMIT, look(&guarded, &context)).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout(LIMIT.as_secs())),
    };
    context.metrics.reconciled(began.elapsed(), result.as_ref().err().map(Error::class));
    if result.is_ok() {
        context.with_notes(&guarded.uid().unwrap_or_default(), |notes| notes.failures = 0);
    }
    result
}

/// When to look again after an error.
#[expect(clippy::needless_pass_by_value, reason = "what the controller calls")]
pub fn after_error(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let failures = context.with_notes(&guarded.uid().unwrap_or_default(), |notes| {
        notes.failures = notes.failures.saturating_add(1);
        notes.failures
    });
    let class = error.class();
    let wait = back_off(class, failures);
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    match class {
        Class::Conflict | Class::Gone => debug!(%error, %namespace, %name, "again soon"),
        Class::LeadershipLost => {}
        _ => warn!(%error, %class, %namespace, %name, seconds = wait.as_secs_f64(), "a fleet could not be reconciled"),
    }
    Action::requeue(wait)
}

/// Grows with the number of failures in a row, from a start and to an end that depend on the class.
fn back_off(class: Class, failures: u32) -> Duration {
    let (first, most) = match class {
        Class::Conflict => (0.1, 5.0),
        Class::Transient => (1.0, 60.0),
        Class::Gone => (5.0, 60.0),
        Class::Forbidden => (5.0, 120.0),
        Class::Invalid => (30.0, 600.0),
        Class::LeadershipLost => (60.0, 60.0),
    };
    let grown: f64 = first * 2_f64.powi(failures.saturating_sub(1).min(16) as i32);
    Duration::from_secs_f64(grown.min(most))
}

async fn look(guarded: &Guarded, context: &Context) -> Result<Action, Error> {
    let resource = match &guarded.0 {
        Ok(resource) => resource,
        Err(invalid) => return unreadable(guarded, &invalid.error, &invalid.metadata, context).await,
    };
    let fleet = Fleet::new(resource, &context.defaults)?;
    let uid = resource.uid().unwrap_or_default();
    if resource.metadata.deletion_timestamp.is_some() {
        context.forget(&resource.metadata);
        return Ok(Action::await_change());
    }

    // Dereference.
    let now = Timestamp::now();
    let noted = context.with_notes(&uid, |notes| notes.status.clone());
    let before = noted.as_deref().or(resource.status.as_ref());
    let observed = seen(&fleet, &uid, before, context, now);

    // Validate. What is there already goes on as it is.
    let violations = resource.violations();
    let mut trouble: Option<(&str, String)> = None;
    let mut failure = None;
    let mut wanted = None;
    let mut changed = false;
    let mut counts = BTreeMap::new();
    if let Some(first) = violations.first() {
        let more = violations.len() - 1;
        let message = if more == 0 { first.to_string() } else { format!("{first} (and {more} more)") };
        trouble = Some(("InvalidSpec", message));
    } else {
        // Plan, build.
        counts = prover_counts(resource, &observed, &uid, context);
        let planned = fleet.shard_revision().and_then(|revision| Ok((wish(resource, revision), fleet.objects(&counts)?)));
        match planned {
            Err(error) => {
                let reason = if matches!(error, BuildError::PodTemplate { .. }) { "InvalidPodTemplate" } else { "InvalidSpec" };
                trouble = Some((reason, error.to_string()));
            }
            Ok((wish, objects)) => {
                // Apply.
                let steps = plan(&wish, &observed.shards.iter().map(|(key, shard)| (*key, shard.workload.clone())).collect());
                let written = write(&fleet, &uid, &observed, objects, &steps, context).await;
                (failure, changed) = (summary(written.errors), written.changed);
                wanted = Some(wish);
            }
        }
    }
    if let Some(error) = &failure {
        let reason = match error.class() {
            Class::Forbidden => Some("Forbidden"),
            Class::Invalid => Some("Rejected"),
            Class::LeadershipLost => return Err(Error::LeadershipLost),
            _ => None,
        };
        trouble = reason.map(|reason| (reason, error.to_string())).or(trouble);
    }

    // Status: once, last.
    let input = status::Input {
        name: fleet.name,
        generation: resource.metadata.generation.unwrap_or(0),
        wanted: wanted.as_ref(),
        observed: &observed,
        desired: &counts,
        trouble,
        changed,
        before,
        now: Time(now),
    };
    let (status, changes, numbers) = status::status(&input);
    context.metrics.fleet(fleet.namespace, fleet.name, &numbers);
    // What was changed comes back by its watch, and with it a look that knows more. Only once: whoever undoes each change of ours
    // must not keep the status from being written.
    let put_off = context.with_notes(&uid, |notes| {
        notes.put_off = changed && failure.is_none() && !notes.put_off;
        notes.put_off
    });
    if put_off {
        return Ok(Action::requeue(next_look(wanted.as_ref(), &observed, resource).min(SOON)));
    }
    let unsaid = say(resource, &fleet, &uid, status, &changes, context).await?;
    if let Some(error) = failure {
        return Err(error);
    }
    let next = next_look(wanted.as_ref(), &observed, resource);
    // What was changed says so by its watch; in case it does not, soon.
    let next = if changed { next.min(SOON) } else { next };
    Ok(Action::requeue(unsaid.map_or(next, |wait| next.min(wait))))
}

/// The fleet's own objects and pods.
fn seen(fleet: &Fleet<'_>, uid: &str, before: Option<&UpgraderFleetStatus>, context: &Context, now: Timestamp) -> Observed {
    let (namespace, name, caches) = (fleet.namespace, fleet.name, &context.caches);
    let mut workloads = caches.deployments.of_fleet(namespace, name);
    workloads.extend(caches.stateful_sets.of_fleet(namespace, name));
    workloads.retain(|found| !found.facts.live.deleting && found.facts.belongs(name, uid));
    let pods = caches.pods.of_fleet(namespace, name);
    observe(&workloads, &pods, &context.answers, before, now)
}

fn wish(resource: &UpgraderFleet, revision: String) -> Wanted {
    let upgraders = &resource.spec.upgraders;
    // The violations have been checked: there are shards.
    let classes: BTreeSet<_> = resource.spec.shards().unwrap_or_default().into_iter().collect();
    Wanted {
        classes,
        revision,
        suspend: resource.spec.suspend,
        max_surge: usize::try_from(upgraders.max_surge).unwrap_or(1),
        max_unavailable: usize::try_from(upgraders.max_unavailable).unwrap_or(1),
        // The substitute of a stock node would begin with an empty volume: it upgrades nothing for days, and the volume stays.
        takeover_after: (upgraders.failover.enabled && upgraders.mode == UpgraderMode::Standalone)
            .then(|| u64::from(upgraders.failover.takeover_after_seconds.unsigned_abs())),
    }
}

fn prover_counts(resource: &UpgraderFleet, observed: &Observed, uid: &str, context: &Context) -> BTreeMap<String, i32> {
    let count = |name: &str, provers: &fleet_api::v1alpha1::ProverSpec| {
        if resource.spec.suspend {
            return 0;
        }
        let Some(scaling) = &provers.autoscaling else { return provers.replicas };
        let found = observed.provers.get(name);
        context.with_notes(uid, |notes| {
            let (memory, at) = notes.scaling.get(name).copied().unwrap_or((Memory::default(), Instant::now()));
            // What was wanted last, not what is there: pods that start or wait for a GPU count, too.
            let last = notes.status.as_ref().and_then(|status| status.provers.iter().find(|kind| kind.name == name));
            let replicas = last.map(|kind| kind.desired).or(found.map(|found| found.pods)).unwrap_or(provers.replicas);
            let load = Load { replicas, work_seconds: found.and_then(|found| found.work_seconds) };
            let (next, memory) = desired(scaling, load, memory, at.elapsed());
            notes.scaling.insert(name.to_owned(), (memory, Instant::now()));
            next
        })
    };
    resource.spec.prover_kinds().map(|(name, provers)| (name.to_owned(), count(name, provers))).collect()
}

/// What became of the writes of one look.
#[derive(Default)]
struct Written {
    errors: Vec<Error>,
    /// Whether a workload is another than before: what was observed of it is then no longer true.
    changed: bool,
}

/// Writes all objects, takes all steps and removes what is not wanted any more. One failure does not keep the rest from being
/// done, but nothing is removed then.
async fn write(
    fleet: &Fleet<'_>,
    uid: &str,
    observed: &Observed,
    objects: Vec<Object>,
    steps: &[Step],
    context: &Context,
) -> Written {
    let (writer, namespace) = (&context.writer, fleet.namespace);
    let mut names: BTreeSet<(Kind, String)> =
        observed.shards.values().map(|shard| (fleet.shard_kind(), shard.name.clone())).collect();
    names.extend(objects.iter().map(|object| (object.kind, object.name.clone())));
    let (workloads, others): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| matches!(object.kind, Kind::Deployment | Kind::StatefulSet));

    // What pods need goes first: without its account a pod is refused, without its Secret it waits.
    let (secret, others) =
        tokio::join!(secrets(fleet, uid, observed, context), at_once(others, |object| apply(fleet, object, observed, context)));
    let (written, taken) = tokio::join!(
        at_once(workloads, |object| apply(fleet, object, observed, context)),
        at_once(steps.to_vec(), |step| take(fleet, step, observed, context))
    );
    let changed = written.iter().any(|result| matches!(result, Ok(true))) || taken.iter().any(Result::is_ok);
    let mut errors: Vec<Error> = secret.err().into_iter().collect();
    errors.extend(others.into_iter().chain(written).filter_map(Result::err));
    errors.extend(taken.into_iter().filter_map(Result::err));
    if errors.is_empty() {
        for (kind, name, live) in context.caches.of_fleet(namespace, fleet.name, uid) {
            if !live.deleting && !names.contains(&(kind, name.clone())) && !is_step(fleet, kind, &name, steps) {
                info!(kind = kind.name(), namespace, name, "not wanted any more: deleted");
                if let Err(error) = writer.delete(kind, namespace, &name, &live.uid).await {
                    errors.push(error);
                }
            }
        }
    }
    Written { errors, changed }
}

/// Does the same with all items, some at once, and waits for all.
async fn at_once<I, T, F: Future<Output = Result<T, Error>>>(items: Vec<I>, act: impl Fn(I) -> F) -> Vec<Result<T, Error>> {
    futures::stream::iter(items).map(act).buffered(AT_ONCE).collect().await
}

/// Sees to the fleet's Secret, when it is due.
async fn secrets(fleet: &Fleet<'_>, uid: &str, observed: &Observed, context: &Context) -> Result<(), Error> {
    let due = context.with_notes(uid, |notes| {
        notes.waiting = observed.stuck.then(|| notes.waiting.unwrap_or_else(Instant::now));
        let long = notes.waiting.is_some_and(|since| since.elapsed() >= SECRET_EVERY_WHILE_PODS_WAIT);
        let every = if long { SECRET_EVERY_WHILE_PODS_WAIT } else { SECRET_EVERY };
        notes.secret_read.is_none_or(|at| at.elapsed() >= every)
    });
    if due {
        let new = fleet.resource.status.is_none() && observed.shards.is_empty();
        token::ensure(&context.writer, &context.tokens, fleet, context.token_every, new).await?;
        context.with_notes(uid, |notes| notes.secret_read = Some(Instant::now()));
    }
    Ok(())
}

/// Applies an object; says whether it is another than before.
async fn apply(fleet: &Fleet<'_>, object: Object, observed: &Observed, context: &Context) -> Result<bool, Error> {
    let namespace = fleet.namespace;
    if !context.caches.knows(object.kind) {
        debug!(kind = object.kind.name(), namespace, "the cluster has no such kind: left out");
        return Ok(false);
    }
    if object.kind == Kind::Deployment {
        spare_the_busy(&object, observed, namespace, context).await?;
    }
    let live = context.caches.live(object.kind, namespace, &object.name);
    context.writer.apply(namespace, object, live.as_ref()).await
}

/// Whether an object has just been written by a step, or removed by one.
fn is_step(fleet: &Fleet<'_>, kind: Kind, name: &str, steps: &[Step]) -> bool {
    kind == fleet.shard_kind()
        && steps.iter().any(|step| {
            let (Step::Start(key) | Step::Update(key) | Step::Stop(key) | Step::Retire(key)) = step;
            fleet.shard_name(*key) == name
        })
}

async fn take(fleet: &Fleet<'_>, step: Step, observed: &Observed, context: &Context) -> Result<(), Error> {
    let apply = async |key: Key, stopped: bool| {
        // Without what the cache knows: a step is a change.
        context.writer.apply(fleet.namespace, fleet.shard(key, stopped)?, None).await.map(|_| ())
    };
    info!(namespace = fleet.namespace, fleet = fleet.name, ?step, "step");
    match step {
        Step::Start(key) | Step::Update(key) => apply(key, false).await,
        Step::Stop(key) => apply(key, true).await,
        Step::Retire(key) => {
            let Some(shard) = observed.shards.get(&key) else { return Ok(()) };
            context.writer.delete(fleet.shard_kind(), fleet.namespace, &shard.name, &shard.uid).await
        }
    }
}

/// Before a Deployment of provers shrinks: pods that prove go last.
async fn spare_the_busy(object: &Object, observed: &Observed, namespace: &str, context: &Context) -> Result<(), Error> {
    let next = object.body.pointer("/spec/replicas").and_then(serde_json::Value::as_i64).unwrap_or(0);
    let kind = object.body.pointer("/metadata/labels").and_then(|labels| labels.get(crate::build::PROVERS_LABEL));
    let Some(found) = kind.and_then(|kind| observed.provers.get(kind.as_str()?)) else {
        return Ok(());
    };
    if next >= i64::from(found.pods) || next == 0 {
        return Ok(());
    }
    for (pod, running) in &found.busy {
        context.writer.deletion_cost(namespace, pod, (*running).min(1_000) as i32).await?;
    }
    Ok(())
}

fn summary(mut errors: Vec<Error>) -> Option<Error> {
    // The class that needs most attention decides when to try again.
    errors.sort_by_key(|error| std::cmp::Reverse(error.class()));
    let count = errors.len();
    let first = errors.into_iter().next()?;
    Some(if count == 1 { first } else { Error::Several { count, first: Box::new(first) } })
}

/// Writes the status if it says something new, and leaves events for what changed. What can wait does, and comes back as the time
/// until its turn: nothing else may bring another look.
async fn say(
    resource: &UpgraderFleet,
    fleet: &Fleet<'_>,
    uid: &str,
    status: UpgraderFleetStatus,
    changes: &[Change],
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let (said, age) = context.with_notes(uid, |notes| (notes.said.clone(), notes.written.map(|at| at.elapsed())));
    let said = said.as_deref().or(resource.status.as_ref());
    if said == Some(&status) {
        return Ok(None);
    }
    let status = Arc::new(status);
    let every = pace(said, &status);
    if let Some(wait) = age.and_then(|age| every.checked_sub(age)).filter(|wait| !wait.is_zero()) {
        context.with_notes(uid, |notes| notes.status = Some(status));
        return Ok(Some(wait));
    }
    let body = serde_json::to_value(&*status).map_err(|error| Error::Build(BuildError::Json(error.to_string())))?;
    context.writer.status(fleet.namespace, fleet.name, &body).await?;
    context.with_notes(uid, |notes| {
        notes.said = Some(Arc::clone(&status));
        notes.status = Some(status);
        notes.written = Some(Instant::now());
    });
    for change in changes {
        context.announcer.leave(resource.object_ref(&()), change);
    }
    Ok(None)
}

/// How long after the last write this may be written: at once what somebody may wait for or has to know.
fn pace(said: Option<&UpgraderFleetStatus>, status: &UpgraderFleetStatus) -> Duration {
    let Some(said) = said else { return Duration::ZERO };
    if without_queue(said) == without_queue(status) {
        return QUEUE_EVERY;
    }
    let verdicts = |status: &UpgraderFleetStatus| -> Vec<(String, String, String)> {
        status.conditions.iter().map(|one| (one.type_.clone(), one.status.clone(), one.reason.clone())).collect()
    };
    let lost = |status: &UpgraderFleetStatus| -> Vec<fleet_api::ResidueClass> {
        status.shards.iter().filter(|shard| shard.phase == ShardPhase::Unready).map(|shard| shard.class).collect()
    };
    let urgent = said.observed_generation != status.observed_generation
        || verdicts(said) != verdicts(status)
        || lost(said) != lost(status);
    if urgent { Duration::ZERO } else { COUNTS_EVERY }
}

fn without_queue(status: &UpgraderFleetStatus) -> UpgraderFleetStatus {
    let mut status = status.clone();
    status.queue = None;
    for kind in &mut status.provers {
        kind.queue = None;
        kind.queued_seconds = None;
    }
    status
}

fn next_look(wanted: Option<&Wanted>, observed: &Observed, resource: &UpgraderFleet) -> Duration {
    let mut next = if observed.stuck { SECRET_EVERY_WHILE_PODS_WAIT } else { RESYNC };
    let takeover = wanted.and_then(|wanted| wanted.takeover_after);
    for (key, shard) in &observed.shards {
        let wait = match (shard.workload.health, takeover) {
            (Health::Lost { seconds }, Some(after)) if key.role == Role::Primary && seconds < after => Some(after - seconds),
            (Health::Ready { seconds }, _)
                if seconds < SUBSTITUTE_LINGERS && observed.shards.contains_key(&Key::substitute(key.class)) =>
            {
                Some(SUBSTITUTE_LINGERS - seconds)
            }
            _ => None,
        };
        if let Some(seconds) = wait {
            next = next.min(Duration::from_secs(seconds.max(1)));
        }
    }
    if resource.spec.prover_kinds().any(|(_, provers)| provers.autoscaling.is_some()) {
        next = next.min(QUEUE_EVERY);
    }
    next
}

/// A resource that this version cannot read: said in its status, everything else left as it is.
async fn unreadable(guarded: &Guarded, error: &str, meta: &kube::api::ObjectMeta, context: &Context) -> Result<Action, Error> {
    let (Some(name), Some(namespace)) = (meta.name.as_deref(), meta.namespace.as_deref()) else {
        return Ok(Action::await_change());
    };
    let message = format!("this version of the operator cannot read the resource: {error}");
    let mut conditions = Vec::new();
    let (generation, now) = (meta.generation.unwrap_or(0), Time(Timestamp::now()));
    for (kind, value) in [(ConditionType::Ready, false), (ConditionType::Degraded, true)] {
        set_condition(&mut conditions, condition(kind, Some(value), "Unreadable", message.clone(), generation, &now));
    }
    let uid = guarded.meta().uid.clone().unwrap_or_default();
    let status = UpgraderFleetStatus { observed_generation: Some(generation), conditions, ..UpgraderFleetStatus::default() };
    let said = context.with_notes(&uid, |notes| {
        let same = notes.status.as_ref().is_some_and(|before| before.observed_generation == Some(generation));
        notes.status = Some(Arc::new(status.clone()));
        same
    });
    if !said {
        let body = serde_json::json!({ "observedGeneration": generation, "conditions": status.conditions });
        context.writer.status(namespace, name, &body).await?;
    }
    Ok(Action::await_change())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_end() {
        let seconds = |class, failures| back_off(class, failures).as_secs_f64();
        assert!((seconds(Class::Transient, 1) - 1.0).abs() < 1e-9);
        assert!((seconds(Class::Transient, 3) - 4.0).abs() < 1e-9);
        assert!((seconds(Class::Transient, 1000) - 60.0).abs() < 1e-9);
        assert!(seconds(Class::Conflict, 1) < seconds(Class::Transient, 1));
    }

    #[test]
    fn a_stock_node_has_no_substitute() {
        let wish_of = |mode: &str| {
            let node = serde_json::json!({ "deploy": { "image": "neptune-core:1", "walletSecret": { "name": "wallet" } } });
            let spec = serde_json::json!({ "network": "main", "node": node, "upgraders": { "mode": mode, "shards": 2 } });
            wish(&UpgraderFleet::new("prod", serde_json::from_value(spec).expect("a specification")), String::new())
        };
        assert_eq!(wish_of("Standalone").takeover_after, Some(20));
        assert_eq!(wish_of("Node").takeover_after, None);
    }

    #[test]
    fn counts_wait_for_a_second_and_news_for_nothing() {
        let now = Time(Timestamp::UNIX_EPOCH);
        let status = |ready: &str, reason: &str, queue: i32| UpgraderFleetStatus {
            ready_shards: Some(ready.to_owned()),
            queue: Some(queue),
            conditions: vec![condition(ConditionType::Ready, Some(false), reason, ready.to_owned(), 1, &now)],
            ..UpgraderFleetStatus::default()
        };
        let said = status("3/8", "Progressing", 1);
        assert_eq!(pace(None, &said), Duration::ZERO);
        assert_eq!(pace(Some(&said), &status("3/8", "Progressing", 2)), QUEUE_EVERY);
        assert_eq!(pace(Some(&said), &status("4/8", "Progressing", 1)), COUNTS_EVERY);
        assert_eq!(pace(Some(&said), &status("4/8", "Degraded", 1)), Duration::ZERO);
        let mut lost = said.clone();
        lost.shards.push(fleet_api::v1alpha1::ShardStatus {
            class: fleet_api::ResidueClass::WHOLE,
            phase: ShardPhase::Unready,
            weight: 256,
            pod: None,
            substituted: false,
            since: None,
        });
        assert_eq!(pace(Some(&said), &lost), Duration::ZERO);
    }
}

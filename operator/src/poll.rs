//! Asks the pods how they are. A node's loss takes Kubernetes most of a minute to notice; a pod that does not answer is noticed
//! within two questions.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::reflector::ObjectRef;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::build::{PROVER_PORT, UPGRADER_PORT};
use crate::caches::Trigger;
use crate::facts::PodFacts;
use crate::metrics::Metrics;
use crate::reconcile::Guarded;
use crate::shelf::Shelf;
use crate::token::Tokens;

/// Questions without a good answer after which a pod counts as lost.
const PATIENCE: u32 = 2;
/// Questions at once.
const AT_ONCE: usize = 256;
/// How long a pod may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What a prover pod has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Proofs that wait.
    pub queued: i64,
    /// Proofs that run.
    pub running: i64,
    /// Estimated seconds of what waits.
    pub work_seconds: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Answer {
    failures: u32,
    load: Option<Load>,
    /// An upgrader that is well, but whose build cannot prove under the next block's rules.
    outdated: bool,
}

/// The last answers, by the pods' uids.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<Mutex<HashMap<String, Answer>>>);

impl Answers {
    /// Whether a pod was asked and did not answer well. One that was never asked is not silent.
    pub fn is_silent(&self, uid: &str) -> bool {
        self.0.lock().is_ok_and(|answers| answers.get(uid).is_some_and(|answer| answer.failures >= PATIENCE))
    }

    /// What a prover pod said last of its work.
    pub fn load(&self, uid: &str) -> Option<Load> {
        self.0.lock().ok().and_then(|answers| answers.get(uid).and_then(|answer| answer.load))
    }

    /// Whether an upgrader said last that its build does not know the next block's rules.
    pub fn is_outdated(&self, uid: &str) -> bool {
        self.0.lock().is_ok_and(|answers| answers.get(uid).is_some_and(|answer| answer.outdated))
    }

    /// Notes what an upgrader says of the rules, and says whether its fleet should look.
    fn note_rules(&self, uid: &str, outdated: bool) -> bool {
        let Ok(mut answers) = self.0.lock() else { return false };
        std::mem::replace(&mut answers.entry(uid.to_owned()).or_default().outdated, outdated) != outdated
    }

    /// Notes an answer, and says whether the pod's fleet should look.
    fn note(&self, uid: &str, good: bool, load: Option<Load>) -> bool {
        let Ok(mut answers) = self.0.lock() else { return false };
        let answer = answers.entry(uid.to_owned()).or_default();
        let before = answer.failures >= PATIENCE;
        answer.failures = if good { 0 } else { answer.failures.saturating_add(1) };
        let moved = load.is_some() && load != answer.load;
        answer.load = load.or(answer.load.filter(|_| good));
        before != (answer.failures >= PATIENCE) || moved
    }

    fn retain(&self, known: impl Fn(&str) -> bool) {
        if let Ok(mut answers) = self.0.lock() {
            answers.retain(|uid, _| known(uid));
        }
    }
}

/// The part of `GET /v1/capacity` that matters here.
#[derive(Debug, Deserialize)]
struct Capacity {
    running: i64,
    #[serde(default)]
    queue: HashMap<String, Waiting>,
}

#[derive(Debug, Deserialize)]
struct Waiting {
    jobs: i64,
    seconds: f64,
}

/// The part of an upgrader's `GET /readyz` that matters here.
#[derive(Debug, Deserialize)]
struct Readiness {
    rules: bool,
    /// Missing until the node has answered: before, nothing is known of its rules.
    height: Option<u64>,
}

/// Whether an upgrader's answer says that it cannot prove under the next block's rules.
fn says_outdated(text: &str) -> bool {
    serde_json::from_str::<Readiness>(text).is_ok_and(|readiness| readiness.height.is_some() && !readiness.rules)
}

/// Who asks.
pub struct Poller {
    /// For questions.
    pub client: reqwest::Client,
    /// Whom to ask.
    pub pods: Shelf<PodFacts>,
    /// Where answers go.
    pub answers: Answers,
    /// Who is told of changes.
    pub trigger: Trigger,
    /// Counts.
    pub metrics: Metrics,
    /// What opens the provers.
    pub tokens: Tokens,
    /// Where pods are asked instead of at their addresses.
    pub through: Option<String>,
}

impl Poller {
    /// Asks until the token says stop.
    pub async fn run(self, period: Duration, stop: CancellationToken) {
        let mut clock = tokio::time::interval(period);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = clock.tick() => {}
            }
            let pods = self.pods.all();
            let known: HashSet<&str> = pods.iter().map(|pod| pod.uid()).collect();
            self.answers.retain(|uid| known.contains(uid));
            let asked = futures::stream::iter(pods).map(|pod| {
                let poller = &self;
                async move { poller.ask(&pod).await }
            });
            let outcomes: Vec<Outcome> = asked.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
            let cut_off = is_cut_off(&outcomes);
            if cut_off != (self.metrics.cut_off.get() == 1) {
                self.metrics.cut_off.set(i64::from(cut_off));
                if cut_off {
                    warn!(
                        pods = outcomes.len(),
                        "no pod answers, on no node: the fault is here, and the kubelets are believed"
                    );
                } else {
                    info!("pods answer again");
                }
            }
            if !cut_off {
                outcomes.into_iter().filter_map(|outcome| outcome.silent).for_each(|target| self.note(target, false, None));
            }
        }
    }

    fn note(&self, target: Target, good: bool, load: Option<Load>) {
        if self.answers.note(&target.uid, good, load) {
            // The receiver ends with the process.
            let _ = self.trigger.unbounded_send(target.fleet);
        }
    }

    /// Asks a pod and notes a good answer. A bad one waits for what the others say.
    async fn ask(&self, pod: &PodFacts) -> Option<Outcome> {
        let target = Target::of(pod, self.through.as_deref())?;
        let (path, token) = match target.component {
            // A token goes to nobody whose certificate we have not checked; readiness is no secret.
            Component::Prover if !target.tls => {
                let token = self.tokens.get(target.fleet.namespace.as_deref().unwrap_or_default(), &target.fleet.name);
                ("/v1/capacity", token)
            }
            Component::Upgrader | Component::Prover => ("/readyz", None),
        };
        let answer = self.get(&format!("{}{path}", target.base), token).await;
        let heard = answer.is_some();
        let (mut good, text) = answer.unwrap_or_default();
        let mut load = None;
        match target.component {
            Component::Upgrader => {
                if self.answers.note_rules(&target.uid, says_outdated(&text)) {
                    let _ = self.trigger.unbounded_send(target.fleet.clone());
                }
                // Of one that the kubelet finds not ready, only the reason is of interest, and that it hears us.
                if !target.ready {
                    return heard.then(|| Outcome { node: pod.node.clone(), heard, silent: None });
                }
            }
            Component::Prover if target.tls => {}
            Component::Prover => {
                load = parse(&text).filter(|_| good);
                good = load.is_some();
            }
        }
        self.metrics.polls.with_label_values(&[if good { "ok" } else { "error" }]).inc();
        let silent = if good {
            self.note(target, true, load);
            None
        } else {
            Some(target)
        };
        Some(Outcome { node: pod.node.clone(), heard, silent })
    }

    /// Whether the answer is a good one, and its text; nothing without an answer.
    async fn get(&self, url: &str, token: Option<String>) -> Option<(bool, String)> {
        let request = self.client.get(url).timeout(TIMEOUT);
        let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
        let response = request.send().await.ok()?;
        let good = response.status().is_success();
        Some((good, response.text().await.ok()?))
    }
}

/// How a question ended.
struct Outcome {
    /// Where the pod is.
    node: Option<String>,
    /// Whether there was an answer, good or not.
    heard: bool,
    /// Whom to count as silent, unless it is we who are not heard.
    silent: Option<Target>,
}

/// Whether it is we who cannot be heard: nobody answers, on several nodes. That all of them have died at one moment is less likely
/// than a network policy that does not let us through, and to start a substitute for each would help nobody.
fn is_cut_off(outcomes: &[Outcome]) -> bool {
    let nodes: HashSet<&str> = outcomes.iter().filter_map(|outcome| outcome.node.as_deref()).collect();
    nodes.len() > 1 && outcomes.iter().all(|outcome| !outcome.heard)
}

fn parse(text: &str) -> Option<Load> {
    let capacity: Capacity = serde_json::from_str(text).ok()?;
    Some(Load {
        queued: capacity.queue.values().map(|waiting| waiting.jobs).sum(),
        running: capacity.running,
        work_seconds: capacity.queue.values().map(|waiting| waiting.seconds).sum(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Component {
    Upgrader,
    Prover,
}

struct Target {
    component: Component,
    tls: bool,
    /// Whether the kubelet finds it ready.
    ready: bool,
    uid: String,
    base: String,
    fleet: ObjectRef<Guarded>,
}

impl Target {
    /// Whom to ask: pods that the kubelet finds ready, and upgraders that run and are not, for why. Other pods need no second
    /// opinion.
    fn of(pod: &PodFacts, through: Option<&str>) -> Option<Self> {
        // Stock nodes, which run in StatefulSets, have nothing to ask by HTTP.
        if pod.in_set || pod.is_going() {
            return None;
        }
        let (component, port) = match pod.component.as_deref()? {
            "upgrader" if pod.ready || pod.running => (Component::Upgrader, UPGRADER_PORT),
            "prover" if pod.ready => (Component::Prover, PROVER_PORT),
            _ => return None,
        };
        let (name, namespace) = (&pod.facts.name, &pod.facts.namespace);
        let base = if let Some(template) = through {
            template.replace("{namespace}", namespace).replace("{pod}", name).replace("{port}", &port.to_string())
        } else {
            let address = pod.address.as_deref()?;
            let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
            format!("{}://{host}:{port}", if pod.tls { "https" } else { "http" })
        };
        let fleet = ObjectRef::new(pod.facts.fleet.as_deref()?).within(namespace);
        Some(Self { component, tls: pod.tls, ready: pod.ready, uid: pod.uid().to_owned(), base, fleet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_failures_make_a_pod_silent_and_one_answer_brings_it_back() {
        let answers = Answers::default();
        assert!(!answers.is_silent("a"));
        assert!(!answers.note("a", false, None));
        assert!(!answers.is_silent("a"));
        assert!(answers.note("a", false, None));
        assert!(answers.is_silent("a"));
        assert!(!answers.note("a", false, None));
        assert!(answers.note("a", true, None));
        assert!(!answers.is_silent("a"));
    }

    #[test]
    fn that_nobody_answers_on_any_node_is_our_own_fault() {
        let outcomes = |all: &[(&str, bool)]| -> Vec<Outcome> {
            let one = |(node, heard): &(&str, bool)| Outcome { node: Some((*node).to_owned()), heard: *heard, silent: None };
            all.iter().map(one).collect()
        };
        assert!(is_cut_off(&outcomes(&[("a", false), ("a", false), ("b", false)])));
        assert!(!is_cut_off(&outcomes(&[("a", false), ("a", false), ("b", true)])), "somebody hears us");
        assert!(!is_cut_off(&outcomes(&[("a", false), ("a", false)])), "one node can be lost");
        assert!(!is_cut_off(&[]));
    }

    #[test]
    fn rules_are_known_once_the_node_has_answered() {
        assert!(says_outdated(r#"{"ready":false,"node":true,"provers":true,"rules":false,"height":7,"trouble":"t"}"#));
        assert!(!says_outdated(r#"{"ready":false,"node":false,"provers":true,"rules":false}"#), "it has just started");
        assert!(!says_outdated(r#"{"ready":true,"node":true,"provers":true,"rules":true,"height":7}"#));
        assert!(!says_outdated("ok"));
        let answers = Answers::default();
        assert!(!answers.note_rules("a", false) && !answers.is_outdated("a"));
        assert!(answers.note_rules("a", true) && answers.is_outdated("a"));
        assert!(!answers.note_rules("a", true) && answers.note_rules("a", false) && !answers.is_outdated("a"));
    }

    #[test]
    fn the_load_of_a_prover_is_the_sum_over_priorities() {
        let text =
            r#"{"idle":false,"running":2,"queue":{"low":{"jobs":3,"seconds":30.5},"high":{"jobs":1,"seconds":9.5}},"more":1}"#;
        assert_eq!(parse(text), Some(Load { queued: 4, running: 2, work_seconds: 40.0 }));
        assert_eq!(parse("{}"), None);
    }
}

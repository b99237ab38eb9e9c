//! `make bench-operator`: what the operator costs with many fleets, on a real control plane with simulated nodes.
//!
//! `operator-bench [FLEETS [SHARDS]]`, by default 1,000 fleets of 8 shards and one prover pod each. Everything runs on this
//! machine: etcd, the API server, the controllers and the simulated kubelets have the same cores as the operator. What the
//! operator asked of the API server comes from the API server's audit log.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster::account::{self, Scope};
use cluster::{Cluster, FakePods, Operator, OperatorOptions, Tier, objects};
use fleet_api::UpgraderFleet;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

const NAMESPACE: &str = "operator";
const NAMESPACES: usize = 10;
/// How long the fleets may take to get ready.
const LIMIT: Duration = Duration::from_hours(1);
/// How long the fleet is watched at rest.
const REST: Duration = Duration::from_mins(1);
/// Fleets that are changed afterwards.
const CHANGED: usize = 20;

#[tokio::main]
async fn main() -> ExitCode {
    let numbers: Result<Vec<usize>, _> = std::env::args().skip(1).map(|word| word.parse()).collect();
    let Ok(numbers) = numbers else {
        eprintln!("usage: operator-bench [FLEETS [SHARDS]]");
        return ExitCode::from(2);
    };
    let (fleets, shards) = (numbers.first().copied().unwrap_or(1000), numbers.get(1).copied().unwrap_or(8));
    match run(fleets, shards).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("operator-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(fleets: usize, shards: usize) -> Result<()> {
    ensure!((1..=100_000).contains(&fleets) && (1..=64).contains(&shards), "1 to 100000 fleets of 1 to 64 shards");
    let Some(cluster) = Cluster::start(Tier::Fake).await? else { return Ok(()) };
    let client = cluster.client().await?;
    objects::definition(&client).await?;
    for number in 0..=(fleets * (shards + 2)).div_ceil(1000) {
        objects::node(&client, &format!("node-{number}"), 0).await?;
    }
    objects::namespace(&client, NAMESPACE).await?;
    for number in 0..NAMESPACES {
        objects::namespace(&client, &format!("fleets-{number}")).await?;
    }
    let bare = Bare::new(&client).await?;
    let idle = bare.times(100).await?;
    let kubeconfig = account::make(&cluster, &client, NAMESPACE, Scope::Cluster, &account::rules()?).await?;
    let pods = FakePods::start().await?;
    let arguments = vec![
        format!("--namespace={NAMESPACE}"),
        format!("--poll-through={}", pods.through()),
        "--upgrader-image=upgrader:1".to_owned(),
        "--prover-image=prover-pod:1".to_owned(),
    ];
    let options = OperatorOptions { kubeconfig: Some(kubeconfig), arguments, quiet: true };
    let operator = Operator::start(&cluster, "bench", &options)?;
    operator.ready().await?;
    let bench = Bench { cluster, client, operator, shards };

    let began = Instant::now();
    let names: Vec<(String, String)> =
        (0..fleets).map(|number| (format!("fleets-{}", number % NAMESPACES), format!("fleet-{number:05}"))).collect();
    bench.apply(&names, shards).await?;
    let created = began.elapsed();
    let (settled, loaded) = bare.beside(bench.settled(&names, shards)).await?;
    settled?;
    let steady = began.elapsed();
    let creating = bench.reconciles().await?;
    let writes = bench.buckets("upgrader_fleet_api_write_duration_seconds").await?;
    let processor = bench.operator.processor_time()?;
    let reconciles = bench.operator.metric("upgrader_fleet_reconciles_total").await?;
    let errors = bench.operator.metric("upgrader_fleet_reconcile_errors_total").await?;
    let to_create = bench.calls()?;

    // What still settles is not rest.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = bench.calls()?;
    tokio::time::sleep(REST).await;
    let at_rest = difference(&bench.calls()?, &before);

    // A look at each fleet that finds all as it should be.
    let reconciled = bench.reconciles().await?;
    bench.touch(&names).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let looking = since(&bench.reconciles().await?, &reconciled);

    let changed = &names[..CHANGED.min(names.len())];
    let (before, reconciled) = (bench.calls()?, bench.reconciles().await?);
    bench.apply(changed, shards + 1).await?;
    bench.settled(changed, shards + 1).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let to_change = difference(&bench.calls()?, &before);
    let changing = since(&bench.reconciles().await?, &reconciled);

    // One change after the other, as people and autoscalers make them: what the operator takes when nobody else has the API
    // server.
    let single = &names[CHANGED.min(names.len())..(2 * CHANGED).min(names.len())];
    let reconciled = bench.reconciles().await?;
    bench.one_by_one(single, shards + 1).await?;
    let resizing = since(&bench.reconciles().await?, &reconciled);
    let new: Vec<(String, String)> =
        (0..CHANGED).map(|number| (format!("fleets-{}", number % NAMESPACES), format!("late-{number:05}"))).collect();
    let reconciled = bench.reconciles().await?;
    bench.one_by_one(&new, shards).await?;
    let adding = since(&bench.reconciles().await?, &reconciled);
    let (resident, peak) = (bench.operator.resident_bytes()?, bench.operator.peak_bytes()?);
    // All lists and nothing of what happened before.
    let standby = Operator::start(&bench.cluster, "standby", &options)?;
    standby.ready().await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (standing_by, after_lists) = (standby.resident_bytes()?, standby.peak_bytes()?);
    drop(standby);

    let per = |calls: &BTreeMap<String, usize>, of: usize| total(calls) as f64 / of as f64;
    let writes_at_rest: usize =
        at_rest.iter().filter(|(verb, _)| !matches!(verb.as_str(), "get" | "list")).map(|(_, n)| n).sum();
    let mebi = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("{fleets} fleets of {shards} shards and a prover pod: {} pods", fleets * (shards + 1));
    println!("| measure | value | goal | value/goal |\n|---|---|---|---|");
    let row = |what: &str, value: f64, unit: &str, goal: Option<f64>| {
        let (goal, ratio) = goal.map_or_else(
            || (String::new(), String::new()),
            |goal| (format!("{goal} {unit}"), if goal > 0.0 { format!("{:.2}", value / goal) } else { String::new() }),
        );
        println!("| {what} | {value:.1} {unit} | {goal} | {ratio} |");
    };
    row("all fleets created", created.as_secs_f64(), "s", None);
    row("all fleets ready", steady.as_secs_f64(), "s", None);
    row("reconcile p50, while all are created", quantile(&creating, 0.5)? * 1000.0, "ms", None);
    row("reconcile p99, while all are created", quantile(&creating, 0.99)? * 1000.0, "ms", Some(50.0));
    row("of it the API server: one write, p50", quantile(&writes, 0.5)? * 1000.0, "ms", None);
    row("of it the API server: one write, p99", quantile(&writes, 0.99)? * 1000.0, "ms", None);
    for (when, times) in [("before", &idle), ("while all are created", &loaded)] {
        row(&format!("a bare apply by another client, {when}, p50"), of_sorted(times, 0.5) * 1000.0, "ms", None);
        row(
            &format!("a bare apply by another client, {when}, p99 of {}", times.len()),
            of_sorted(times, 0.99) * 1000.0,
            "ms",
            None,
        );
    }
    row("processor time of the operator a reconcile", processor.as_secs_f64() * 1000.0 / reconciles, "ms", None);
    row(&format!("reconcile p50, {} resizes", changed.len()), quantile(&changing, 0.5)? * 1000.0, "ms", None);
    row(&format!("reconcile p99, {} resizes", changed.len()), quantile(&changing, 0.99)? * 1000.0, "ms", Some(50.0));
    for (what, times) in [("resizes", &resizing), ("new fleets", &adding)] {
        let of = times.last().map_or(0.0, |(_, count)| *count);
        if of == 0.0 {
            continue; // too few fleets for any to be left
        }
        row(&format!("reconcile p50, {CHANGED} {what} one after the other"), quantile(times, 0.5)? * 1000.0, "ms", None);
        row(
            &format!("reconcile p99, {CHANGED} {what} one after the other, of {of}"),
            quantile(times, 0.99)? * 1000.0,
            "ms",
            Some(50.0),
        );
    }
    let looks = looking.last().map_or(0.0, |(_, count)| *count);
    row("reconcile p50, nothing to do", quantile(&looking, 0.5)? * 1000.0, "ms", None);
    row(&format!("reconcile p99, nothing to do, of {looks}"), quantile(&looking, 0.99)? * 1000.0, "ms", Some(50.0));
    row("reconciles per fleet until ready", reconciles / fleets as f64, "", None);
    row("failed reconciles", errors, "", None);
    row("API calls per new fleet", per(&to_create, fleets), "", None);
    row("API calls per resize by one shard", per(&to_change, changed.len()), "", None);
    row(&format!("writes but the Lease in {} s at rest", REST.as_secs()), writes_at_rest as f64, "", Some(0.0));
    row("resident memory", mebi(resident), "MiB", Some(128.0));
    row("resident memory, peak", mebi(peak), "MiB", None);
    row("resident memory of an operator that stands by", mebi(standing_by), "MiB", None);
    row("resident memory of an operator that stands by, peak", mebi(after_lists), "MiB", None);
    println!("\ncalls per new fleet: {}", shares(&to_create, fleets));
    println!("calls per resize: {}", shares(&to_change, changed.len()));
    println!("calls at rest: {}", shares(&at_rest, 1));
    Ok(())
}

struct Bench {
    cluster: Cluster,
    client: Client,
    operator: Operator,
    shards: usize,
}

impl Bench {
    async fn apply(&self, names: &[(String, String)], shards: usize) -> Result<()> {
        let one = |(namespace, name): &(String, String)| {
            let api: Api<UpgraderFleet> = Api::namespaced(self.client.clone(), namespace);
            let body = json!({
                "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet", "metadata": { "name": name },
                "spec": objects::spec(shards as i32),
            });
            let name = name.clone();
            async move {
                api.patch(&name, &PatchParams::apply("bench").force(), &Patch::Apply(&body)).await?;
                anyhow::Ok(())
            }
        };
        futures::stream::iter(names.iter().map(one)).buffer_unordered(16).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// The same for one fleet after the other, each when the one before is ready.
    async fn one_by_one(&self, names: &[(String, String)], shards: usize) -> Result<()> {
        for one in names {
            self.apply(std::slice::from_ref(one), shards).await?;
            let (namespace, name) = one;
            let api: Api<UpgraderFleet> = Api::namespaced(self.client.clone(), namespace);
            let began = Instant::now();
            while !is_ready(&api.get(name).await?, shards) {
                ensure!(began.elapsed() < LIMIT, "{name} is not ready in an hour");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }

    /// Changes what no object is made from.
    async fn touch(&self, names: &[(String, String)]) -> Result<()> {
        let one = |(namespace, name): &(String, String)| {
            let (api, name): (Api<UpgraderFleet>, _) = (Api::namespaced(self.client.clone(), namespace), name.clone());
            let body = json!({ "metadata": { "annotations": { "bench": "touched" } } });
            async move {
                api.patch(&name, &PatchParams::default(), &Patch::Merge(&body)).await?;
                anyhow::Ok(())
            }
        };
        futures::stream::iter(names.iter().map(one)).buffer_unordered(2).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// Waits until these fleets are ready with so many shards.
    async fn settled(&self, names: &[(String, String)], shards: usize) -> Result<()> {
        let api: Api<UpgraderFleet> = Api::all(self.client.clone());
        let began = Instant::now();
        let mut said = Instant::now();
        loop {
            let list = api.list(&ListParams::default()).await?;
            let ready: std::collections::HashSet<String> =
                list.iter().filter(|fleet| is_ready(fleet, shards)).map(ResourceExt::name_any).collect();
            let count = names.iter().filter(|(_, name)| ready.contains(name)).count();
            if count == names.len() {
                return Ok(());
            }
            ensure!(began.elapsed() < LIMIT, "only {count} of {} fleets are ready in an hour", names.len());
            if said.elapsed() > Duration::from_secs(15) {
                said = Instant::now();
                eprintln!("{count} of {} fleets are ready after {} s", names.len(), began.elapsed().as_secs());
            }
            tokio::time::sleep(Duration::from_secs(if self.shards * list.items.len() > 1000 { 3 } else { 1 })).await;
        }
    }

    async fn reconciles(&self) -> Result<Buckets> {
        self.buckets("upgrader_fleet_reconcile_duration_seconds").await
    }

    /// A histogram, summed over its labels: bounds and how many were not above.
    async fn buckets(&self, name: &str) -> Result<Buckets> {
        let (_, text) = self.operator.get("/metrics").await?;
        let start = format!("{name}_bucket{{");
        let mut buckets = Buckets::new();
        for line in text.lines().filter_map(|line| line.strip_prefix(&start)) {
            let (_, rest) = line.split_once("le=\"").context("a bound")?;
            let (bound, _) = rest.split_once('"').context("a bound")?;
            let (bound, count): (f64, f64) = (bound.parse()?, line.rsplit_once(' ').context("a count")?.1.parse()?);
            match buckets.iter_mut().find(|(other, _)| other.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        Ok(buckets)
    }

    /// What the operator has asked so far, by verb and kind, without its Lease and without the watches that are just there.
    fn calls(&self) -> Result<BTreeMap<String, usize>> {
        let mut calls = BTreeMap::new();
        for event in self.cluster.asked_by(&account::user(NAMESPACE))? {
            let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default();
            if matches!(text("/verb"), "watch") || text("/objectRef/resource") == "leases" {
                continue;
            }
            let sub = text("/objectRef/subresource");
            let resource = [text("/objectRef/resource"), if sub.is_empty() { "" } else { "/" }, sub].concat();
            *calls.entry(format!("{} {resource}", text("/verb"))).or_default() += 1;
        }
        Ok(calls)
    }
}

/// Whether the fleet is as it was asked to be, with so many shards.
fn is_ready(fleet: &UpgraderFleet, shards: usize) -> bool {
    fleet.status.as_ref().is_some_and(|status| {
        status.observed_generation == fleet.metadata.generation
            && status.ready_shards == Some(format!("{shards}/{shards}"))
            && status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
    })
}

/// What the API server takes for one write when nobody waits for anything else: a Deployment without pods is applied again and
/// again. No reconcile can be faster than its writes.
struct Bare(Api<Deployment>);

impl Bare {
    async fn new(client: &Client) -> Result<Self> {
        objects::namespace(client, "bare").await?;
        Ok(Self(Api::namespaced(client.clone(), "bare")))
    }

    /// Seconds of one.
    async fn time(&self, number: usize) -> Result<f64> {
        let labels = json!({ "app": "bare" });
        let pod =
            json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "main", "image": "image:1" }] } });
        let body = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "bare", "annotations": { "number": number.to_string() } },
            "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": pod },
        });
        let began = Instant::now();
        self.0.patch("bare", &PatchParams::apply("bench").force(), &Patch::Apply(&body)).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Seconds of so many, one after the other, in order of length.
    async fn times(&self, count: usize) -> Result<Vec<f64>> {
        let mut times = Vec::with_capacity(count);
        for number in 0..count {
            times.push(self.time(number).await?);
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    /// The same beside something else, four a second at most, until that ends.
    async fn beside<T>(&self, other: impl Future<Output = T>) -> Result<(T, Vec<f64>)> {
        let mut other = std::pin::pin!(other);
        let mut times = Vec::new();
        loop {
            let next = async {
                tokio::time::sleep(Duration::from_millis(250)).await;
                self.time(times.len()).await
            };
            tokio::select! {
                ended = &mut other => {
                    times.sort_by(f64::total_cmp);
                    return Ok((ended, times));
                }
                time = next => times.push(time?),
            }
        }
    }
}

/// A quantile of what is in order.
fn of_sorted(times: &[f64], quantile: f64) -> f64 {
    let rank = (times.len() as f64 * quantile).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Bounds of a histogram and how many values were not above each.
type Buckets = Vec<(f64, f64)>;

/// What came on top.
fn since(after: &Buckets, before: &Buckets) -> Buckets {
    after.iter().zip(before).map(|((bound, after), (_, before))| (*bound, after - before)).collect()
}

/// A quantile in seconds, between the bounds of its bucket as Prometheus reckons it.
fn quantile(buckets: &Buckets, quantile: f64) -> Result<f64> {
    let rank = buckets.last().context("a histogram")?.1 * quantile;
    let mut below = (0.0, 0.0);
    for &(bound, count) in buckets {
        if count >= rank {
            let share = if count > below.1 { (rank - below.1) / (count - below.1) } else { 1.0 };
            return Ok(if bound.is_finite() { below.0 + (bound - below.0) * share } else { below.0 });
        }
        below = (bound, count);
    }
    Ok(below.0)
}

fn difference(after: &BTreeMap<String, usize>, before: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let one = |(name, count): (&String, &usize)| (name.clone(), count - before.get(name).copied().unwrap_or(0));
    after.iter().map(one).filter(|(_, count)| *count > 0).collect()
}

fn total(calls: &BTreeMap<String, usize>) -> usize {
    calls.values().sum()
}

fn shares(calls: &BTreeMap<String, usize>, of: usize) -> String {
    let one = |(name, count): (&String, &usize)| format!("{name} {:.2}", *count as f64 / of as f64);
    if calls.is_empty() { "none".to_owned() } else { calls.iter().map(one).collect::<Vec<_>>().join(", ") }
}

//! The logs of all containers, those of dead ones included, and what can be counted in them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

/// A second name for each log file: the kubelet removes a pod's logs with the pod.
pub struct Kept {
    folder: PathBuf,
    sources: Vec<PathBuf>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kept {
    /// Begins to keep what appears in these folders.
    pub fn start(folder: &Path, sources: Vec<PathBuf>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (target, from, stopped) = (folder.to_owned(), sources.clone(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for source in &from {
                    keep(source, &target);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Ok(Self { folder: folder.to_owned(), sources, stop, thread: Some(thread) })
    }

    /// The lines of all containers of this name: by the pod's name, without what the runtime puts before each.
    pub fn lines(&self, container: &str) -> Result<BTreeMap<String, Vec<String>>> {
        for source in &self.sources {
            keep(source, &self.folder);
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
            let [pod, of, _] = name.split('+').collect::<Vec<_>>()[..] else { continue };
            if of == container {
                files.push((pod.to_owned(), std::fs::read_to_string(&path)?));
            }
        }
        // Lines begin with their time: a container that was started again comes after its predecessor.
        files.sort_by(|(_, one), (_, other)| one.cmp(other));
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (pod, text) in files {
            // 2026-01-01T00:00:00Z stderr F MESSAGE
            let lines = text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(str::to_owned);
            found.entry(pod).or_default().extend(lines);
        }
        Ok(found)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// `SOURCE/NAMESPACE_POD_UID/CONTAINER/N.log` becomes `TARGET/POD+CONTAINER+INODE`. A pod may go while its folder is read; the next
/// turn sees the others.
fn keep(source: &Path, target: &Path) {
    let Ok(pods) = std::fs::read_dir(source) else { return };
    for pod in pods.flatten() {
        let name = pod.file_name().to_string_lossy().into_owned();
        let Some(pod_name) = name.split('_').nth(1) else { continue };
        for container in std::fs::read_dir(pod.path()).into_iter().flatten().flatten() {
            for log in std::fs::read_dir(container.path()).into_iter().flatten().flatten() {
                let Ok(about) = log.metadata() else { continue };
                let kept = target.join(format!("{pod_name}+{}+{}", container.file_name().display(), about.ino()));
                if about.is_file() && !kept.exists() {
                    drop(std::fs::hard_link(log.path(), kept));
                }
            }
        }
    }
}

/// A run of a claim's proof that came to its end. Times are as in the logs: alike in form, so that text compares as time does.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Made {
    /// When the proof was begun.
    pub began: String,
    /// When it was there.
    pub ended: String,
    /// The pod that made it.
    pub pod: String,
}

/// Proofs by what the pods and the upgraders say of them.
#[derive(Debug, Default)]
pub struct Proofs {
    /// The runs that made the proof of a claim, in order.
    pub made: BTreeMap<String, Vec<Made>>,
    /// Claims whose proofs an upgrader received.
    pub received: BTreeSet<String>,
    /// Claims that a pod has begun and not ended, by pod, with the time.
    pub unfinished: BTreeMap<String, BTreeMap<String, String>>,
    /// When pods had nothing left to give: told to stop, their last job ended and its proof fetched.
    pub left: BTreeMap<String, String>,
    /// Upgrades submitted.
    pub upgrades: usize,
    /// What was said of each claim: time, pod and message.
    said: BTreeMap<String, Vec<(String, String, String)>>,
}

impl Proofs {
    /// Reads the logs.
    pub fn read(kept: &Kept) -> Result<Self> {
        let mut proofs = Self::default();
        for (pod, lines) in kept.lines("prover")? {
            for Line { time, message, job, .. } in lines.iter().filter_map(|line| Line::parse(line)) {
                let Some(job) = job else {
                    if message == "drained" {
                        proofs.left.insert(pod.clone(), time);
                    }
                    continue;
                };
                let unfinished = proofs.unfinished.entry(pod.clone()).or_default();
                match message.as_str() {
                    "job: running" => drop(unfinished.insert(job.clone(), time.clone())),
                    "job: proof returned" => {
                        let began = unfinished.remove(&job).context("a proof that nobody began")?;
                        let made = Made { began, ended: time.clone(), pod: pod.clone() };
                        proofs.made.entry(job.clone()).or_default().push(made);
                    }
                    // Without a proof: withdrawn by its client.
                    "job: ended" => drop(unfinished.remove(&job)),
                    _ => {}
                }
                proofs.said.entry(job).or_default().push((time, pod.clone(), message));
            }
        }
        for (pod, lines) in kept.lines("upgrader")? {
            proofs.upgrades += lines.iter().filter(|line| line.contains("Successfully handled proof upgrade")).count();
            for Line { time, message, job, pods } in lines.iter().filter_map(|line| Line::parse(line)) {
                let Some(job) = job else { continue };
                if message == "proof is there" {
                    proofs.received.insert(job.clone());
                }
                let message = pods.map_or_else(|| message.clone(), |pods| format!("{message} ({pods})"));
                proofs.said.entry(job).or_default().push((time, pod.clone(), message));
            }
        }
        proofs.made.values_mut().for_each(|runs| runs.sort());
        proofs.said.values_mut().for_each(|lines| lines.sort());
        Ok(proofs)
    }

    /// How many proofs were made.
    pub fn total(&self) -> usize {
        self.made.values().map(Vec::len).sum()
    }

    /// Claims that were begun again while a pod was there that had their proof or was making it; each with all that was said of it.
    /// Pods that were killed kept nothing.
    pub fn twice(&self, killed: &[String]) -> Vec<String> {
        let had_gone = |earlier: &Made, later: &Made| {
            killed.contains(&earlier.pod) || self.left.get(&earlier.pod).is_some_and(|left| *left <= later.began)
        };
        let again =
            |runs: &[Made]| (1..runs.len()).any(|later| !runs[..later].iter().all(|earlier| had_gone(earlier, &runs[later])));
        let claims = self.made.iter().filter(|(_, runs)| again(runs));
        claims.map(|(claim, runs)| self.history(claim, runs)).collect()
    }

    fn history(&self, claim: &str, runs: &[Made]) -> String {
        let mut lines = self.said.get(claim).cloned().unwrap_or_default();
        let pods: BTreeSet<_> = runs.iter().map(|run| &run.pod).collect();
        let left = pods.into_iter().filter_map(|pod| Some((self.left.get(pod)?.clone(), pod.clone(), "drained".to_owned())));
        lines.extend(left);
        lines.sort();
        let lines = lines.into_iter().map(|(time, pod, message)| format!("  {time} {pod}: {message}"));
        format!("{claim}\n{}", lines.collect::<Vec<_>>().join("\n"))
    }
}

/// A line in JSON.
struct Line {
    time: String,
    message: String,
    job: Option<String>,
    /// Whom a client asked, or sent it to.
    pods: Option<String>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        // The upgrader has its fields in an object of their own.
        let fields = if value["fields"].is_object() { &value["fields"] } else { &value };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(Self {
            time: text(&value["timestamp"])?,
            message: text(&fields["message"])?,
            job: text(&fields["job"]),
            pods: text(&fields["asked"]).or_else(|| text(&fields["pod"])),
        })
    }
}

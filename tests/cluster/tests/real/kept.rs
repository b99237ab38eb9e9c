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

/// Proofs by what the pods and the upgraders say of them.
#[derive(Debug, Default)]
pub struct Proofs {
    /// The pods that made the proof of a claim, once for each time, with the time, in order.
    pub made: BTreeMap<String, Vec<(String, String)>>,
    /// Claims whose proofs an upgrader received.
    pub received: BTreeSet<String>,
    /// Claims that a pod has begun and not ended, by pod.
    pub unfinished: BTreeMap<String, BTreeSet<String>>,
    /// Upgrades submitted.
    pub upgrades: usize,
}

impl Proofs {
    /// Reads the logs.
    pub fn read(kept: &Kept) -> Result<Self> {
        let mut proofs = Self::default();
        for (pod, lines) in kept.lines("prover")? {
            for (time, message, job) in lines.iter().filter_map(|line| event(line)) {
                match message.as_str() {
                    "job: running" => drop(proofs.unfinished.entry(pod.clone()).or_default().insert(job)),
                    "job: proof returned" => {
                        proofs.unfinished.entry(pod.clone()).or_default().remove(&job);
                        proofs.made.entry(job).or_default().push((time, pod.clone()));
                    }
                    // Without a proof: withdrawn by its client.
                    "job: ended" => drop(proofs.unfinished.entry(pod.clone()).or_default().remove(&job)),
                    _ => {}
                }
            }
        }
        for lines in kept.lines("upgrader")?.values() {
            proofs.upgrades += lines.iter().filter(|line| line.contains("Successfully handled proof upgrade")).count();
            let events = lines.iter().filter_map(|line| event(line));
            proofs.received.extend(events.filter(|(_, message, _)| message == "proof is there").map(|(.., job)| job));
        }
        proofs.made.values_mut().for_each(|makers| makers.sort());
        Ok(proofs)
    }

    /// How many proofs were made.
    pub fn total(&self) -> usize {
        self.made.values().map(Vec::len).sum()
    }

    /// Claims that were proven again while a pod lived that had proven them, with all that did.
    pub fn twice(&self, dead: &[String]) -> Vec<(&String, &Vec<(String, String)>)> {
        let lives = |(_, pod): &(String, String)| !dead.contains(pod);
        let again = |makers: &[(String, String)]| makers.split_last().is_some_and(|(_, earlier)| earlier.iter().any(lives));
        self.made.iter().filter(|(_, makers)| again(makers)).collect()
    }
}

/// Time, message and job of a line in JSON, if it is about one.
fn event(line: &str) -> Option<(String, String, String)> {
    let value: Value = serde_json::from_str(line).ok()?;
    // The upgrader has its fields in an object of their own.
    let fields = if value["fields"].is_object() { &value["fields"] } else { &value };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some((text(&value["timestamp"])?, text(&fields["message"])?, text(&fields["job"])?))
}

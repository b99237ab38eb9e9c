//! One look at a running fleet: what each process says of itself.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fleet_api::ResidueClass;
use futures::future::join_all;
use prover_api::client::{BuildError, Client, Timing, Token};
use serde::{Deserialize, Serialize};

use super::plan::Role;
use super::record::{FleetRecord, ProcessRecord};
use crate::pods::reports;
use crate::status::{Answer, PodReport};

/// All of them answer from memory.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was seen.
#[derive(Debug, Clone)]
pub struct Sight {
    /// When the questions were asked.
    pub asked: Instant,
    /// Whether each process, in the record's order, says that it is ready; nothing when it does not answer.
    pub ready: Vec<Option<bool>>,
    /// The upgraders, in the record's order.
    pub upgraders: Vec<UpgraderReport>,
    /// The prover pods, in the record's order.
    pub pods: Vec<PodReport>,
}

/// One upgrader's answers, or why there are none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpgraderReport {
    /// Its name in the fleet.
    pub name: String,
    /// Its shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<ResidueClass>,
    /// Base URL.
    pub url: String,
    /// What it said, or why it did not.
    #[serde(flatten)]
    pub answer: UpgraderAnswer,
}

/// Whether an upgrader answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum UpgraderAnswer {
    /// It did.
    Up(UpgraderState),
    /// It did not.
    Down {
        /// Why.
        error: String,
    },
}

/// What an upgrader says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UpgraderState {
    /// Whether it can work.
    pub ready: bool,
    /// Height of the tip.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// What is the matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What it counted since its start.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The numbers of an upgrader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Counts {
    /// Transactions in the node's mempool.
    pub mempool: f64,
    /// Upgrades under way.
    pub in_progress: f64,
    /// Upgrades that were submitted.
    pub upgrades: f64,
    /// Fees in what was submitted, in coins.
    pub fees_submitted: f64,
    /// Fees that are in a block, in coins.
    pub fees_mined: f64,
}

impl Counts {
    /// Reads the text format of Prometheus.
    fn read(text: &str) -> Self {
        let mut counts = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            match series {
                "upgrader_mempool_transactions" => counts.mempool = value,
                "upgrader_upgrades_in_progress" => counts.in_progress = value,
                "upgrader_fees_coins{state=\"submitted\"}" => counts.fees_submitted = value,
                "upgrader_fees_coins{state=\"mined\"}" => counts.fees_mined = value,
                _ if series.starts_with("upgrader_upgrades_total{") && series.contains("outcome=\"submitted\"") => {
                    counts.upgrades += value;
                }
                _ => {}
            }
        }
        counts
    }
}

/// The part of `/readyz` that matters here.
#[derive(Debug, Deserialize)]
struct Readiness {
    ready: bool,
    #[serde(default)]
    height: Option<u64>,
    #[serde(default)]
    trouble: Option<String>,
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The token file cannot be read.
    #[error("cannot read {}", .path.display())]
    Token {
        /// Where.
        path: std::path::PathBuf,
        /// What the file system says.
        source: std::io::Error,
    },
    /// No client for the pods.
    #[error(transparent)]
    Pods(#[from] BuildError),
    /// No client for the upgraders.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

/// Asks the processes of a fleet.
#[derive(Debug, Clone)]
pub struct Watcher {
    processes: Vec<ProcessRecord>,
    http: reqwest::Client,
    pods: Client,
}

impl Watcher {
    /// Of the fleet that wrote this down.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn new(record: &FleetRecord) -> Result<Self, WatchError> {
        let path = record.token_file.clone();
        let token = Token::from_file(&path).map_err(|source| WatchError::Token { path, source })?;
        let timing = Timing { connect: PATIENCE, ask: PATIENCE, ..Timing::default() };
        let pods = Client::builder().endpoints(record.urls(Role::Prover)).token(token).timing(timing).build()?;
        Ok(Self { processes: record.processes.clone(), http: crate::explain::client(PATIENCE)?, pods })
    }

    /// Asks all of them at once.
    pub async fn look(&self) -> Sight {
        let asked = Instant::now();
        let of = |role: Role| self.processes.iter().filter(move |process| process.role == role);
        let nodes = join_all(of(Role::Node).map(|node| async move { (node.name.as_str(), self.answers(&node.url).await) }));
        let upgraders = join_all(of(Role::Upgrader).map(|upgrader| self.upgrader(upgrader)));
        let (pods, nodes, upgraders) = tokio::join!(reports(&self.pods), nodes, upgraders);
        let mut by_url: HashMap<String, Answer> = pods.into_iter().map(|pod| (pod.url, pod.answer)).collect();
        let nobody = || Answer::Down { error: "was not asked".to_owned() };
        let pods: Vec<PodReport> = of(Role::Prover)
            .map(|pod| PodReport { url: pod.url.clone(), answer: by_url.remove(&pod.url).unwrap_or_else(nobody) })
            .collect();

        let mut ready: HashMap<&str, Option<bool>> = nodes.into_iter().collect();
        ready.extend(of(Role::Prover).zip(&pods).map(|(process, pod)| {
            let answer = match &pod.answer {
                Answer::Up { capacity, .. } => Some(capacity.ready),
                Answer::Down { .. } => None,
            };
            (process.name.as_str(), answer)
        }));
        ready.extend(of(Role::Upgrader).zip(&upgraders).map(|(process, upgrader)| {
            let answer = match &upgrader.answer {
                UpgraderAnswer::Up(state) => Some(state.ready),
                UpgraderAnswer::Down { .. } => None,
            };
            (process.name.as_str(), answer)
        }));
        let ready = self.processes.iter().map(|process| ready.get(process.name.as_str()).copied().flatten()).collect();
        Sight { asked, ready, upgraders, pods }
    }

    /// Whether anybody speaks HTTP there, whatever is said.
    async fn answers(&self, url: &str) -> Option<bool> {
        self.http.get(url).send().await.ok().map(|_| true)
    }

    async fn upgrader(&self, process: &ProcessRecord) -> UpgraderReport {
        let answer = match tokio::try_join!(self.readiness(&process.url), self.counts(&process.url)) {
            Ok((Readiness { ready, height, trouble }, counts)) => {
                UpgraderAnswer::Up(UpgraderState { ready, height, trouble, counts })
            }
            Err(error) => UpgraderAnswer::Down { error: cause(&error) },
        };
        UpgraderReport { name: process.name.clone(), class: process.class, url: process.url.clone(), answer }
    }

    async fn readiness(&self, url: &str) -> reqwest::Result<Readiness> {
        // One that is not ready says so with 503 and the same body.
        self.http.get(format!("{url}/readyz")).send().await?.json().await
    }

    async fn counts(&self, url: &str) -> reqwest::Result<Counts> {
        let text = self.http.get(format!("{url}/metrics")).send().await?.error_for_status()?.text().await?;
        Ok(Counts::read(&text))
    }
}

/// The innermost reason: `connection refused` and not `error sending request`.
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_what_an_upgrader_writes() {
        let text = "# HELP upgrader_fees_coins Fees of ours\n\
                    upgrader_fees_coins{state=\"mined\"} 1.5\n\
                    upgrader_fees_coins{state=\"submitted\"} 6.25\n\
                    upgrader_mempool_transactions 12\n\
                    upgrader_upgrades_in_progress 2\n\
                    upgrader_upgrades_total{kind=\"merge\",outcome=\"submitted\"} 3\n\
                    upgrader_upgrades_total{kind=\"raise\",outcome=\"submitted\"} 4\n\
                    upgrader_upgrades_total{kind=\"raise\",outcome=\"superseded\"} 9\n\
                    nonsense\n";
        let expected = Counts { mempool: 12.0, in_progress: 2.0, upgrades: 7.0, fees_submitted: 6.25, fees_mined: 1.5 };
        assert_eq!(Counts::read(text), expected);
    }
}

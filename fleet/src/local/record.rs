//! What a running fleet writes down, so that other commands find it: `DIR/fleet.json`. No secrets, only where they lie.

use std::path::PathBuf;

use fleet_api::ResidueClass;
use serde::{Deserialize, Serialize};

use super::life::Phase;
use super::plan::Role;

/// The version of the file that this program writes and reads.
pub const VERSION: u32 = 1;

/// A fleet as it was when something last changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// Of this file's form.
    pub version: u32,
    /// The fleet's name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// The process of `fleet local`.
    pub pid: u32,
    /// Where the manifest came from.
    pub manifest: String,
    /// File with the bearer token of the prover pods.
    pub token_file: PathBuf,
    /// All processes, in the order in which they start.
    pub processes: Vec<ProcessRecord>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Where it is reached.
    pub url: String,
    /// The shard, of an upgrader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ResidueClass>,
    /// What it proves on, of a prover pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its process, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Starts after the first.
    pub restarts: u32,
    /// Its log.
    pub log: PathBuf,
}

impl FleetRecord {
    /// The processes of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &ProcessRecord> {
        self.processes.iter().filter(move |process| process.role == role)
    }

    /// Addresses of the processes of a role.
    pub fn urls(&self, role: Role) -> Vec<String> {
        self.of(role).map(|process| process.url.clone()).collect()
    }
}

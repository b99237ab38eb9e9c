//! How urgent a job is.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The five priorities of neptune-core's job queue (`TritonVmJobPriority`), lowest first.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// Whenever nothing else waits.
    Lowest,
    /// Gobbling: upgrades of others' transactions.
    Low,
    /// Own transactions.
    #[default]
    Normal,
    /// Block composition and critical upgrades.
    High,
    /// Updates of own transactions after a block.
    Highest,
}

impl Priority {
    /// All, lowest first.
    pub const ALL: [Self; 5] = [Self::Lowest, Self::Low, Self::Normal, Self::High, Self::Highest];

    /// The name in headers, JSON and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lowest => "lowest",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Highest => "highest",
        }
    }
}

/// Not a priority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a priority is one of lowest, low, normal, high, highest")]
pub struct InvalidPriority;

impl FromStr for Priority {
    type Err = InvalidPriority;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|priority| text.trim().eq_ignore_ascii_case(priority.name())).ok_or(InvalidPriority)
    }
}

impl std::fmt::Display for Priority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

//! How urgent a job is.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use triton_vm::prelude::Digest;

/// Digest of the program that a block's proof is about (`BlockProgram` of neptune-consensus 0.19.4). The tests compare it with
/// the program itself.
pub const BLOCK_PROGRAM_DIGEST: &str = "df05b05b64f356da179866a5858c0ca10756e62ccf603d8188952773bb6359f1f1a24f06b3eb7bfc";

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

    /// What a node that does not tell the priority would have said, as far as the program betrays it: block proofs are urgent.
    pub fn of_program(program_digest: Digest) -> Self {
        if is_block_program(program_digest) { Self::High } else { Self::Normal }
    }

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

/// Whether a claim about this program is that of a block.
pub fn is_block_program(program_digest: Digest) -> bool {
    program_digest.to_hex() == BLOCK_PROGRAM_DIGEST
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_proofs_are_urgent() {
        let block = Digest::try_from_hex(BLOCK_PROGRAM_DIGEST).expect("is a digest");
        assert_eq!(Priority::of_program(block), Priority::High);
        assert_eq!(Priority::of_program(Digest::default()), Priority::Normal);
    }
}

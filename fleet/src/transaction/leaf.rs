//! The names of the proofs in a ProofCollection.

use std::fmt;
use std::str::FromStr;

use prover_api::ProverJob;

/// Which proof of a ProofCollection a job is for.
///
/// Its text form (`lock-script-0`) names files and rows of tables, and parses back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leaf {
    /// Each input is in the mutator set and its removal record is right. The largest by far: 2^16 rows for one input.
    RemovalRecordsIntegrity,
    /// The lock scripts are those of the inputs.
    CollectLockScripts,
    /// The outputs are those that the kernel commits to.
    KernelToOutputs,
    /// The type scripts are those of all coins.
    CollectTypeScripts,
    /// The lock script of the input with this index halts.
    LockScript(usize),
    /// The type script with this index halts.
    TypeScript(usize),
}

/// One proof job of a transaction.
#[derive(Debug, Clone)]
pub struct LeafJob {
    /// The place of its proof in the collection.
    pub leaf: Leaf,
    /// Program, claim and (secret) non-determinism.
    pub job: ProverJob,
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::RemovalRecordsIntegrity => "removal-records-integrity",
            Self::CollectLockScripts => "collect-lock-scripts",
            Self::KernelToOutputs => "kernel-to-outputs",
            Self::CollectTypeScripts => "collect-type-scripts",
            Self::LockScript(index) => return f.pad(&format!("lock-script-{index}")),
            Self::TypeScript(index) => return f.pad(&format!("type-script-{index}")),
        };
        f.pad(text)
    }
}

/// A text that names no proof of a ProofCollection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no proof of a ProofCollection; the names look like `removal-records-integrity` or `lock-script-0`")]
pub struct ParseLeafError(String);

impl FromStr for Leaf {
    type Err = ParseLeafError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || ParseLeafError(text.chars().take(64).collect());
        let index = |digits: &str| digits.parse::<usize>().map_err(|_| unknown());
        match text {
            "removal-records-integrity" => Ok(Self::RemovalRecordsIntegrity),
            "collect-lock-scripts" => Ok(Self::CollectLockScripts),
            "kernel-to-outputs" => Ok(Self::KernelToOutputs),
            "collect-type-scripts" => Ok(Self::CollectTypeScripts),
            _ => match (text.strip_prefix("lock-script-"), text.strip_prefix("type-script-")) {
                (Some(digits), _) => index(digits).map(Self::LockScript),
                (_, Some(digits)) => index(digits).map(Self::TypeScript),
                _ => Err(unknown()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_nothing_else_parses() {
        let leaves = [
            Leaf::RemovalRecordsIntegrity,
            Leaf::CollectLockScripts,
            Leaf::KernelToOutputs,
            Leaf::CollectTypeScripts,
            Leaf::LockScript(0),
            Leaf::LockScript(31),
            Leaf::TypeScript(1),
        ];
        for leaf in leaves {
            assert_eq!(Ok(leaf), leaf.to_string().parse(), "{leaf}");
        }
        for wrong in ["", "lock-script", "lock-script-", "lock-script-x", "type-script--1", "RemovalRecordsIntegrity"] {
            assert!(wrong.parse::<Leaf>().is_err(), "{wrong}");
        }
    }
}

//! The identity of a job.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use triton_vm::prelude::{Claim, Digest, Tip5};

/// Identity of a job: the Tip5 hash of its claim, proof version included. Equal claims are one job, whoever asks, since one
/// proof serves them all. Displayed as 80 lower-case hexadecimal digits, in the order that digests have everywhere in Neptune.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Digest);

/// Not a job id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job id is 80 hexadecimal digits, the Tip5 hash of the claim")]
pub struct InvalidJobId;

impl JobId {
    /// The id of the job that proves `claim`.
    pub fn of(claim: &Claim) -> Self {
        Self(Tip5::hash(claim))
    }

    /// The digest itself.
    pub fn digest(self) -> Digest {
        self.0
    }

    /// The 40 bytes of the digest: what routing hashes.
    pub fn bytes(self) -> [u8; Digest::BYTES] {
        self.0.into()
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = InvalidJobId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Digest::try_from_hex(text).map(Self).map_err(|_| InvalidJobId)
    }
}

impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use triton_vm::prelude::*;

    use super::*;

    fn claim(version: u32) -> Claim {
        Claim::new(Digest::default()).about_version(version).with_input(bfe_vec![1, 2, 3])
    }

    #[test]
    fn text_and_json_go_both_ways() {
        let id = JobId::of(&claim(8));
        assert_eq!(id.to_string().len(), 80);
        assert_eq!(id.to_string().parse(), Ok(id));
        let json = serde_json::to_string(&id).expect("serializes");
        assert_eq!(serde_json::from_str::<JobId>(&json).expect("parses"), id);
        for bad in ["", "00", &"g".repeat(80), &"f".repeat(80), &"0".repeat(82)] {
            assert_eq!(bad.parse::<JobId>(), Err(InvalidJobId), "{bad}");
        }
    }

    #[test]
    fn the_version_and_each_part_of_the_claim_count() {
        let id = JobId::of(&claim(8));
        assert_eq!(id, JobId::of(&claim(8)));
        assert_ne!(id, JobId::of(&claim(5)));
        assert_ne!(id, JobId::of(&claim(8).with_output(bfe_vec![1])));
        assert_ne!(id, JobId::of(&claim(8).with_input(bfe_vec![1, 2])));
    }
}

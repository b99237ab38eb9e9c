//! The name of a transaction in a mempool.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use triton_vm::prelude::Digest;

/// The id under which nodes and their users know a transaction: a digest over its inputs, outputs, announcements, fee,
/// coinbase and merge bit.
///
/// It survives an update to a new mutator set and does *not* survive a merge, so it changes when a fee is gobbled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(Digest);

/// Not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a transaction id is 80 hexadecimal digits, as `mempool_transactions` lists it")]
pub struct InvalidTxId;

impl TxId {
    /// The id with this digest.
    pub const fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest behind the id.
    pub const fn digest(self) -> Digest {
        self.0
    }

    /// The byte that shards go by: the last two hexadecimal digits of the id.
    pub fn last_byte(self) -> u8 {
        <[u8; Digest::BYTES]>::from(self.0)[Digest::BYTES - 1]
    }

    /// The id that upstream makes up for a pair, so that somebody is responsible for merging it: the sum of both digests,
    /// element by element. It is *not* the id of the merged transaction.
    #[must_use]
    pub fn combine(self, other: Self) -> Self {
        let (left, right) = (self.0.values(), other.0.values());
        Self(Digest::new(std::array::from_fn(|i| left[i] + right[i])))
    }
}

impl From<Digest> for TxId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_hex())
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TxId {
    type Err = InvalidTxId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Digest::try_from_hex(text).map(Self).map_err(|_| InvalidTxId)
    }
}

impl Serialize for TxId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TxId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

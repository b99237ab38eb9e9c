//! Which transactions are an upgrader's own: those whose id ends in a byte of its residue class.
//!
//! Text form, range, messages and matching are those of neptune-core's `--tx-upgrade-filter`, so that our upgraders and stock
//! nodes can share one mempool. It is the *last byte* of the id that counts, not the id as a number.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::TxId;

/// A residue class `divisor:remainder` of the last byte of transaction ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard {
    divisor: u8,
    remainder: u8,
}

/// A text that is no shard. The message is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidShard(String);

impl Shard {
    /// Every transaction: `1:0`.
    pub const ALL: Self = Self { divisor: 1, remainder: 0 };

    /// The class of `remainder` modulo `divisor`.
    ///
    /// # Errors
    /// [`InvalidShard`] unless `remainder < divisor`.
    pub fn new(divisor: u8, remainder: u8) -> Result<Self, InvalidShard> {
        if remainder >= divisor {
            return Err(InvalidShard(format!("Invalid filter: remainder ({remainder}) must be less than divisor ({divisor})")));
        }
        Ok(Self { divisor, remainder })
    }

    /// Into how many classes the ids are cut.
    pub fn divisor(self) -> u8 {
        self.divisor
    }

    /// Which of them this is.
    pub fn remainder(self) -> u8 {
        self.remainder
    }

    /// Whether the transaction is this shard's.
    pub fn matches(self, txid: TxId) -> bool {
        txid.last_byte() % self.divisor == self.remainder
    }

    /// Whether this shard merges the pair: it owns both, or it owns one of them and their [combination](TxId::combine).
    ///
    /// Upstream's rule, holes included: of a lone pair in two shards of four or more there may be no owner.
    pub fn matches_pair(self, left: TxId, right: TxId) -> bool {
        match (self.matches(left), self.matches(right)) {
            (true, true) => true,
            (false, false) => false,
            _ => self.matches(left.combine(right)),
        }
    }

    /// The shard with the same divisor that the transaction belongs to.
    #[must_use]
    pub fn owner_of(self, txid: TxId) -> Self {
        Self { divisor: self.divisor, remainder: txid.last_byte() % self.divisor }
    }
}

impl Default for Shard {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.divisor, self.remainder)
    }
}

impl FromStr for Shard {
    type Err = InvalidShard;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split(':').collect();
        let [divisor, remainder] = parts[..] else {
            return Err(InvalidShard(format!("Expected two integers separated by ':', got '{text}'")));
        };
        let number = |part: &str| part.parse::<u8>().map_err(|error| InvalidShard(error.to_string()));
        Self::new(number(divisor)?, number(remainder)?)
    }
}

impl Serialize for Shard {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Shard {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use triton_vm::prelude::{BFieldElement, Digest};

    use super::*;

    fn arbitrary_txid() -> impl Strategy<Value = TxId> {
        prop::array::uniform5(0..BFieldElement::P).prop_map(|words| TxId::new(Digest::new(words.map(BFieldElement::new))))
    }

    #[test]
    fn texts_and_messages_are_upstreams() {
        for (text, divisor, remainder) in [("4:2", 4, 2), ("1:0", 1, 0), ("255:254", 255, 254), ("+4:02", 4, 2)] {
            assert_eq!(text.parse(), Ok(Shard { divisor, remainder }), "{text}");
        }
        for (text, message) in [
            ("4:7", "Invalid filter: remainder (7) must be less than divisor (4)"),
            ("0:0", "Invalid filter: remainder (0) must be less than divisor (0)"),
            ("4", "Expected two integers separated by ':', got '4'"),
            ("4:2:1", "Expected two integers separated by ':', got '4:2:1'"),
            ("", "Expected two integers separated by ':', got ''"),
            ("256:0", "number too large to fit in target type"),
            (":0", "cannot parse integer from empty string"),
            ("4: 2", "invalid digit found in string"),
        ] {
            assert_eq!(text.parse::<Shard>().map_err(|error| error.to_string()), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn the_last_byte_counts_and_not_the_number() {
        // An id from upstream's own tests. 0x52 = 82.
        let txid: TxId =
            "04e19a9adfefa811f68d8de45da6412d0d73368159a119af97cfd38da6cfc55ae7c6ba403b9c8b52".parse().expect("is an id");
        assert_eq!(txid.last_byte(), 0x52);
        let owners: Vec<u8> = (0..11).filter(|&remainder| Shard { divisor: 11, remainder }.matches(txid)).collect();
        assert_eq!(owners, [82 % 11]);
        // As a number, least significant byte first or last, the id has another residue.
        let residue = |bytes: &mut dyn Iterator<Item = u8>| bytes.fold(0_u32, |sum, byte| (sum * 256 + u32::from(byte)) % 11);
        let bytes: [u8; Digest::BYTES] = txid.digest().into();
        assert_ne!(residue(&mut bytes.into_iter()), 82 % 11);
        assert_ne!(residue(&mut bytes.into_iter().rev()), 82 % 11);
    }

    proptest! {
        #[test]
        fn shards_partition_the_transactions(divisor in 1_u8..=255, txid in arbitrary_txid()) {
            let owners: Vec<u8> = (0..divisor).filter(|&remainder| Shard { divisor, remainder }.matches(txid)).collect();
            prop_assert_eq!(owners.len(), 1);
            prop_assert_eq!(owners[0], Shard { divisor, remainder: 0 }.owner_of(txid).remainder());
        }

        #[test]
        fn a_pair_has_at_most_one_owner_and_the_order_does_not_matter(
            divisor in 1_u8..=255,
            left in arbitrary_txid(),
            right in arbitrary_txid(),
        ) {
            let owners = |left, right| -> Vec<u8> {
                (0..divisor).filter(|&remainder| Shard { divisor, remainder }.matches_pair(left, right)).collect()
            };
            prop_assert!(owners(left, right).len() <= 1);
            prop_assert_eq!(owners(left, right), owners(right, left));
        }

        #[test]
        fn upstreams_parser_says_the_same(text in "[0-9+: a-]{0,8}|[0-9]{1,3}:[0-9]{1,3}") {
            let upstream = text.parse::<neptune_mempool::tx_upgrade_filter::TxUpgradeFilter>();
            let ours = text.parse::<Shard>();
            prop_assert_eq!(ours.as_ref().map_err(ToString::to_string).err(), upstream.as_ref().err().cloned());
            if let (Ok(shard), Ok(filter)) = (ours, upstream) {
                let fields = format!("TxUpgradeFilter {{ divisor: {}, remainder: {} }}", shard.divisor, shard.remainder);
                prop_assert_eq!(format!("{filter:?}"), fields);
            }
        }

        #[test]
        fn text_goes_both_ways(divisor in 1_u8..=255, seed: u8) {
            let shard = Shard { divisor, remainder: seed % divisor };
            prop_assert_eq!(shard.to_string().parse(), Ok(shard));
        }
    }
}

//! One residue class of the last byte of a transaction id.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::CoverageMask;

/// The bytes `b` with `b % divisor == remainder`; the divisor is a power of two from 1 to 128.
///
/// Written `D:R`, as the node's `--tx-upgrade-filter` takes it. Ordered by divisor, then remainder: the largest class first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResidueClass {
    divisor: u8,
    remainder: u8,
}

/// Not a residue class that can be a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResidueClass {
    /// Not two numbers with a colon.
    #[error("{0:?} is not of the form D:R, two numbers with a colon, for example 4:2")]
    Form(String),
    /// The divisor is no power of two from 1 to 128.
    #[error("divisor {0} is not one of 1, 2, 4, 8, 16, 32, 64, 128")]
    Divisor(u16),
    /// The remainder is not less than the divisor.
    #[error("remainder {remainder} is not less than divisor {divisor}")]
    Remainder {
        /// The divisor.
        divisor: u16,
        /// The remainder.
        remainder: u16,
    },
}

impl ResidueClass {
    /// All bytes: the class of a fleet with one shard.
    pub const WHOLE: Self = Self { divisor: 1, remainder: 0 };
    /// The largest divisor.
    pub const MAX_DIVISOR: u8 = 128;

    /// The class of `remainder` modulo `divisor`.
    ///
    /// # Errors
    /// When the divisor is no power of two up to 128 or the remainder is not less than it.
    pub fn new(divisor: u16, remainder: u16) -> Result<Self, InvalidResidueClass> {
        match u8::try_from(divisor) {
            Ok(small) if small.is_power_of_two() => match u8::try_from(remainder) {
                Ok(rest) if rest < small => Ok(Self { divisor: small, remainder: rest }),
                _ => Err(InvalidResidueClass::Remainder { divisor, remainder }),
            },
            _ => Err(InvalidResidueClass::Divisor(divisor)),
        }
    }

    /// The divisor, a power of two from 1 to 128.
    pub fn divisor(self) -> u8 {
        self.divisor
    }

    /// The remainder, less than the divisor.
    pub fn remainder(self) -> u8 {
        self.remainder
    }

    /// How many of the 256 byte values belong to it: 2 to 256.
    pub fn weight(self) -> u16 {
        256 / u16::from(self.divisor)
    }

    /// Whether a transaction whose id ends in this byte belongs to it.
    pub fn owns(self, last_byte: u8) -> bool {
        last_byte % self.divisor == self.remainder
    }

    /// The byte values that belong to it.
    pub fn mask(self) -> CoverageMask {
        CoverageMask::of_class(self)
    }

    /// Its two halves, or nothing when it is as small as a class can be.
    pub fn split(self) -> Option<[Self; 2]> {
        let divisor = self.divisor.checked_mul(2)?;
        Some([Self { divisor, remainder: self.remainder }, Self { divisor, remainder: self.remainder + self.divisor }])
    }

    /// The class that it is a half of; nothing for the whole.
    pub fn parent(self) -> Option<Self> {
        let divisor = self.divisor / 2;
        (divisor > 0).then(|| Self { divisor, remainder: self.remainder % divisor })
    }

    /// The other half of its parent; nothing for the whole.
    pub fn buddy(self) -> Option<Self> {
        let half = self.divisor / 2;
        (half > 0).then_some(Self { divisor: self.divisor, remainder: self.remainder ^ half })
    }

    /// The whole of two halves, or nothing when they are not buddies.
    pub fn merge(self, other: Self) -> Option<Self> {
        if self.buddy() == Some(other) { self.parent() } else { None }
    }

    /// Whether every byte value of the other belongs to it, too.
    pub fn contains(self, other: Self) -> bool {
        self.divisor <= other.divisor && other.remainder % self.divisor == self.remainder
    }

    /// Whether some byte value belongs to both. Of two such classes one contains the other.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// A part of an object's name, `d4-r2`: lower case, at most 9 characters.
    pub fn slug(self) -> String {
        format!("d{}-r{}", self.divisor, self.remainder)
    }

    /// Reads what [`Self::slug`] writes.
    pub fn from_slug(text: &str) -> Option<Self> {
        let (divisor, remainder) = text.strip_prefix('d')?.split_once("-r")?;
        let class = Self::new(divisor.parse().ok()?, remainder.parse().ok()?).ok()?;
        (class.slug() == text).then_some(class)
    }
}

impl fmt::Display for ResidueClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.divisor, self.remainder)
    }
}

impl FromStr for ResidueClass {
    type Err = InvalidResidueClass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            plain.then(|| digits.parse::<u16>().ok()).flatten()
        };
        let parts = text.split_once(':').and_then(|(divisor, remainder)| Some((number(divisor)?, number(remainder)?)));
        let (divisor, remainder) = parts.ok_or_else(|| InvalidResidueClass::Form(text.to_owned()))?;
        Self::new(divisor, remainder)
    }
}

impl Serialize for ResidueClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResidueClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for ResidueClass {
    fn schema_name() -> Cow<'static, str> {
        "ResidueClass".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // No leading zeros: one class has one spelling, so that lists can be compared as sets of strings.
        json_schema!({ "type": "string", "maxLength": 7, "pattern": "^(1|2|4|8|16|32|64|128):(0|[1-9][0-9]{0,2})$" })
    }
}

#[cfg(test)]
pub(super) use tests::any_class;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any residue class.
    pub(in crate::shard) fn any_class() -> impl Strategy<Value = ResidueClass> {
        (0_u32..8, 0_u16..128).prop_map(|(log2, rest)| ResidueClass::new(1 << log2, rest % (1 << log2)).expect("in range"))
    }

    fn all() -> impl Iterator<Item = ResidueClass> {
        (0..8).flat_map(|log2| (0..1 << log2).map(move |rest| ResidueClass::new(1 << log2, rest).expect("in range")))
    }

    #[test]
    fn text_slug_and_json_come_back() {
        for class in all() {
            assert_eq!(class.to_string().parse(), Ok(class));
            assert_eq!(ResidueClass::from_slug(&class.slug()), Some(class));
            let json = serde_json::to_value(class).expect("a string");
            assert_eq!(serde_json::from_value::<ResidueClass>(json).ok(), Some(class));
        }
        assert_eq!(all().count(), 255);
    }

    #[test]
    fn what_is_no_class_is_refused_with_the_reason() {
        for (text, message) in [
            ("", "\"\" is not of the form D:R, two numbers with a colon, for example 4:2"),
            ("4", "\"4\" is not of the form D:R, two numbers with a colon, for example 4:2"),
            ("4:2:1", "\"4:2:1\" is not of the form D:R, two numbers with a colon, for example 4:2"),
            ("+4:2", "\"+4:2\" is not of the form D:R, two numbers with a colon, for example 4:2"),
            ("4: 2", "\"4: 2\" is not of the form D:R, two numbers with a colon, for example 4:2"),
            ("0:0", "divisor 0 is not one of 1, 2, 4, 8, 16, 32, 64, 128"),
            ("3:1", "divisor 3 is not one of 1, 2, 4, 8, 16, 32, 64, 128"),
            ("255:254", "divisor 255 is not one of 1, 2, 4, 8, 16, 32, 64, 128"),
            ("256:0", "divisor 256 is not one of 1, 2, 4, 8, 16, 32, 64, 128"),
            ("4:4", "remainder 4 is not less than divisor 4"),
            ("1:300", "remainder 300 is not less than divisor 1"),
        ] {
            assert_eq!(text.parse::<ResidueClass>().expect_err(text).to_string(), message);
        }
        for slug in ["", "d4", "d4-r4", "d04-r2", "d4-r2x", "r2-d4"] {
            assert_eq!(ResidueClass::from_slug(slug), None, "{slug}");
        }
    }

    #[test]
    fn the_node_judges_by_the_last_byte_and_not_by_the_whole_number() {
        // 0x0102 % 4 == 2 either way, but a filter 128:2 sees the byte 0x82 as 2 although 0x0182 % 256 is not.
        let class: ResidueClass = "128:2".parse().expect("a class");
        assert!(class.owns(0x02) && class.owns(0x82) && !class.owns(0x03));
    }

    proptest! {
        #[test]
        fn halves_partition_their_whole(class in any_class(), byte: u8) {
            if let Some([low, high]) = class.split() {
                prop_assert_eq!(u8::from(low.owns(byte)) + u8::from(high.owns(byte)), u8::from(class.owns(byte)));
                prop_assert_eq!((low.buddy(), high.buddy()), (Some(high), Some(low)));
                prop_assert_eq!((low.merge(high), high.merge(low)), (Some(class), Some(class)));
                prop_assert_eq!((low.parent(), high.parent()), (Some(class), Some(class)));
                prop_assert_eq!(low.weight() + high.weight(), class.weight());
            } else {
                prop_assert_eq!(class.divisor(), ResidueClass::MAX_DIVISOR);
            }
        }

        #[test]
        fn containment_and_overlap_are_what_the_bytes_say(one in any_class(), other in any_class()) {
            let both = (0..=u8::MAX).filter(|byte| one.owns(*byte) && other.owns(*byte)).count();
            prop_assert_eq!(one.overlaps(other), both > 0);
            prop_assert_eq!(one.contains(other), both == usize::from(other.weight()));
        }

        #[test]
        fn only_buddies_merge(one in any_class(), other in any_class()) {
            if let Some(whole) = one.merge(other) {
                let halves = whole.split().expect("a parent has halves");
                prop_assert!(halves.contains(&one) && halves.contains(&other) && one != other);
            }
        }

        #[test]
        fn parsing_never_panics(text in ".{0,12}") {
            if let Ok(class) = text.parse::<ResidueClass>() {
                prop_assert!(class.remainder() < class.divisor());
            }
        }
    }
}

//! A set of last bytes, and how often each is owned.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};
use std::str::FromStr;

use super::ResidueClass;

/// A set of byte values, one bit each.
///
/// Written as 64 hexadecimal digits, the bit of byte 255 first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CoverageMask([u64; 4]);

/// Not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a coverage mask is 64 hexadecimal digits")]
pub struct InvalidCoverageMask;

impl CoverageMask {
    /// No byte value.
    pub const EMPTY: Self = Self([0; 4]);
    /// All byte values.
    pub const FULL: Self = Self([u64::MAX; 4]);

    /// The byte values of a class.
    pub fn of_class(class: ResidueClass) -> Self {
        let mut mask = Self::EMPTY;
        for byte in (class.remainder()..=u8::MAX).step_by(usize::from(class.divisor())) {
            mask.insert(byte);
        }
        mask
    }

    /// Adds a byte value.
    pub fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte / 64)] |= 1 << (byte % 64);
    }

    /// Whether it holds this byte value.
    pub fn contains(self, byte: u8) -> bool {
        self.0[usize::from(byte / 64)] >> (byte % 64) & 1 == 1
    }

    /// How many byte values it holds, 0 to 256.
    pub fn count(self) -> u16 {
        self.0.iter().map(|word| word.count_ones() as u16).sum()
    }

    /// Whether it holds all 256.
    pub fn is_full(self) -> bool {
        self == Self::FULL
    }

    /// Whether it holds every value of the other.
    pub fn covers(self, other: Self) -> bool {
        self & other == other
    }
}

impl BitOr for CoverageMask {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

impl BitOrAssign for CoverageMask {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl BitAnd for CoverageMask {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

impl Not for CoverageMask {
    type Output = Self;

    fn not(self) -> Self {
        Self(self.0.map(|word| !word))
    }
}

impl fmt::Display for CoverageMask {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|word| write!(formatter, "{word:016x}"))
    }
}

impl FromStr for CoverageMask {
    type Err = InvalidCoverageMask;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidCoverageMask);
        }
        let mut words = [0; 4];
        for (word, digits) in words.iter_mut().rev().zip([0, 16, 32, 48]) {
            *word = u64::from_str_radix(&text[digits..digits + 16], 16).map_err(|_| InvalidCoverageMask)?;
        }
        Ok(Self(words))
    }
}

/// What a set of classes covers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Byte values with at least one owner.
    pub covered: CoverageMask,
    /// Byte values with more than one owner. Wasted proofs at worst.
    pub overlapping: CoverageMask,
}

impl FromIterator<ResidueClass> for Coverage {
    fn from_iter<I: IntoIterator<Item = ResidueClass>>(classes: I) -> Self {
        classes.into_iter().fold(Self::default(), |sum, class| {
            let mask = class.mask();
            Self { covered: sum.covered | mask, overlapping: sum.overlapping | sum.covered & mask }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::any_class;
    use super::*;

    #[test]
    fn the_ends_are_where_they_are_said_to_be() {
        let mut mask = CoverageMask::EMPTY;
        mask.insert(255);
        assert_eq!(mask.to_string(), format!("8{}", "0".repeat(63)));
        assert_eq!(CoverageMask::FULL.to_string(), "f".repeat(64));
        assert_eq!(ResidueClass::WHOLE.mask(), CoverageMask::FULL);
        for bad in ["", "f", &"g".repeat(64), &"f".repeat(65), &"é".repeat(32)] {
            assert_eq!(bad.parse::<CoverageMask>(), Err(InvalidCoverageMask));
        }
    }

    proptest! {
        #[test]
        fn text_comes_back(classes in vec(any_class(), 0..8)) {
            let mask = classes.into_iter().collect::<Coverage>().covered;
            prop_assert_eq!(mask.to_string().parse(), Ok(mask));
        }

        #[test]
        fn coverage_counts_owners(classes in vec(any_class(), 0..8)) {
            let coverage: Coverage = classes.iter().copied().collect();
            let mut count = 0;
            for byte in 0..=u8::MAX {
                let owners = classes.iter().filter(|class| class.owns(byte)).count();
                prop_assert_eq!(coverage.covered.contains(byte), owners > 0);
                prop_assert_eq!(coverage.overlapping.contains(byte), owners > 1);
                count += u16::from(owners > 0);
            }
            prop_assert_eq!(coverage.covered.count(), count);
            prop_assert_eq!(coverage.covered.is_full(), count == 256);
            prop_assert_eq!((!coverage.covered).count(), 256 - count);
        }

        #[test]
        fn a_mask_covers_what_it_holds(one in any_class(), other in any_class()) {
            prop_assert_eq!(one.mask().covers(other.mask()), one.contains(other));
        }
    }
}

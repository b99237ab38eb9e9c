//! Shards: which upgrader takes which transaction.
//!
//! A node's `--tx-upgrade-filter D:R` lets it upgrade the transactions whose id ends in a byte `b` with `b % D == R`. A *shard*
//! is such a residue class, with a divisor that is a power of two up to 128. Classes of powers of two behave like the blocks of
//! a buddy allocator: each is cut into two halves and each pair of halves makes a whole again, so that one more shard changes
//! one class and leaves all others alone. With arbitrary divisors, going from 4 to 5 shards moves 80 % of the transactions.

mod class;
mod mask;
mod plan;
mod transition;

pub use class::{InvalidResidueClass, ResidueClass};
pub use mask::{Coverage, CoverageMask, InvalidCoverageMask};
pub use plan::{MAX_SHARDS, NotExactCover, ShardCountOutOfRange, check_exact_cover, plan};
pub use transition::Transition;

#[cfg(test)]
use class::any_class;

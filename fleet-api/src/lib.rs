//! The custom resource `UpgraderFleet` and the arithmetic of shards.
//!
//! No IO: the operator writes Kubernetes objects from these types, `fleet local` starts processes from the same manifest, and
//! both cut the transactions into the same shards.

pub mod shard;
pub mod v1alpha1;

pub use shard::{CoverageMask, ResidueClass};
pub use v1alpha1::{UpgraderFleet, UpgraderFleetSpec, UpgraderFleetStatus};

/// API group of the custom resources.
pub const GROUP: &str = "upgrader-fleet.dev";

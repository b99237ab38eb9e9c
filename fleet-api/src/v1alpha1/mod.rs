//! Version `v1alpha1` of the custom resource.
//!
//! Doc comments of fields become the text of `kubectl explain`: they say defaults, units and how fields interact.

mod common;
mod conditions;
mod fleet;
mod monitoring;
mod node;
mod provers;
mod status;
mod unknown;
mod upgraders;
mod validation;

pub use common::{Network, PodOverlay, Quantity, Resources, Scheduling, SecretReference};
pub use conditions::{ConditionType, condition, set_condition};
pub use fleet::{MAX_NAME_LENGTH, UpgraderFleet, UpgraderFleetSpec};
pub use monitoring::{Monitoring, NetworkPolicies, ServiceMonitorSpec, Switch};
pub use node::{DeployedNode, NodeSpec, NodeStorage};
pub use provers::{AdditionalProvers, Autoscaling, Backend, Gpu, ProverSpec};
pub use status::{ProverStatus, ReshardPhase, ReshardStatus, ShardPhase, ShardStatus, UpgraderFleetStatus};
pub use upgraders::{Failover, Gobbling, UpgraderMode, UpgradersSpec};
pub use validation::Violation;

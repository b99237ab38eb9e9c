//! A real Kubernetes for tests: etcd and the API server, and on top of it, if wanted, the controller manager, the scheduler and
//! kwok's simulated nodes. Everything listens on the loopback interface on free ports, needs no root, and ends with the test.
//!
//! `build.sh` makes the programs, into `$UPGRADER_FLEET_CACHE/cluster/bin`; `make test` calls it.

pub mod account;
mod certificates;
mod janitor;
pub mod objects;
mod operator;
mod pods;
mod programs;
mod server;
pub mod wait;

pub use operator::{Operator, OperatorOptions};
pub use pods::FakePods;
pub use programs::{Programs, binary};
pub use server::{Cluster, Tier, client};

//! A real Kubernetes for tests: etcd and the API server, and on top of it, if wanted, the controller manager, the scheduler and
//! kwok's simulated nodes. Everything listens on the loopback interface on free ports, needs no root, and ends with the test.
//!
//! Tier `Real` has nodes that run images instead: containerd, kubelet, kube-proxy and CoreDNS, as root, in namespaces of their
//! own (see [`machine`]).
//!
//! `build.sh` makes the programs, into `$UPGRADER_FLEET_CACHE/cluster/bin`; `make test` and `make e2e` call it.

pub mod account;
mod certificates;
mod janitor;
pub mod machine;
mod node;
pub mod objects;
mod operator;
mod pods;
mod programs;
mod server;
pub mod wait;

use std::path::PathBuf;

pub use node::Node;
pub use operator::{Operator, OperatorOptions};
pub use pods::FakePods;
pub use programs::{Guarded, Programs, binary, cache};
pub use server::{Cluster, Tier, client};

/// The folder of this package, of the checkout whose tests run: a build cache that several checkouts share may hold a binary that
/// was compiled in another one.
pub fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

//! What the end-to-end tests, the demo and the bench share.

pub mod devnode;
pub mod fixtures;
pub mod http;
pub mod jobs;
pub mod machine;
pub mod pods;
pub mod realnode;
pub mod scenario;
pub mod story;
pub mod upgrade;
pub mod upgraders;

use std::path::PathBuf;

/// The folder of this package, of the checkout whose tests run: a build cache that several checkouts share may hold a binary that
/// was compiled in another one.
pub fn package() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

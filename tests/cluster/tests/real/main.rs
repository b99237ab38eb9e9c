//! Tier `real`: the images that `make images` builds, installed by the chart, in pods of a Kubernetes whose nodes run them.
//!
//! `make e2e` builds what is needed and runs it, as root. Each test has a cluster of its own, in namespaces of its own.

#[path = "../support/coverage.rs"]
#[allow(dead_code, reason = "each test uses what it needs")]
mod coverage;
#[path = "../chart/helm.rs"]
#[allow(dead_code, reason = "each test uses what it needs")]
mod helm;
mod kept;
mod kit;
mod life;
mod monitoring;
mod proof;
mod stock;

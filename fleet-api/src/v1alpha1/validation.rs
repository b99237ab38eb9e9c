//! The rules of the resource, for a manifest that no API server has seen.

use std::fmt;

use super::fleet::{MAX_NAME_LENGTH, UpgraderFleet};
use super::provers::{Backend, ProverSpec};
use super::upgraders::UpgraderMode;
use super::{Network, UpgradersSpec};
use crate::shard::check_exact_cover;

/// A rule that a manifest breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, for example `spec.upgraders.shards`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field, self.message)
    }
}

impl UpgraderFleet {
    /// The rules that this resource breaks: what the API server would refuse. `fleet local` reads manifests that no API server
    /// has seen, and the operator trusts no definition that somebody may have replaced.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Found::default();
        let spec = &self.spec;
        if self.metadata.name.as_ref().is_some_and(|name| name.len() > MAX_NAME_LENGTH) {
            found.add("metadata.name", "the name of a fleet has at most 36 characters");
        }
        match (&spec.node.urls, &spec.node.deploy) {
            (Some(urls), None) => {
                found.range("spec.node.urls", "addresses", urls.len(), 1, 16);
                for (index, url) in urls.iter().enumerate() {
                    if !is_http_url(url) {
                        found.add(format!("spec.node.urls[{index}]"), "not an http:// or https:// address");
                    }
                }
            }
            (None, Some(_)) => {}
            _ => found.add("spec.node", "exactly one of urls and deploy is set"),
        }
        found.range("spec.allowedServiceAccounts", "accounts", spec.allowed_service_accounts.len(), 0, 16);
        for (index, account) in spec.allowed_service_accounts.iter().enumerate() {
            if !is_account(account) {
                found.add(format!("spec.allowedServiceAccounts[{index}]"), "not of the form name or namespace/name");
            }
        }
        if spec.network == Network::Xnt && spec.upgraders.mode != UpgraderMode::Node {
            let message =
                "network xnt needs upgraders.mode Node: XNT's node has no JSON-RPC that a standalone upgrader could use";
            found.add("spec", message);
        }
        if spec.upgraders.mode == UpgraderMode::Node {
            match &spec.node.deploy {
                None => found.add("spec", "upgraders.mode Node needs node.deploy: each shard is a node of its own"),
                Some(node) if node.wallet_secret.is_none() => {
                    let message =
                        "upgraders.mode Node needs node.deploy.walletSecret: a node without a wallet silently makes a new one";
                    found.add("spec", message);
                }
                Some(_) => {}
            }
        }
        found.upgraders(&spec.upgraders);
        found.provers("spec.provers", &spec.provers, spec.network);
        found.range("spec.additionalProvers", "kinds", spec.additional_provers.len(), 0, 8);
        for (index, kind) in spec.additional_provers.iter().enumerate() {
            let path = format!("spec.additionalProvers[{index}]");
            let twice = spec.additional_provers[..index].iter().any(|other| other.name == kind.name);
            if !is_kind_name(&kind.name) || kind.name == "default" || twice {
                let message = "a name is unique, not default, and at most 15 lower-case letters, digits and dashes";
                found.add(format!("{path}.name"), message);
            }
            found.provers(&format!("{path}.template"), &kind.template, spec.network);
        }
        found.0
    }
}

#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { field: field.into(), message: message.into() });
    }

    fn range<T: PartialOrd + Copy + fmt::Display>(
        &mut self,
        field: impl Into<String>,
        what: &str,
        value: T,
        least: T,
        most: T,
    ) {
        if value < least || value > most {
            self.add(field, format!("{value} {what}: not from {least} to {most}"));
        }
    }

    fn upgraders(&mut self, upgraders: &UpgradersSpec) {
        match (upgraders.shards, &upgraders.classes) {
            (Some(_), Some(_)) => self.add("spec.upgraders", "shards and classes exclude each other: remove one of them"),
            (Some(shards), None) => self.range("spec.upgraders.shards", "shards", shards, 1, 128),
            (None, Some(classes)) => {
                if let Err(error) = check_exact_cover(classes) {
                    self.add("spec.upgraders.classes", error.to_string());
                }
            }
            (None, None) => {}
        }
        let gobbling = &upgraders.gobbling;
        if !(0.0..=1.0).contains(&gobbling.fraction) {
            self.add("spec.upgraders.gobbling.fraction", format!("{} is not a fraction from 0 to 1", gobbling.fraction));
        }
        if !is_coins(&gobbling.min_fee) {
            self.add("spec.upgraders.gobbling.minFee", "not a decimal number of coins, for example \"0.01\"");
        }
        if let Some(address) = &upgraders.receiving_address {
            self.range("spec.upgraders.receivingAddress", "characters", address.len(), 1, 8192);
        }
        self.range("spec.upgraders.maxNumProofs", "proofs", upgraders.max_num_proofs, 1, 256);
        self.range("spec.upgraders.maxSurge", "shards", upgraders.max_surge, 1, 128);
        self.range("spec.upgraders.maxUnavailable", "shards", upgraders.max_unavailable, 1, 128);
        let takeover = upgraders.failover.takeover_after_seconds;
        self.range("spec.upgraders.failover.takeoverAfterSeconds", "seconds", takeover, 5, 3600);
    }

    fn provers(&mut self, path: &str, provers: &ProverSpec, network: Network) {
        self.range(format!("{path}.replicas"), "pods", provers.replicas, 0, 1000);
        self.range(format!("{path}.drainSeconds"), "seconds", provers.drain_seconds, 30, 86_400);
        if let Some(height) = provers.max_log2_padded_height {
            self.range(format!("{path}.maxLog2PaddedHeight"), "is no log2 height", height, 8, 29);
        }
        if let Some(jobs) = provers.max_concurrent_jobs {
            self.range(format!("{path}.maxConcurrentJobs"), "jobs", jobs, 1, 1024);
        }
        if let Some(scaling) = &provers.autoscaling {
            self.range(format!("{path}.autoscaling.min"), "pods", scaling.min, 0, 1000);
            self.range(format!("{path}.autoscaling.max"), "pods", scaling.max, 1, 1000);
            self.range(format!("{path}.autoscaling.targetSeconds"), "seconds", scaling.target_seconds, 1, 86_400);
            self.range(
                format!("{path}.autoscaling.scaleDownAfterSeconds"),
                "seconds",
                scaling.scale_down_after_seconds,
                0,
                86_400,
            );
            if scaling.min > scaling.max {
                self.add(format!("{path}.autoscaling.min"), "min is not larger than max");
            }
        }
        let backend = provers.effective_backend(network);
        if (backend == Backend::Mock) != network.is_mock() {
            let message = if network.is_mock() {
                "networks regtest and testnet-mock have mock proofs: remove backend, or set it to Mock"
            } else {
                "backend Mock is for networks regtest and testnet-mock only"
            };
            self.add(format!("{path}.backend"), message);
        }
        if let Some(gpu) = &provers.gpu {
            if provers.backend.is_some_and(|backend| backend != Backend::Gpu) {
                self.add(path, "gpu is for backend Gpu only: remove gpu, or set backend to Gpu");
            }
            if gpu.count.is_some() == gpu.claim_template_name.is_some() {
                self.add(format!("{path}.gpu"), "exactly one of count and claimTemplateName is set");
            }
            if let Some(count) = gpu.count {
                self.range(format!("{path}.gpu.count"), "GPUs", count, 1, 16);
            }
        }
    }
}

fn is_http_url(url: &str) -> bool {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']) && !rest.contains(char::is_whitespace))
}

fn is_coins(text: &str) -> bool {
    let digits = |part: &str, most| (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, fraction)) => digits(whole, 9) && digits(fraction, 30),
        None => digits(text, 9),
    }
}

/// `name` or `namespace/name`.
fn is_account(text: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = |part: &str| part.as_bytes().first().is_some_and(letter) && part.as_bytes().last().is_some_and(letter);
    let has = |part: &str, more: &[u8]| part.bytes().all(|byte| letter(&byte) || more.contains(&byte));
    let (namespace, name) = text.split_once('/').map_or((None, text), |(namespace, name)| (Some(namespace), name));
    text.len() <= 317
        && ends(name)
        && has(name, b"-.")
        && namespace.is_none_or(|namespace| ends(namespace) && has(namespace, b"-"))
}

fn is_kind_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

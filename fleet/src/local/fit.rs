//! What one machine does otherwise than a cluster, and what it cannot do.
//!
//! What a fleet means (shards, fees, provers) is kept or refused. What is about a cluster (images, placement, network policies) is
//! passed over, and said to be.

use fleet_api::UpgraderFleet;
use fleet_api::v1alpha1::{
    Autoscaling, Backend, Gpu, Monitoring, Network, NetworkPolicies, PodOverlay, ProverSpec, Quantity, Resources, Scheduling,
    UpgraderFleetSpec, UpgraderMode, UpgradersSpec, Violation,
};

use super::address;

/// A fleet that one machine can run.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// Its name.
    pub name: String,
    /// What is run: the manifest's, with what `--devnet` changes.
    pub spec: UpgraderFleetSpec,
    /// What is done otherwise than written, a line each.
    pub notes: Vec<String>,
}

/// Fits a fleet that breaks no rule to one machine. With `devnet` it gets a node with mock proofs of its own.
///
/// # Errors
/// All that one machine cannot do, with what to do instead.
pub fn fit(fleet: UpgraderFleet, devnet: bool) -> Result<Fitted, Vec<Violation>> {
    let name = fleet.metadata.name.unwrap_or_default();
    let mut spec = fleet.spec;
    let mut notes = Vec::new();
    let mut refused = Refused::default();
    let ignored = ignored(&spec);
    if !ignored.is_empty() {
        notes.push(format!("ignored on one machine: {}", ignored.join(", ")));
    }
    if devnet {
        move_to_devnet(&mut spec, &mut notes);
    } else {
        refused.node(&spec);
    }
    if spec.upgraders.mode == UpgraderMode::Node {
        let message = "fleet local runs standalone upgraders; for stock nodes start prover-pod here and set NEPTUNE_PROVER_PROXY \
                       (XNT: TRITON_VM_PROVER_PATH) to prover-proxy, as the README shows";
        refused.add("spec.upgraders.mode", message);
    }
    provers(&mut spec, &mut notes, &mut refused);
    fees(&mut spec, &mut notes, &mut refused);
    if refused.0.is_empty() { Ok(Fitted { name, spec, notes }) } else { Err(refused.0) }
}

#[derive(Default)]
struct Refused(Vec<Violation>);

impl Refused {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { field: field.into(), message: message.into() });
    }

    fn node(&mut self, spec: &UpgraderFleetSpec) {
        if spec.node.deploy.is_some() && spec.upgraders.mode == UpgraderMode::Standalone {
            let message = "fleet local runs no node with a chain; start neptune-core (--listen-rpc 127.0.0.1:9797 --rpc-modules \
                           Node,Chain,Archival,Mempool,Wallet) and write urls: [\"http://127.0.0.1:9797\"], or try --devnet";
            self.add("spec.node.deploy", message);
        }
    }
}

/// A node with mock proofs instead of the manifest's, and mock provers for it.
fn move_to_devnet(spec: &mut UpgraderFleetSpec, notes: &mut Vec<String>) {
    spec.node.urls = None;
    spec.node.deploy = None;
    if spec.network.is_mock() {
        notes.push("--devnet: the upgraders watch a dev node of their own, not spec.node".to_owned());
        return;
    }
    let network = std::mem::replace(&mut spec.network, Network::Regtest);
    notes.push(format!(
        "--devnet: a dev node on regtest with mock proofs, not spec.node on {network}; no GPU is used, and no fee is taken"
    ));
    // An address is one of its network.
    spec.upgraders.receiving_address = None;
    let kinds = std::iter::once(&mut spec.provers).chain(spec.additional_provers.iter_mut().map(|kind| &mut kind.template));
    for provers in kinds {
        provers.backend = None;
        provers.gpu = None;
    }
}

fn provers(spec: &mut UpgraderFleetSpec, notes: &mut Vec<String>, refused: &mut Refused) {
    let additional = spec.additional_provers.iter_mut().enumerate();
    let additional = additional.map(|(index, kind)| (format!("spec.additionalProvers[{index}].template"), &mut kind.template));
    let mut pods = 0;
    for (path, provers) in std::iter::once(("spec.provers".to_owned(), &mut spec.provers)).chain(additional) {
        if let Some(Autoscaling { min, .. }) = provers.autoscaling.take() {
            provers.replicas = min.max(1);
            notes.push(format!("{path}.autoscaling: one machine does not scale; {} pod(s) run, its min", provers.replicas));
        }
        pods += provers.replicas;
        if provers.gpu.as_ref().is_some_and(|gpu| gpu.claim_template_name.is_some()) {
            let message = "claims are of Kubernetes; write count: 1 (or more), the GPUs that each pod gets";
            refused.add(format!("{path}.gpu.claimTemplateName"), message);
        }
        let limit = provers.resources.as_ref().and_then(|resources| resources.limits.get("memory"));
        if limit.is_some_and(|limit| bytes(limit).is_none()) {
            refused.add(format!("{path}.resources.limits.memory"), "not a quantity of bytes, for example 64Gi");
        }
    }
    if pods == 0 && !spec.suspend {
        let message = "no prover pod at all: the upgraders would wait for ever; write 1 or more, or suspend: true";
        refused.add("spec.provers.replicas", message);
    }
}

/// As the resource says: fees need an address, and whoever has none works for free.
fn fees(spec: &mut UpgraderFleetSpec, notes: &mut Vec<String>, refused: &mut Refused) {
    let network = spec.network;
    let is_free = spec.upgraders.gobbling.min_fee.bytes().all(|digit| matches!(digit, b'0' | b'.'));
    match &spec.upgraders.receiving_address {
        Some(text) => {
            if let Err(why) = address::check(text, network) {
                refused.add("spec.upgraders.receivingAddress", why);
            }
        }
        None if is_free || spec.upgraders.mode == UpgraderMode::Node => {}
        None => {
            "0".clone_into(&mut spec.upgraders.gobbling.min_fee);
            notes.push(
                "no spec.upgraders.receivingAddress: all is upgraded for free; fees need an address (`neptune-cli \
                 next-receiving-address`)"
                    .to_owned(),
            );
        }
    }
}

/// Paths of what is written and makes no difference here.
fn ignored(spec: &UpgraderFleetSpec) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |path: &str, name: &str, is_set: bool| {
        if is_set {
            found.push(format!("{path}.{name}"));
        }
    };
    let (upgraders, default) = (&spec.upgraders, UpgradersSpec::default());
    note("spec.upgraders", "image", upgraders.image.is_some());
    note("spec.upgraders", "failover", upgraders.failover != default.failover);
    note("spec.upgraders", "maxSurge", upgraders.max_surge != default.max_surge);
    note("spec.upgraders", "maxUnavailable", upgraders.max_unavailable != default.max_unavailable);
    note("spec.upgraders", "resources", upgraders.resources.is_some());
    note("spec.upgraders", "scheduling", upgraders.scheduling != default.scheduling);
    note("spec.upgraders", "podTemplate", is_overlay(upgraders.pod_template.as_ref()));
    let additional = spec.additional_provers.iter().enumerate();
    let additional = additional.map(|(index, kind)| (format!("spec.additionalProvers[{index}].template"), &kind.template));
    for (path, provers) in std::iter::once(("spec.provers".to_owned(), &spec.provers)).chain(additional) {
        note(&path, "image", provers.image.is_some());
        note(&path, "resources (but limits.memory)", provers.resources.as_ref().is_some_and(says_more_than_memory));
        note(&path, "scheduling", provers.scheduling != Scheduling::default());
        note(&path, "podTemplate", is_overlay(provers.pod_template.as_ref()));
        let resource = provers.gpu.as_ref().map(|gpu| gpu.resource_name.as_str());
        note(&path, "gpu.resourceName", resource.is_some_and(|name| name != Gpu::default().resource_name));
    }
    note("spec", "monitoring", spec.monitoring != Monitoring::default());
    note("spec", "networkPolicy", spec.network_policy != NetworkPolicies::default());
    note("spec", "allowedServiceAccounts", !spec.allowed_service_accounts.is_empty());
    found
}

fn is_overlay(overlay: Option<&PodOverlay>) -> bool {
    overlay.is_some_and(|overlay| *overlay != PodOverlay::default())
}

fn says_more_than_memory(resources: &Resources) -> bool {
    !resources.requests.is_empty() || resources.limits.keys().any(|name| name != "memory")
}

/// Bytes of memory that the proofs of each pod may take, where the manifest says.
pub fn memory_limit(provers: &ProverSpec) -> Option<u64> {
    bytes(provers.resources.as_ref()?.limits.get("memory")?)
}

/// Whether the pods want a GPU: `None` when they take one where there is one.
pub fn wants_gpu(provers: &ProverSpec, network: Network) -> Option<bool> {
    match provers.effective_backend(network) {
        Backend::Gpu if provers.backend.is_none() && provers.gpu.is_none() => None,
        backend => Some(backend == Backend::Gpu),
    }
}

/// Reads an amount of memory as Kubernetes does.
fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.to_string();
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, suffix) = text.split_at(digits_end);
    let factor: u64 = match suffix {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    // A fraction such as 1.5Gi; what does not fit into 64 bits is no amount of memory.
    let bytes = digits.parse::<f64>().ok()? * factor as f64;
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;

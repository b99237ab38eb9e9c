//! From a fleet and a machine to a list of processes. Pure: programs, ports and GPUs are given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use fleet_api::ResidueClass;
use fleet_api::shard::ShardCountOutOfRange;
use fleet_api::v1alpha1::{Network, ProverSpec, UpgraderFleetSpec};
use serde::{Deserialize, Serialize};

use super::fit::memory_limit;
use super::gpus::{Share, TooFewGpus, share};
use super::life::RestartPolicy;
use super::machine::Machine;

/// What running upgrades have after SIGTERM, as in the pods that the operator makes.
const UPGRADER_GRACE: Duration = Duration::from_mins(10);

/// What a dev node has: it only writes down that it ends.
const NODE_GRACE: Duration = Duration::from_secs(5);

/// Kept free of the memory that pods share, for everything else.
const MEMORY_SPARE: u64 = 1 << 30;

/// Variables by which a shell could change what the manifest decides.
const DECIDED: [&str; 17] = [
    "UPGRADER_NODES",
    "UPGRADER_PROVERS",
    "UPGRADER_PROVER_TOKEN_FILE",
    "UPGRADER_TX_PROOF_UPGRADING",
    "UPGRADER_FEE_ADDRESS",
    "UPGRADER_LOG_FORMAT",
    "PROVER_POD_TOKEN_FILE",
    "PROVER_POD_TLS_CERT",
    "PROVER_POD_TLS_KEY",
    "PROVER_POD_TVMP_TCP",
    "PROVER_POD_TVMP_UNIX",
    "PROVER_POD_MAX_LOG2_PADDED_HEIGHT",
    "PROVER_POD_LOG_FORMAT",
    "PROVER_POD_BACKEND",
    "PROVER_POD_NETWORK",
    "TRITON_GPU_COUNT",
    "TRITON_VM_MAX_CONCURRENT_JOBS",
];

/// What a process is for. In the order in which they start; they end in the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The dev node.
    Node,
    /// A prover pod.
    Prover,
    /// An upgrader with its shard.
    Upgrader,
}

/// What has to be ready before a process is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Nothing.
    Open,
    /// The node if there is one, and the prover pods.
    Provers,
}

/// One process: how it is started, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Unique in the fleet; its log is called so.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// The program.
    pub program: PathBuf,
    /// Its arguments. Nothing secret: everyone on the machine can read them.
    pub arguments: Vec<String>,
    /// Variables added to the environment.
    pub environment: Vec<(&'static str, String)>,
    /// Variables taken out of it before.
    pub without: &'static [&'static str],
    /// Where it listens.
    pub address: SocketAddr,
    /// Where others reach it.
    pub url: String,
    /// What waits for what.
    pub gate: Gate,
    /// What happens when it ends.
    pub restart: RestartPolicy,
    /// How long it may take to end by itself.
    pub grace: Duration,
    /// The shard, of an upgrader.
    pub class: Option<ResidueClass>,
    /// What it proves on, of a prover pod, for people: `mock`, `cpu`, `gpu 0,1`.
    pub device: Option<String>,
}

/// Where the parts of a fleet are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The program `prover-pod`.
    pub prover_pod: PathBuf,
    /// The program `upgrader`.
    pub upgrader: PathBuf,
    /// The program `dev-node`, when the fleet has one.
    pub dev_node: Option<PathBuf>,
    /// The address that pods and upgraders listen on.
    pub listen: IpAddr,
    /// File with the bearer token of the pods.
    pub token_file: PathBuf,
    /// File with the secret that the upgraders share.
    pub secret_file: PathBuf,
}

/// All processes of a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The network.
    pub network: Network,
    /// Addresses of the nodes that the upgraders watch.
    pub nodes: Vec<String>,
    /// The processes, in the order in which they start.
    pub processes: Vec<ProcessSpec>,
    /// What a person should know, a line each.
    pub notes: Vec<String>,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not so many GPUs.
    #[error(transparent)]
    Gpus(#[from] TooFewGpus),
    /// Not so many shards.
    #[error("spec.upgraders.shards: {0}")]
    Shards(#[from] ShardCountOutOfRange),
    /// Not so many ports.
    #[error("there are not enough ports for all processes; give a smaller --port-base, or 0 for any free ones")]
    Ports,
    /// Nobody to watch.
    #[error("spec.node.urls: the upgraders have no node to watch; write its address, or give --devnet")]
    Node,
}

/// Makes the plan of a fleet that fits to one machine ([`super::fit`]).
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    spec: &UpgraderFleetSpec,
    machine: &Machine,
    places: &Places,
    ports: &mut dyn Iterator<Item = u16>,
) -> Result<Plan, PlanError> {
    let classes = spec.shards()?;
    let kinds: Vec<(String, &ProverSpec)> = spec
        .prover_kinds()
        .enumerate()
        .map(|(index, (_, provers))| match index.checked_sub(1) {
            None => ("spec.provers".to_owned(), provers),
            Some(index) => (format!("spec.additionalProvers[{index}].template"), provers),
        })
        .collect();
    let (shares, notes) = share(&kinds, spec.network, machine)?;
    let mut next = move || ports.next().ok_or(PlanError::Ports);
    let mut processes = Vec::new();
    let mut nodes = spec.node.urls.clone().unwrap_or_default();
    if let Some(program) = &places.dev_node {
        let node = dev_node(spec.network, program.clone(), next()?);
        nodes = vec![node.url.clone()];
        processes.push(node);
    }
    if nodes.is_empty() {
        return Err(PlanError::Node);
    }
    let memory = memory_for_each(&shares, &kinds, machine);
    for ((kind, provers), share) in spec.prover_kinds().zip(&shares) {
        for index in 0..usize::try_from(provers.replicas).unwrap_or(0) {
            let gpus = match share {
                Share::Gpu(pods) => pods.get(index).map_or(&[][..], Vec::as_slice),
                Share::Cpu | Share::Mock => &[],
            };
            let address = SocketAddr::new(places.listen, next()?);
            let pod = Pod { name: format!("prover-{kind}-{index}"), network: spec.network, share, gpus, address, memory };
            processes.push(pod.process(provers, places));
        }
    }
    let provers: Vec<String> =
        processes.iter().filter(|process| process.role == Role::Prover).map(|process| process.url.clone()).collect();
    for class in classes {
        let address = SocketAddr::new(places.listen, next()?);
        processes.push(upgrader(spec, class, address, &nodes, &provers, places));
    }
    Ok(Plan { network: spec.network, nodes, processes, notes })
}

fn process(name: String, role: Role, program: PathBuf, address: SocketAddr) -> ProcessSpec {
    ProcessSpec {
        name,
        role,
        program,
        arguments: Vec::new(),
        // Logs are files.
        environment: vec![("NO_COLOR", "1".to_owned())],
        without: &DECIDED,
        address,
        url: url(address),
        gate: Gate::Open,
        restart: RestartPolicy::default(),
        grace: Duration::ZERO,
        class: None,
        device: None,
    }
}

fn dev_node(network: Network, program: PathBuf, port: u16) -> ProcessSpec {
    // Whoever reaches it can mine: loopback, whatever --listen says.
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    ProcessSpec {
        arguments: vec![format!("--listen={address}"), format!("--network={}", network.node_name())],
        grace: NODE_GRACE,
        ..process("node".to_owned(), Role::Node, program, address)
    }
}

struct Pod<'a> {
    name: String,
    network: Network,
    share: &'a Share,
    gpus: &'a [String],
    address: SocketAddr,
    memory: Option<u64>,
}

impl Pod<'_> {
    fn process(self, provers: &ProverSpec, places: &Places) -> ProcessSpec {
        let backend = match self.share {
            Share::Gpu(_) => "gpu",
            Share::Cpu => "cpu",
            Share::Mock => "mock",
        };
        let mut arguments = vec![
            "serve".to_owned(),
            format!("--listen={}", self.address),
            format!("--network={}", self.network.node_name()),
            format!("--backend={backend}"),
            format!("--token-file={}", places.token_file.display()),
            format!("--grace-period={}", provers.drain_seconds),
        ];
        arguments.extend(provers.max_log2_padded_height.map(|height| format!("--max-log2-padded-height={height}")));
        arguments.extend(provers.max_concurrent_jobs.map(|jobs| format!("--max-concurrent-jobs={jobs}")));
        let memory = memory_limit(provers).or(self.memory).filter(|_| *self.share != Share::Mock);
        arguments.extend(memory.map(|bytes| format!("--memory-limit={bytes}")));
        let list = self.gpus.join(",");
        let device = if list.is_empty() { backend.to_owned() } else { format!("{backend} {list}") };
        let mut pod = ProcessSpec {
            arguments,
            grace: Duration::from_secs(u64::try_from(provers.drain_seconds).unwrap_or(0)),
            device: Some(device),
            ..process(self.name, Role::Prover, places.prover_pod.clone(), self.address)
        };
        if !list.is_empty() {
            pod.environment.push(("CUDA_VISIBLE_DEVICES", list));
        }
        pod
    }
}

fn upgrader(
    spec: &UpgraderFleetSpec,
    class: ResidueClass,
    address: SocketAddr,
    nodes: &[String],
    provers: &[String],
    places: &Places,
) -> ProcessSpec {
    let upgraders = &spec.upgraders;
    let mut arguments = vec![
        format!("--network={}", spec.network.node_name()),
        "--tx-proof-upgrading=true".to_owned(),
        format!("--tx-upgrade-filter={class}"),
        format!("--gobbling-fraction={}", upgraders.gobbling.fraction),
        format!("--min-gobbling-fee={}", upgraders.gobbling.min_fee),
        format!("--max-num-proofs={}", upgraders.max_num_proofs),
        format!("--prover-token-file={}", places.token_file.display()),
        format!("--fleet-secret-file={}", places.secret_file.display()),
        format!("--grace-period={}s", UPGRADER_GRACE.as_secs()),
        format!("--listen={address}"),
    ];
    arguments.extend(provers.iter().map(|url| format!("--provers={url}")));
    let name = format!("upgrader-{}", class.slug());
    let mut upgrader = ProcessSpec {
        arguments,
        gate: Gate::Provers,
        grace: UPGRADER_GRACE,
        class: Some(class),
        ..process(name, Role::Upgrader, places.upgrader.clone(), address)
    };
    // Not among the arguments: an address of a node may hold a password, and one for fees has three thousand letters.
    upgrader.environment.push(("UPGRADER_NODES", nodes.join(",")));
    if let Some(address) = &upgraders.receiving_address {
        upgrader.environment.push(("UPGRADER_FEE_ADDRESS", address.trim().to_owned()));
    }
    upgrader
}

/// Each pod measures what memory is free and would take all of it: pods that share a machine are told their part.
fn memory_for_each(shares: &[Share], kinds: &[(String, &ProverSpec)], machine: &Machine) -> Option<u64> {
    let free = machine.free_memory_bytes?;
    let pods: i32 =
        kinds.iter().zip(shares).filter(|(_, share)| **share != Share::Mock).map(|((_, provers), _)| provers.replicas).sum();
    let pods = u64::try_from(pods).ok().filter(|pods| *pods > 1)?;
    Some(free.saturating_sub(MEMORY_SPARE) / pods)
}

/// Where others on this machine reach a listener.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

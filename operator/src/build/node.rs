//! Stock nodes: one for each shard in mode `Node`, or one for all standalone upgraders.

use std::collections::BTreeMap;

use fleet_api::v1alpha1::{DeployedNode, Network, UpgraderMode};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, Probe, Service, ServicePort,
    ServiceSpec, TCPSocketAction, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::overlay::overlay;
use super::{
    BuildError, COMPONENT_LABEL, FLEET_LABEL, Fleet, Object, PROVER_PORT, REVISION_ANNOTATION, ROLE_LABEL, SHARD_LABEL, labels,
    object, pod, revision,
};
use crate::kinds::Kind;
use crate::plan::shards::Key;

/// The node's JSON-RPC port inside the cluster.
pub const RPC_PORT: i32 = 9797;
/// The node's peer port.
const PEER_PORT: i32 = 9798;
const DATA: &str = "/var/lib/node";
const TOOLS: &str = "/opt/upgrader-fleet";

/// The node of a shard, in mode `Node`: a StatefulSet with one pod and a volume that outlives it.
pub fn shard_node(fleet: &Fleet<'_>, key: Key, stopped: bool) -> Result<Object, BuildError> {
    let node = fleet.resource.spec.node.deploy.as_ref().ok_or(BuildError::Incomplete("node.deploy"))?;
    let slug = key.class.slug();
    let identity =
        labels([(FLEET_LABEL, fleet.name), (COMPONENT_LABEL, "upgrader"), (SHARD_LABEL, &slug), (ROLE_LABEL, key.role.name())]);
    let more = [(COMPONENT_LABEL, "upgrader".to_owned()), (SHARD_LABEL, slug), (ROLE_LABEL, key.role.name().to_owned())];
    let mut metadata = fleet.meta(&fleet.shard_name(key), more);
    let revision = revision(&template(fleet, node, &BTreeMap::new(), Some(""))?)?;
    metadata.annotations = Some(labels([(REVISION_ANNOTATION, revision.as_str())]));
    let template = template(fleet, node, &identity, Some(&key.class.to_string()))?;
    let service = format!("{}-upgraders", fleet.name);
    object(Kind::StatefulSet, &stateful_set(metadata, &identity, template, node, stopped, service))
}

/// The node that all standalone upgraders share, when the fleet deploys one.
pub fn shared_node(fleet: &Fleet<'_>) -> Result<Vec<Object>, BuildError> {
    let spec = &fleet.resource.spec;
    let (Some(node), UpgraderMode::Standalone) = (&spec.node.deploy, spec.upgraders.mode) else { return Ok(Vec::new()) };
    let identity = fleet.selector("node");
    let metadata = fleet.meta(&format!("{}-node", fleet.name), [(COMPONENT_LABEL, "node".to_owned())]);
    let template = template(fleet, node, &identity, None)?;
    let service = format!("{}-node", fleet.name);
    let set = stateful_set(metadata, &identity, template, node, spec.suspend, service);
    Ok(vec![object(Kind::StatefulSet, &set)?, node_service(fleet)?])
}

/// The address of the shared node.
pub fn node_service(fleet: &Fleet<'_>) -> Result<Object, BuildError> {
    let service = Service {
        metadata: fleet.meta(&format!("{}-node", fleet.name), [(COMPONENT_LABEL, "node".to_owned())]),
        spec: Some(ServiceSpec {
            selector: Some(fleet.selector("node")),
            ports: Some(vec![ServicePort {
                name: Some("rpc".to_owned()),
                port: RPC_PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("rpc".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    object(Kind::Service, &service)
}

fn stateful_set(
    metadata: ObjectMeta,
    identity: &BTreeMap<String, String>,
    template: PodTemplateSpec,
    node: &DeployedNode,
    stopped: bool,
    service: String,
) -> StatefulSet {
    let retain = || Some("Retain".to_owned());
    StatefulSet {
        metadata,
        spec: StatefulSetSpec {
            replicas: Some(i32::from(!stopped)),
            service_name: Some(service),
            revision_history_limit: Some(2),
            selector: LabelSelector { match_labels: Some(identity.clone()), ..LabelSelector::default() },
            template,
            volume_claim_templates: Some(vec![claim(node)]),
            // Chain data takes days to synchronise: it goes only when a person deletes the claim.
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: retain(),
                when_scaled: retain(),
            }),
            ..StatefulSetSpec::default()
        },
        ..StatefulSet::default()
    }
}

fn claim(node: &DeployedNode) -> PersistentVolumeClaim {
    let size = Quantity(node.storage.size.to_string());
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some("data".to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: node.storage.class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// The pod of a node; with a filter it upgrades that shard through prover-proxy.
fn template(
    fleet: &Fleet<'_>,
    node: &DeployedNode,
    identity: &BTreeMap<String, String>,
    filter: Option<&str>,
) -> Result<PodTemplateSpec, BuildError> {
    let spec = &fleet.resource.spec;
    let default = if spec.network == Network::Xnt { "xnt-core" } else { "neptune-core" };
    let mut args = vec![
        format!("--network={}", spec.network.node_name()),
        format!("--data-dir={DATA}"),
        format!("--peer-port={PEER_PORT}"),
    ];
    // The node looks for a home even when it is told its data directory.
    let mut env = vec![pod::variable("HOME", DATA)];
    env.extend(node.env.iter().map(|(name, value)| pod::variable(name, value.clone())));
    let mut mounts = vec![pod::mount("data", DATA, false), pod::mount("tmp", "/tmp", false)];
    let mut volumes = vec![pod::scratch("tmp")];
    let mut init = Vec::new();
    if let Some(filter) = filter {
        args.extend([
            "--tx-proof-upgrading".to_owned(),
            format!("--tx-upgrade-filter={filter}"),
            format!("--gobbling-fraction={}", spec.upgraders.gobbling.fraction),
            format!("--min-gobbling-fee={}", spec.upgraders.gobbling.min_fee),
            format!("--max-num-proofs={}", spec.upgraders.max_num_proofs),
            // Without it the node asks the machine, and a small machine does not upgrade although others prove for it.
            "--tx-proving-capability=singleproof".to_owned(),
        ]);
        let proxy = format!("{TOOLS}/prover-proxy");
        env.push(pod::variable(
            if spec.network == Network::Xnt { "TRITON_VM_PROVER_PATH" } else { "NEPTUNE_PROVER_PROXY" },
            proxy,
        ));
        // Leaf jobs of the node's own transactions hold spending secrets: only over TLS, only to who knows the token.
        let endpoint = format!("dns+https://{}.{}.svc:{PROVER_PORT}", fleet.provers_service(), fleet.namespace);
        env.push(pod::variable("PROVER_PROXY_ENDPOINTS", endpoint));
        env.push(pod::variable("PROVER_PROXY_TOKEN_FILE", format!("{}/token", pod::TOKEN_DIRECTORY)));
        env.push(pod::variable("PROVER_PROXY_CA_FILE", format!("{}/ca.crt", pod::TOKEN_DIRECTORY)));
        mounts.extend([pod::mount("tools", TOOLS, true), pod::mount("token", pod::TOKEN_DIRECTORY, true)]);
        volumes.extend([pod::scratch("tools"), pod::secret_volume("token", &fleet.token_secret(), &["token", "ca.crt"])]);
        init.push(copy_tool(fleet));
    } else {
        args.push(format!("--listen-rpc=0.0.0.0:{RPC_PORT}"));
        args.push("--rpc-modules=Node,Chain,Archival,Mempool,Wallet".to_owned());
    }
    if let Some(wallet) = &node.wallet_secret {
        // The node wants to write beside its wallet, so it gets a copy, unless there is one already.
        volumes.push(pod::secret_volume("wallet", &wallet.name, &["wallet.dat"]));
        init.push(copy_wallet(fleet));
    }
    args.extend(node.peers.iter().map(|peer| format!("--peer={peer}")));
    args.extend(node.args.iter().cloned());
    let (port_name, port) = if filter.is_some() { ("peers", PEER_PORT) } else { ("rpc", RPC_PORT) };
    let socket = |period, failures| Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(port), ..TCPSocketAction::default() }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    let container = Container {
        name: "node".to_owned(),
        image: Some(node.image.clone()),
        command: Some(node.command.clone().unwrap_or_else(|| vec![default.to_owned()])),
        args: Some(args),
        env: Some(env),
        ports: Some(vec![ContainerPort {
            name: Some(port_name.to_owned()),
            container_port: port,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        startup_probe: Some(socket(10, 360)),
        readiness_probe: Some(socket(5, 2)),
        resources: Some(pod::resources(node.resources.as_ref(), &[("cpu", "1"), ("memory", "4Gi")], &[])),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let mut pod = pod::pod(fleet.service_account(), container, 120);
    pod.volumes = Some(volumes);
    if !init.is_empty() {
        pod.init_containers = Some(init);
    }
    pod::schedule(&mut pod, &node.scheduling);
    let mut labels = fleet.labels();
    labels.extend(identity.clone());
    let mut template =
        PodTemplateSpec { metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }), spec: Some(pod) };
    overlay(&mut template, node.pod_template.as_ref())
        .map_err(|source| BuildError::PodTemplate { path: "spec.node.deploy", source })?;
    Ok(template)
}

/// prover-proxy, from our image into the node's pod: it runs there with the node's glibc.
fn copy_tool(fleet: &Fleet<'_>) -> Container {
    let command = ["prover-pod", "give-proxy", TOOLS];
    init(fleet, "prover-proxy", command.map(str::to_owned).to_vec(), vec![pod::mount("tools", TOOLS, false)])
}

/// The wallet of the Secret into the data directory. The pod does not start without one, nor with another than the volume has:
/// a node that finds no wallet silently makes a new one.
fn copy_wallet(fleet: &Fleet<'_>) -> Container {
    let directory = format!("{DATA}/{}/wallet", data_name(fleet.resource.spec.network));
    let command = ["prover-pod", "give-wallet", "/wallet", &directory].map(str::to_owned).to_vec();
    init(fleet, "wallet", command, vec![pod::mount("wallet", "/wallet", true), pod::mount("data", DATA, false)])
}

/// What a node calls the folder of a network in its data directory.
fn data_name(network: Network) -> &'static str {
    // There may be several test networks, and without a number it is the first.
    if network == Network::Testnet { "testnet-0" } else { network.node_name() }
}

fn init(fleet: &Fleet<'_>, name: &str, command: Vec<String>, mounts: Vec<VolumeMount>) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(fleet.resource.spec.provers.image.clone().unwrap_or_else(|| fleet.defaults.prover_image.clone())),
        command: Some(command),
        security_context: Some(pod::container_security()),
        resources: Some(pod::resources(None, &[("cpu", "50m"), ("memory", "32Mi")], &[("memory", "128Mi")])),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

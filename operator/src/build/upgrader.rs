//! A shard in mode `Standalone`: a Deployment with one stateless upgrader.

use std::collections::BTreeMap;

use fleet_api::v1alpha1::{DeployedNode, UpgraderFleetSpec};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, PodAffinityTerm, PodAntiAffinity, PodTemplateSpec, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::overlay::overlay;
use super::{
    BuildError, COMPONENT_LABEL, FLEET_LABEL, Fleet, Object, PROVER_PORT, REVISION_ANNOTATION, ROLE_LABEL, SHARD_LABEL,
    UPGRADER_PORT, labels, object, pod, revision,
};
use crate::kinds::Kind;
use crate::plan::shards::Key;

/// Seconds that running upgrades have to end. What does not is asked for again by whoever has the shard then, and met in the
/// provers' caches.
const GRACE_SECONDS: i64 = 600;

/// The Deployment of a shard. A new pod is ready before the old one goes.
pub fn shard_deployment(fleet: &Fleet<'_>, key: Key, stopped: bool) -> Result<Object, BuildError> {
    let spec = &fleet.resource.spec;
    let name = fleet.shard_name(key);
    let slug = key.class.slug();
    let identity =
        labels([(FLEET_LABEL, fleet.name), (COMPONENT_LABEL, "upgrader"), (SHARD_LABEL, &slug), (ROLE_LABEL, key.role.name())]);
    let more = [(COMPONENT_LABEL, "upgrader".to_owned()), (SHARD_LABEL, slug), (ROLE_LABEL, key.role.name().to_owned())];
    let mut metadata = fleet.meta(&name, more);
    // Of a template without the shard's own, so that all shards of one configuration have one revision.
    let revision = revision(&template(fleet, spec, &BTreeMap::new(), "")?)?;
    metadata.annotations = Some(labels([(REVISION_ANNOTATION, revision.as_str())]));
    let deployment = Deployment {
        metadata,
        spec: DeploymentSpec {
            replicas: Some(i32::from(!stopped)),
            revision_history_limit: Some(2),
            progress_deadline_seconds: Some(120),
            selector: LabelSelector { match_labels: Some(identity.clone()), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: template(fleet, spec, &identity, &key.class.to_string())?,
            ..DeploymentSpec::default()
        },
        ..Deployment::default()
    };
    object(Kind::Deployment, &deployment)
}

fn template(
    fleet: &Fleet<'_>,
    spec: &UpgraderFleetSpec,
    identity: &BTreeMap<String, String>,
    filter: &str,
) -> Result<PodTemplateSpec, BuildError> {
    let upgraders = &spec.upgraders;
    // Without an address for fees all is upgraded for free, as the resource promises; an upgrader wants that said.
    let min_fee = if upgraders.receiving_address.is_some() { upgraders.gobbling.min_fee.as_str() } else { "0" };
    let by_account = fleet.trusts_itself();
    let mut args = vec![
        format!("--network={}", spec.network.node_name()),
        "--tx-proof-upgrading".to_owned(),
        format!("--tx-upgrade-filter={filter}"),
        format!("--gobbling-fraction={}", upgraders.gobbling.fraction),
        format!("--min-gobbling-fee={min_fee}"),
        format!("--max-num-proofs={}", upgraders.max_num_proofs),
        format!("--provers=dns+http://{}.{}.svc:{PROVER_PORT}", fleet.provers_service(), fleet.namespace),
        format!("--prover-token-file={}/token", if by_account { pod::ACCOUNT_DIRECTORY } else { pod::TOKEN_DIRECTORY }),
        format!("--fleet-secret-file={}/fleet-secret", pod::TOKEN_DIRECTORY),
        format!("--grace-period={GRACE_SECONDS}s"),
        format!("--listen=0.0.0.0:{UPGRADER_PORT}"),
        "--log-format=json".to_owned(),
    ];
    args.extend(upgraders.receiving_address.iter().map(|address| format!("--fee-address={address}")));
    args.extend(node_urls(fleet, spec).into_iter().map(|url| format!("--node={url}")));
    let mut mounts = vec![pod::mount("token", pod::TOKEN_DIRECTORY, true)];
    mounts.extend(by_account.then(|| pod::mount("account", pod::ACCOUNT_DIRECTORY, true)));
    let container = Container {
        name: "upgrader".to_owned(),
        image: Some(upgraders.image.clone().unwrap_or_else(|| fleet.defaults.upgrader_image.clone())),
        args: Some(args),
        env: Some(vec![pod::field("POD_NAME", "metadata.name"), pod::variable("RUST_LOG", "info")]),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: UPGRADER_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        liveness_probe: Some(pod::probe("/healthz", UPGRADER_PORT, 10, 3)),
        readiness_probe: Some(pod::probe("/readyz", UPGRADER_PORT, 5, 2)),
        resources: Some(pod::resources(
            upgraders.resources.as_ref(),
            &[("cpu", "100m"), ("memory", "256Mi")],
            &[("memory", "2Gi")],
        )),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let mut pod = pod::pod(fleet.service_account(), container, GRACE_SECONDS + 15);
    // Who has a token of its own does not need everybody's.
    let keys: &[&str] = if by_account { &["fleet-secret"] } else { &["token", "fleet-secret"] };
    let mut volumes = vec![pod::secret_volume("token", &fleet.token_secret(), keys)];
    volumes.extend(by_account.then(|| pod::account_volume("account")));
    pod.volumes = Some(volumes);
    pod.tolerations = Some(pod::leave_lost_nodes());
    pod.affinity = Some(apart(fleet));
    pod::schedule(&mut pod, &upgraders.scheduling);
    let mut labels = fleet.labels();
    labels.extend(identity.clone());
    let mut template =
        PodTemplateSpec { metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }), spec: Some(pod) };
    overlay(&mut template, upgraders.pod_template.as_ref())
        .map_err(|source| BuildError::PodTemplate { path: "spec.upgraders", source })?;
    Ok(template)
}

/// Upgraders rather run where no other upgrader of the fleet does: one lost node then costs few shards.
fn apart(fleet: &Fleet<'_>) -> Affinity {
    let selector = LabelSelector { match_labels: Some(fleet.selector("upgrader")), ..LabelSelector::default() };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 50,
                pod_affinity_term: PodAffinityTerm {
                    label_selector: Some(selector),
                    topology_key: "kubernetes.io/hostname".to_owned(),
                    ..PodAffinityTerm::default()
                },
            }]),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

fn node_urls(fleet: &Fleet<'_>, spec: &UpgraderFleetSpec) -> Vec<String> {
    let deployed =
        |_: &DeployedNode| vec![format!("http://{}-node.{}.svc:{}", fleet.name, fleet.namespace, super::node::RPC_PORT)];
    spec.node.urls.clone().or_else(|| spec.node.deploy.as_ref().map(deployed)).unwrap_or_default()
}

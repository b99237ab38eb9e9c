//! Prover pods: a Deployment and a disruption budget for each kind.

use std::collections::BTreeMap;

use fleet_api::v1alpha1::{Backend, Gpu, Network, ProverSpec};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodResourceClaim, PodTemplateSpec, ResourceClaim, Toleration};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::overlay::overlay;
use super::{
    BuildError, COMPONENT_LABEL, FLEET_LABEL, Fleet, Object, PROOF_VERSION, PROOF_VERSION_LABEL, PROVER_PORT, PROVERS_LABEL,
    TLS_LABEL, labels, object, pod,
};
use crate::kinds::Kind;

/// Labels by which the pods of a kind are found.
pub fn prover_selector(fleet_name: &str, kind: &str) -> BTreeMap<String, String> {
    labels([(FLEET_LABEL, fleet_name), (COMPONENT_LABEL, "prover"), (PROVERS_LABEL, kind)])
}

/// The Deployment of a kind of provers. No surge: all GPUs may be taken, and a pod on top would wait for ever.
pub fn prover_deployment(fleet: &Fleet<'_>, kind: &str, provers: &ProverSpec, replicas: i32) -> Result<Object, BuildError> {
    let selector = prover_selector(fleet.name, kind);
    let mut labels = fleet.labels();
    labels.extend(selector.clone());
    labels.insert(PROOF_VERSION_LABEL.to_owned(), PROOF_VERSION.to_owned());
    if fleet.needs_tls() {
        labels.insert(TLS_LABEL.to_owned(), "true".to_owned());
    }
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(pod_spec(fleet, provers)),
    };
    let path = if kind == "default" { "spec.provers" } else { "spec.additionalProvers[].template" };
    overlay(&mut template, provers.pod_template.as_ref()).map_err(|source| BuildError::PodTemplate { path, source })?;
    let more = [(COMPONENT_LABEL, "prover".to_owned()), (PROVERS_LABEL, kind.to_owned())];
    let deployment = Deployment {
        metadata: fleet.meta(&fleet.prover_name(kind), more),
        spec: DeploymentSpec {
            replicas: Some(if fleet.resource.spec.suspend { 0 } else { replicas }),
            revision_history_limit: Some(2),
            // The self-test of a pod on a large CPU takes a while, and so does the drain of the pod before it.
            progress_deadline_seconds: Some(provers.drain_seconds.saturating_add(600)),
            selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(0)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            template,
            ..DeploymentSpec::default()
        },
        ..Deployment::default()
    };
    object(Kind::Deployment, &deployment)
}

/// At most one pod of a kind is evicted at a time. None for a single pod: a budget would then block the drain of its node.
pub fn prover_disruption_budget(fleet: &Fleet<'_>, kind: &str, replicas: i32) -> Result<Option<Object>, BuildError> {
    if replicas < 2 {
        return Ok(None);
    }
    let more = [(COMPONENT_LABEL, "prover".to_owned()), (PROVERS_LABEL, kind.to_owned())];
    let budget = PodDisruptionBudget {
        metadata: fleet.meta(&fleet.prover_name(kind), more),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector { match_labels: Some(prover_selector(fleet.name, kind)), ..LabelSelector::default() }),
            // A pod that is not ready proves nothing: evict it whenever asked.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    object(Kind::PodDisruptionBudget, &budget).map(Some)
}

fn pod_spec(fleet: &Fleet<'_>, provers: &ProverSpec) -> k8s_openapi::api::core::v1::PodSpec {
    let network = fleet.resource.spec.network;
    let backend = provers.effective_backend(network);
    let probe = |path: &str, period, failures| {
        let mut probe = pod::probe(path, PROVER_PORT, period, failures);
        if let Some(http) = probe.http_get.as_mut().filter(|_| fleet.needs_tls()) {
            http.scheme = Some("HTTPS".to_owned());
        }
        Some(probe)
    };
    let accounts = fleet.allowed_accounts();
    let mut mounts = vec![pod::mount("token", pod::TOKEN_DIRECTORY, true), pod::mount("tmp", "/tmp", false)];
    let mut args = args(network, backend, provers, fleet.needs_tls());
    if !accounts.is_empty() {
        mounts.push(pod::mount("kube", pod::KUBE_DIRECTORY, true));
        args.push(format!("--kube-dir={}", pod::KUBE_DIRECTORY));
        args.push(format!("--token-audience={}", pod::AUDIENCE));
        args.extend(accounts.iter().map(|account| format!("--allow-service-account={account}")));
    }
    let container = Container {
        name: "prover".to_owned(),
        image: Some(provers.image.clone().unwrap_or_else(|| fleet.defaults.prover_image.clone())),
        args: Some(args),
        env: Some(vec![pod::field("POD_NAME", "metadata.name"), pod::variable("RUST_LOG", "info")]),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: PROVER_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        // The first proof of the self-test takes its time on a busy machine; ten minutes, then it counts as broken.
        startup_probe: probe("/healthz", 5, 120),
        liveness_probe: probe("/healthz", 10, 6),
        readiness_probe: probe("/readyz", 5, 2),
        resources: Some(pod::resources(provers.resources.as_ref(), &[("cpu", "1"), ("memory", "4Gi")], &[])),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let keys: &[&str] = if fleet.needs_tls() { &["tokens", "tls.crt", "tls.key"] } else { &["tokens"] };
    // The pod itself stops at its grace period; the kubelet waits a little longer.
    let mut pod = pod::pod(fleet.service_account(), container, i64::from(provers.drain_seconds) + 30);
    let mut volumes = vec![pod::secret_volume("token", &fleet.token_secret(), keys), pod::scratch("tmp")];
    volumes.extend((!accounts.is_empty()).then(|| pod::kube_volume("kube")));
    pod.volumes = Some(volumes);
    if backend == Backend::Gpu {
        let default = Gpu::default();
        gpus(&mut pod, provers.gpu.as_ref().unwrap_or(&default));
    }
    pod::schedule(&mut pod, &provers.scheduling);
    pod
}

fn args(network: Network, backend: Backend, provers: &ProverSpec, tls: bool) -> Vec<String> {
    let backend = match backend {
        Backend::Gpu => "gpu",
        Backend::Cpu => "cpu",
        Backend::Mock => "mock",
    };
    let mut args = vec![
        "serve".to_owned(),
        format!("--listen=0.0.0.0:{PROVER_PORT}"),
        format!("--network={}", network.node_name()),
        format!("--backend={backend}"),
        format!("--token-file={}/tokens", pod::TOKEN_DIRECTORY),
        format!("--grace-period={}", provers.drain_seconds),
        "--log-format=json".to_owned(),
    ];
    if tls {
        args.push(format!("--tls-cert={}/tls.crt", pod::TOKEN_DIRECTORY));
        args.push(format!("--tls-key={}/tls.key", pod::TOKEN_DIRECTORY));
    }
    args.extend(provers.max_log2_padded_height.map(|height| format!("--max-log2-padded-height={height}")));
    args.extend(provers.max_concurrent_jobs.map(|jobs| format!("--max-concurrent-jobs={jobs}")));
    args
}

fn gpus(pod: &mut k8s_openapi::api::core::v1::PodSpec, gpu: &Gpu) {
    let container = &mut pod.containers[0];
    let resources = container.resources.get_or_insert_default();
    if let Some(template) = &gpu.claim_template_name {
        resources.claims = Some(vec![ResourceClaim { name: "gpu".to_owned(), ..ResourceClaim::default() }]);
        pod.resource_claims = Some(vec![PodResourceClaim {
            name: "gpu".to_owned(),
            resource_claim_template_name: Some(template.clone()),
            ..PodResourceClaim::default()
        }]);
    } else {
        let count = Quantity(gpu.count.unwrap_or(1).to_string());
        resources.limits.get_or_insert_default().insert(gpu.resource_name.clone(), count);
        pod.node_selector = Some(labels([("nvidia.com/gpu.present", "true")]));
    }
    pod.tolerations = Some(vec![Toleration {
        key: Some("nvidia.com/gpu".to_owned()),
        operator: Some("Exists".to_owned()),
        effect: Some("NoSchedule".to_owned()),
        ..Toleration::default()
    }]);
}

//! `spec.provers`: who makes the proofs.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Network, PodOverlay, Resources, Scheduling};

/// How a prover pod proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Backend {
    /// On a GPU.
    Gpu,
    /// On the CPU: large proofs need tens of gigabytes and minutes.
    Cpu,
    /// Mock proofs, for networks that have them.
    Mock,
}

/// Prover pods of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.gpu) || !has(self.backend) || self.backend == 'Gpu'")
    .message("gpu is for backend Gpu only: remove gpu, or set backend to Gpu"))]
pub struct ProverSpec {
    /// Number of pods, 0 to 1000. Default: 1. The `scale` subresource of the fleet writes it. Ignored with `autoscaling`.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Lets the operator choose the number of pods by queued work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// `Gpu`, `Cpu` or `Mock`. Default: `Mock` on networks with mock proofs, `Gpu` on others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// The GPUs of each pod. Default with backend `Gpu`: one `nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Image of the prover pod. Default: the one that the operator was released with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Largest log2 padded height that the pods take, 8 to 29. Default: what their memory allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 8, max = 29))]
    pub max_log2_padded_height: Option<i32>,
    /// Jobs that each pod proves at once, 1 to 1024. Default: the pod's own (1 on the CPU).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_concurrent_jobs: Option<i32>,
    /// Seconds that a pod has to finish its proofs before it is killed, 30 to 86400. Default: 3600. More than the longest proof
    /// takes, or each rollout loses work.
    #[serde(default = "default_drain")]
    #[schemars(range(min = 30, max = 86_400))]
    pub drain_seconds: i32,
    /// Resources of each pod besides GPUs. Default: requests of 1 CPU and 4Gi memory. On the CPU, memory is what limits the
    /// height of proofs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Where the pods may run.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Changes to the pods, merged over them last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodOverlay>,
}

impl Default for ProverSpec {
    fn default() -> Self {
        Self {
            replicas: default_replicas(),
            autoscaling: None,
            backend: None,
            gpu: None,
            image: None,
            max_log2_padded_height: None,
            max_concurrent_jobs: None,
            drain_seconds: default_drain(),
            resources: None,
            scheduling: Scheduling::default(),
            pod_template: None,
        }
    }
}

impl ProverSpec {
    /// The backend, given or by default.
    pub fn effective_backend(&self, network: Network) -> Backend {
        self.backend.unwrap_or(if network.is_mock() { Backend::Mock } else { Backend::Gpu })
    }
}

/// Number of pods by queued seconds of work: `ceil(work / targetSeconds)`, between `min` and `max`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.min <= self.max").message("min is not larger than max").field_path(".min"))]
pub struct Autoscaling {
    /// Least number of pods, 0 to 1000. Default: 1.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub min: i32,
    /// Largest number of pods, 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,
    /// Seconds of queued work that each pod should have before it, 1 to 86400. Default: 120.
    #[serde(default = "default_target")]
    #[schemars(range(min = 1, max = 86_400))]
    pub target_seconds: i32,
    /// Seconds that the queue has to be short before one pod is removed, 0 to 86400. Default: 300.
    #[serde(default = "default_stabilization")]
    #[schemars(range(min = 0, max = 86_400))]
    pub scale_down_after_seconds: i32,
}

/// GPUs of a pod, by resource name and count or by a claim of dynamic resource allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.count) != has(self.claimTemplateName)")
    .message("exactly one of count and claimTemplateName is set"))]
pub struct Gpu {
    /// The device plugin's name of the resource, for example `nvidia.com/mig-1g.10gb`. Default: `nvidia.com/gpu`.
    #[serde(default = "default_gpu_resource")]
    #[schemars(length(min = 1, max = 317))]
    pub resource_name: String,
    /// GPUs of each pod, 1 to 16. Excludes `claimTemplateName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub count: Option<i32>,
    /// A ResourceClaimTemplate in the fleet's namespace, for dynamic resource allocation. Excludes `count`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_template_name: Option<String>,
}

impl Default for Gpu {
    fn default() -> Self {
        Self { resource_name: default_gpu_resource(), count: Some(1), claim_template_name: None }
    }
}

/// More prover pods, of another kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdditionalProvers {
    /// Name of this kind, unique in the fleet; part of the pods' names. `default` is the name of `spec.provers`.
    #[schemars(regex(pattern = "^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$"), length(max = 15))]
    #[x_kube(validation = Rule::new("self != 'default'").message("the name default is that of spec.provers: take another"))]
    pub name: String,
    /// The pods.
    pub template: ProverSpec,
}

fn default_replicas() -> i32 {
    1
}

fn default_target() -> i32 {
    120
}

fn default_stabilization() -> i32 {
    300
}

fn default_drain() -> i32 {
    3600
}

fn default_gpu_resource() -> String {
    "nvidia.com/gpu".to_owned()
}

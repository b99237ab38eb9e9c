//! Nodes that run images: containerd and a kubelet each. All are on one network namespace, each with an address and ports of its
//! own, so that one kube-proxy and one DNS server do for all of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node as Object;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::machine::run;
use crate::server::Cluster;
use crate::wait::until;

/// Where the API server, DNS and the first node are.
pub(crate) const ADDRESS: &str = "10.88.0.1";
/// The nodes that a cluster may have.
pub(crate) const NAMES: [&str; 2] = ["real-0", "real-1"];
/// Their addresses.
const ADDRESSES: [&str; 2] = [ADDRESS, "10.88.0.2"];
/// Where pods are.
const PODS: &str = "10.88.64.0/20";
/// The DNS server's Service.
const DNS: &str = "10.96.0.10";
/// The namespace in which the kubelet looks for images and containers.
const NAMESPACE: &str = "k8s.io";
const PATIENCE: Duration = Duration::from_mins(2);

/// All that tier `Real` needs, by the names in `build.sh`'s folder.
pub(crate) const PROGRAMS: [&str; 18] = [
    "containerd",
    "containerd-shim-runc-v2",
    "coredns",
    "ctr",
    "etcd",
    "helm",
    "host-local",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "loopback",
    "pause",
    "prometheus",
    "ptp",
    "runc",
];

/// The interfaces of a machine that has none yet.
pub(crate) fn network() -> Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    // A pair of devices that lead to each other: `dummy` devices are not in every kernel.
    run("ip", &["link", "add", "host0", "type", "veth", "peer", "name", "host1"])?;
    for address in ADDRESSES {
        run("ip", &["address", "add", &format!("{address}/24"), "dev", "host0"])?;
    }
    for device in ["host0", "host1"] {
        run("ip", &["link", "set", device, "up"])?;
    }
    run("ip", &["route", "add", "default", "dev", "host0"])?;
    Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?)
}

impl Cluster {
    /// Services and DNS, which the nodes share.
    pub(crate) async fn start_services(&self) -> Result<()> {
        let admin = self.kubeconfig().display().to_string();
        self.run_as(
            "kube-proxy",
            "kube-proxy",
            &[
                format!("--kubeconfig={admin}"),
                format!("--hostname-override={}", NAMES[0]),
                "--proxy-mode=nftables".to_owned(),
                format!("--cluster-cidr={PODS}"),
                // That one setting is the host's.
                "--conntrack-max-per-core=0".to_owned(),
            ],
        )?;
        let corefile = format!(
            ".:53 {{\n  bind {ADDRESS}\n  errors\n  ready 127.0.0.1:8181\n  kubernetes cluster.local in-addr.arpa {{\n    \
             kubeconfig {admin} test\n    pods insecure\n    ttl 5\n  }}\n}}\n"
        );
        std::fs::write(self.file("Corefile"), corefile)?;
        self.run_as("coredns", "coredns", &["-conf".to_owned(), self.file("Corefile").display().to_string()])?;
        let ports =
            json!([{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53, "protocol": "TCP" }]);
        let labels = json!({ "kubernetes.io/service-name": "kube-dns" });
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kube-dns", "namespace": "kube-system" },
            "spec": { "clusterIP": DNS, "ports": ports },
        }))?;
        self.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
            "metadata": { "name": "kube-dns-host", "namespace": "kube-system", "labels": labels },
            "endpoints": [{ "addresses": [ADDRESS], "conditions": { "ready": true } }],
        }))?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        self.until("DNS", || async { Ok(client.get("http://127.0.0.1:8181/ready").send().await?.status().is_success()) }).await
    }

    /// Applies an object or a manifest of several with kubectl.
    ///
    /// # Errors
    /// What the server says.
    pub fn apply(&self, object: &Value) -> Result<()> {
        let file = tempfile::NamedTempFile::with_suffix_in(".yaml", self.folder())?;
        std::fs::write(file.path(), serde_yaml_ng::to_string(object)?)?;
        let (succeeded, said) = self.kubectl(&["apply", "--server-side", "-f", &file.path().display().to_string()])?;
        ensure!(succeeded && !said.contains("Warning:"), "kubectl apply: {said}");
        Ok(())
    }
}

/// A node that runs images.
pub struct Node<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub name: &'static str,
    folder: PathBuf,
}

impl<'a> Node<'a> {
    /// Starts the first or the second node, with as many GPUs as an extended resource, and waits until it is ready.
    ///
    /// # Errors
    /// A program that does not start.
    pub async fn start(cluster: &'a Cluster, index: usize, gpus: u32) -> Result<Self> {
        let name = *NAMES.get(index).context("two nodes at most")?;
        let folder = cluster.file(&format!("node-{index}"));
        std::fs::create_dir_all(folder.join("cni"))?;
        let node = Self { cluster, name, folder };
        node.start_containerd().await?;
        node.start_kubelet(index)?;
        let api: Api<Object> = Api::all(cluster.client().await?);
        until("ready node", PATIENCE, || async {
            let status = api.get(name).await?.status.unwrap_or_default();
            let ready = status.conditions.unwrap_or_default().into_iter().find(|one| one.type_ == "Ready");
            Ok(if ready.as_ref().is_some_and(|ready| ready.status == "True") { Ok(()) } else { Err(format!("{ready:?}")) })
        })
        .await
        .with_context(|| node.logs())?;
        if gpus > 0 {
            // As a device plugin and NVIDIA's operator would leave it; the kubelet makes allocatable what the capacity says.
            let labels = json!({ "metadata": { "labels": { "nvidia.com/gpu.present": "true" } } });
            api.patch(name, &PatchParams::default(), &Patch::Merge(labels)).await?;
            let capacity = json!({ "status": { "capacity": { "nvidia.com/gpu": gpus.to_string() } } });
            api.patch_status(name, &PatchParams::default(), &Patch::Merge(capacity)).await?;
            until("allocatable GPUs", PATIENCE, || async {
                let allocatable = api.get(name).await?.status.and_then(|status| status.allocatable).unwrap_or_default();
                Ok(if allocatable.contains_key("nvidia.com/gpu") { Ok(()) } else { Err(format!("{allocatable:?}")) })
            })
            .await?;
        }
        Ok(node)
    }

    /// Where the kubelet keeps the logs of containers: `NAMESPACE_POD_UID/CONTAINER/N.log`.
    pub fn logs_of_pods(&self) -> PathBuf {
        self.folder.join("logs")
    }

    /// The folder of a projected volume of a pod.
    pub fn projected(&self, pod: &str, volume: &str) -> PathBuf {
        self.folder.join(format!("kubelet/pods/{pod}/volumes/kubernetes.io~projected/{volume}"))
    }

    /// Imports the image of an archive and gives it another name.
    ///
    /// # Errors
    /// No such archive, or one of another image.
    pub fn import(&self, archive: &Path, name: &str, names: &[String]) -> Result<()> {
        self.ctr(&["images", "import", &archive.display().to_string()])?;
        for other in names {
            self.ctr(&["images", "tag", "--force", name, other])?;
        }
        Ok(())
    }

    /// SIGKILL for a container, by the id that its pod's status has.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&self, container: &str) -> Result<()> {
        self.ctr(&["tasks", "kill", "--signal", "SIGKILL", container.trim_start_matches("containerd://")])?;
        Ok(())
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let (ctr, socket) = (self.cluster.program("ctr"), self.socket());
        run(&ctr.display().to_string(), &[&["--address", &socket, "--namespace", NAMESPACE], arguments].concat())
    }

    fn socket(&self) -> String {
        self.file("containerd.sock")
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn logs(&self) -> String {
        let tail = |name: String| {
            let text = std::fs::read_to_string(self.cluster.file(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<_> = text.lines().rev().take(20).collect();
            [name, lines.into_iter().rev().collect::<Vec<_>>().join("\n")].join(":\n")
        };
        [tail(format!("containerd-{}", self.name)), tail(format!("kubelet-{}", self.name))].join("\n")
    }

    async fn start_containerd(&self) -> Result<()> {
        // A route and an address for each pod, as kind has it: what goes from pod to pod goes through the node, where Services are.
        let ranges = json!([[{ "subnet": PODS }]]);
        // One range and one book for all nodes.
        let addresses = json!({ "type": "host-local", "dataDir": self.cluster.file("addresses"), "ranges": ranges, "routes": [{ "dst": "0.0.0.0/0" }] });
        let list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [{ "type": "ptp", "ipMasq": false, "ipam": addresses }] });
        std::fs::write(self.folder.join("cni/10-pods.conflist"), list.to_string())?;
        let config = format!(
            "version = 3\nroot = '{root}'\nstate = '{state}'\n\
             [grpc]\naddress = '{socket}'\n[ttrpc]\naddress = '{socket}.ttrpc'\n\
             [plugins.'io.containerd.internal.v1.opt']\npath = '{opt}'\n\
             [plugins.'io.containerd.nri.v1.nri']\ndisable = true\n\
             [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{PAUSE}'\n\
             [plugins.'io.containerd.cri.v1.runtime']\n\
             # Without CAP_SYS_RESOURCE runc could not lower it and dies with \"can't get final child's PID\".\n\
             restrict_oom_score_adj = true\n\
             [plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['{bin}']\nconf_dir = '{cni}'\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n",
            root = self.file("root"),
            state = self.file("state"),
            socket = self.socket(),
            opt = self.file("opt"),
            bin = self.cluster.program("ptp").parent().context("a folder")?.display(),
            cni = self.file("cni"),
        );
        std::fs::write(self.folder.join("containerd.toml"), config)?;
        let arguments = ["--config".to_owned(), self.file("containerd.toml")];
        self.cluster.run_as(&format!("containerd-{}", self.name), "containerd", &arguments)?;
        self.cluster.until("containerd", || async { Ok(self.ctr(&["version"]).is_ok()) }).await?;
        let archive = self.folder.join("pause.tar");
        let dockerfile = self.folder.join("pause.Dockerfile");
        std::fs::write(&dockerfile, "FROM scratch\nCOPY pause /pause\nUSER 65532:65532\nENTRYPOINT [\"/pause\"]\n")?;
        let folder = self.cluster.program("pause").parent().context("a folder")?.display().to_string();
        let script = crate::package().join("../../scripts/oci.py").display().to_string();
        run("python3", &[&script, &dockerfile.display().to_string(), &folder, PAUSE, &archive.display().to_string()])?;
        self.import(&archive, PAUSE, &[])
    }

    fn start_kubelet(&self, index: usize) -> Result<()> {
        // The kubelet wants it to be there, in each hierarchy where there are several.
        let group = format!("{}-{}", self.cluster.folder().file_name().context("a name")?.to_string_lossy(), self.name);
        for hierarchy in hierarchies()? {
            std::fs::create_dir_all(hierarchy.join(&group))?;
        }
        std::fs::write(self.folder.join("resolv.conf"), format!("nameserver {DNS}\n"))?;
        let port = |first: u16| first + 100 * index as u16;
        let config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": { "enabled": false }, "webhook": { "enabled": true },
                "x509": { "clientCAFile": self.cluster.file("ca.crt") },
            },
            "authorization": { "mode": "Webhook" },
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{group}"),
            "clusterDNS": [DNS],
            "clusterDomain": "cluster.local",
            "containerRuntimeEndpoint": format!("unix://{}", self.socket()),
            "evictionHard": { "memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
            "failCgroupV1": false,
            "failSwapOn": false,
            "healthzPort": port(10248),
            "imageGCHighThresholdPercent": 100,
            "podLogsDir": self.logs_of_pods(),
            "port": port(10250),
            "resolvConf": self.file("resolv.conf"),
        });
        std::fs::write(self.folder.join("kubelet.yaml"), serde_yaml_ng::to_string(&config)?)?;
        self.cluster.run_as(
            &format!("kubelet-{}", self.name),
            "kubelet",
            &[
                format!("--config={}", self.file("kubelet.yaml")),
                format!("--kubeconfig={}", self.cluster.file(&format!("{}.kubeconfig", self.name)).display()),
                format!("--hostname-override={}", self.name),
                format!("--node-ip={}", ADDRESSES[index]),
                format!("--root-dir={}", self.file("kubelet")),
                format!("--cert-dir={}", self.file("pki")),
            ],
        )
    }
}

/// The image of the container that holds a pod's namespaces.
const PAUSE: &str = "localhost/pause:1";

/// Where control groups are made: one folder with version 2, one for each controller with version 1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = std::fs::read_dir(root)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()).collect())
}

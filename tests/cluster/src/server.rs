//! The cluster.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::certificates::Authority;
use crate::machine::Machine;
use crate::programs::{Guarded, Programs};
use crate::{janitor, node};

/// How much of Kubernetes runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// etcd and the API server.
    Api,
    /// And the controller manager, the scheduler and simulated nodes.
    Fake,
    /// Instead of simulated nodes: a network, Services, DNS, and [`crate::Node`]s that run images. See [`crate::machine`].
    Real,
}

/// A running cluster.
pub struct Cluster {
    tier: Tier,
    programs: Programs,
    path: PathBuf,
    /// Removes the folder; nothing where somebody else does.
    _folder: Option<janitor::Folder>,
    port: u16,
    etcd: u16,
    running: Mutex<Vec<(String, Guarded)>>,
}

/// What service accounts ask is written down; what the cluster's own programs and the tests ask is not.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ['system:serviceaccounts']}
- {level: None}
";

/// How long a program may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

impl Cluster {
    /// Starts one. `None` where the programs cannot be built.
    ///
    /// # Errors
    /// A program that does not start, with the end of its log.
    pub async fn start(tier: Tier) -> Result<Option<Self>> {
        let mut needed = vec!["etcd", "kube-apiserver", "kubectl"];
        if tier == Tier::Fake {
            needed.extend(["kube-controller-manager", "kube-scheduler", "kwok"]);
        }
        let Some(programs) = Programs::find(&needed)? else { return Ok(None) };
        let folder = janitor::folder()?;
        Ok(Some(Self::on(tier, programs, folder.path.clone(), Some(folder)).await?))
    }

    /// Starts one of tier `Real`, without nodes yet, on the machine whose folder this is.
    ///
    /// # Errors
    /// A program that does not start, with the end of its log.
    pub async fn on_machine(machine: &Machine) -> Result<Self> {
        node::network()?;
        let cluster = Self::on(Tier::Real, machine.programs().clone(), machine.folder().to_owned(), None).await?;
        cluster.start_services().await?;
        Ok(cluster)
    }

    async fn on(tier: Tier, programs: Programs, path: PathBuf, folder: Option<janitor::Folder>) -> Result<Self> {
        // Another provider may have been installed by another test of the same process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (port, etcd) = (free_port()?, free_port()?);
        let cluster = Self { tier, programs, path, _folder: folder, port, etcd, running: Mutex::default() };
        cluster.prepare()?;
        cluster.start_etcd()?;
        cluster.start_api_server().await?;
        if tier != Tier::Api {
            cluster.start_controllers()?;
            // Pods need the account that the controller manager makes in each namespace.
            cluster.until("a service account", || async { cluster.account_exists().await }).await?;
        }
        Ok(cluster)
    }

    /// The address of the API server: pods cannot reach the loopback interface.
    fn address(&self) -> &'static str {
        if self.tier == Tier::Real { node::ADDRESS } else { "127.0.0.1" }
    }

    /// The folder with certificates, kubeconfigs and logs.
    pub fn folder(&self) -> &Path {
        self.path.as_path()
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("admin.kubeconfig")
    }

    /// A program of the cluster.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// A client with all rights.
    ///
    /// # Errors
    /// A kubeconfig that is none.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig()).await
    }

    /// A client with a bearer token, as a pod has it.
    ///
    /// # Errors
    /// A kubeconfig that is none.
    pub fn kubeconfig_with_token(&self, name: &str, token: &str) -> Result<PathBuf> {
        let path = self.file(&format!("{name}.kubeconfig"));
        write_kubeconfig(&path, &self.server(), &std::fs::read_to_string(self.file("ca.crt"))?, &json!({ "token": token }))?;
        Ok(path)
    }

    /// Stops the API server and starts it again: all watches break.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn restart_api_server(&self) -> Result<()> {
        self.stop("kube-apiserver");
        self.start_api_server().await
    }

    /// Runs kubectl as the administrator and returns what it prints on both outputs, and whether it succeeded.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let output = std::process::Command::new(self.program("kubectl"))
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .output()
            .context("kubectl")?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok((output.status.success(), text))
    }

    /// What a user asked of the API server so far, one event of its audit log each.
    ///
    /// # Errors
    /// There is no log.
    pub fn asked_by(&self, user: &str) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.file("audit.log"))?;
        // The last line may be half written.
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.filter(|event| event["user"]["username"] == user).collect())
    }

    /// Makes etcd forget all but the newest version of everything, as the API server itself does every five minutes: who goes on
    /// watching from an older one is told 410 Gone.
    ///
    /// # Errors
    /// etcd says no.
    pub async fn compact(&self) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let ask = async |path: &str, body: Value| {
            let url = format!("http://127.0.0.1:{}/v3/kv/{path}", self.etcd);
            let text = client.post(url).body(body.to_string()).send().await?.error_for_status()?.text().await?;
            anyhow::Ok(serde_json::from_str::<Value>(&text)?)
        };
        let found = ask("range", json!({ "key": base64("\0") })).await?;
        let revision = found["header"]["revision"].as_str().context("a revision")?;
        ask("compaction", json!({ "revision": revision, "physical": true })).await?;
        Ok(())
    }

    /// Where the API server listens.
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.address(), self.port)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.as_path().join(name)
    }

    fn name(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    fn prepare(&self) -> Result<()> {
        let authority = Authority::new(self.path.as_path())?;
        let hosts = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "127.0.0.1",
            "10.96.0.1",
            node::ADDRESS,
        ];
        authority.sign("apiserver", "kube-apiserver", None, &hosts)?;
        authority.account_keys()?;
        std::fs::write(self.file("audit-policy.yaml"), AUDIT_POLICY)?;
        let (certificate, key) = authority.sign("admin", "admin", Some("system:masters"), &[])?;
        let user = json!({ "client-certificate-data": base64(&certificate), "client-key-data": base64(&key) });
        if self.tier == Tier::Real {
            // A kubelet may do what the node authorizer lets a node of its name do, and no more.
            for name in node::NAMES {
                let (certificate, key) = authority.sign(name, &format!("system:node:{name}"), Some("system:nodes"), &[])?;
                let user = json!({ "client-certificate-data": base64(&certificate), "client-key-data": base64(&key) });
                write_kubeconfig(&self.file(&format!("{name}.kubeconfig")), &self.server(), &authority.pem, &user)?;
            }
        }
        write_kubeconfig(&self.kubeconfig(), &self.server(), &authority.pem, &user)
    }

    fn run(&self, name: &str, arguments: &[String]) -> Result<()> {
        self.run_as(name, name, arguments)
    }

    /// Runs a program under a name of its own, that of its log.
    pub(crate) fn run_as(&self, name: &str, program: &str, arguments: &[String]) -> Result<()> {
        let log = self.file(&format!("{name}.log"));
        // The programs find each other.
        let inherited = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{inherited}", self.programs.folder().display());
        let process = Guarded::start(&self.programs.path(program), arguments, &[("PATH", path)], &log)?;
        if let Ok(mut running) = self.running.lock() {
            running.push((name.to_owned(), process));
        }
        Ok(())
    }

    fn stop(&self, name: &str) {
        if let Ok(mut running) = self.running.lock() {
            running.retain(|(other, _)| other != name);
        }
    }

    fn start_etcd(&self) -> Result<()> {
        let client = format!("http://127.0.0.1:{}", self.etcd);
        let peer = format!("http://127.0.0.1:{}", free_port()?);
        self.run(
            "etcd",
            &[
                format!("--data-dir={}", self.name("etcd")),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=error".to_owned(),
            ],
        )
    }

    async fn start_api_server(&self) -> Result<()> {
        let file = |name| self.name(name);
        let address = self.address();
        let of_the_tier = if self.tier == Tier::Real {
            vec![
                "--authorization-mode=Node,RBAC".to_owned(),
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement,NodeRestriction".to_owned(),
                // The names of nodes are in no DNS.
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
                format!("--kubelet-client-certificate={}", file("admin.crt")),
                format!("--kubelet-client-key={}", file("admin.key")),
            ]
        } else {
            vec![
                "--authorization-mode=RBAC".to_owned(),
                // 127.0.0.1 is no address for the Endpoints of the Service `kubernetes`; nothing here uses that Service.
                "--endpoint-reconciler-type=none".to_owned(),
                // Without a controller manager no namespace has an account, and pods would be refused.
                "--disable-admission-plugins=ServiceAccount".to_owned(),
                // As strict as OpenShift: an owner reference is a right of its own.
                "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".to_owned(),
            ]
        };
        let common = [
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd),
            format!("--bind-address={address}"),
            format!("--advertise-address={address}"),
            format!("--secure-port={}", self.port),
            format!("--tls-cert-file={}", file("apiserver.crt")),
            format!("--tls-private-key-file={}", file("apiserver.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--audit-policy-file={}", file("audit-policy.yaml")),
            format!("--audit-log-path={}", file("audit.log")),
            // Megabytes before a new file is begun: one file is easier to read.
            "--audit-log-maxsize=100000".to_owned(),
            // The defaults, 400 and 200, make a large test wait for itself.
            "--max-requests-inflight=3000".to_owned(),
            "--max-mutating-requests-inflight=1500".to_owned(),
            "--profiling=false".to_owned(),
            "--watch-cache=true".to_owned(),
        ];
        self.run("kube-apiserver", &[&common[..], &of_the_tier].concat())?;
        self.until("the API server", || async {
            let client = self.client().await?;
            let request = axum::http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await.is_ok_and(|text| text == "ok"))
        })
        .await
    }

    fn start_controllers(&self) -> Result<()> {
        let admin = self.kubeconfig().display().to_string();
        let common = |port: u16| {
            vec![
                format!("--kubeconfig={admin}"),
                format!("--authentication-kubeconfig={admin}"),
                format!("--authorization-kubeconfig={admin}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                "--leader-elect=false".to_owned(),
                // The defaults, 20 and 30, make a large test wait for minutes.
                "--kube-api-qps=1000".to_owned(),
                "--kube-api-burst=2000".to_owned(),
            ]
        };
        let mut manager = common(free_port()?);
        manager.extend([
            "--use-service-account-credentials=false".to_owned(),
            format!("--root-ca-file={}", self.name("ca.crt")),
            format!("--service-account-private-key-file={}", self.name("sa.key")),
        ]);
        self.run("kube-controller-manager", &manager)?;
        self.run("kube-scheduler", &common(free_port()?))?;
        if self.tier == Tier::Real {
            return Ok(());
        }
        self.run(
            "kwok",
            &[
                format!("--kubeconfig={admin}"),
                format!("--config={}", crate::package().join("kwok.yaml").display()),
                "--manage-all-nodes=false".to_owned(),
                "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake".to_owned(),
                "--cidr=10.1.0.0/16".to_owned(),
                "--node-lease-duration-seconds=40".to_owned(),
                format!("--server-address=127.0.0.1:{}", free_port()?),
            ],
        )
    }

    async fn account_exists(&self) -> Result<bool> {
        let api: kube::Api<k8s_openapi::api::core::v1::ServiceAccount> = kube::Api::namespaced(self.client().await?, "default");
        Ok(api.get_opt("default").await?.is_some())
    }

    pub(crate) async fn until<F: Future<Output = Result<bool>>>(&self, what: &str, check: impl Fn() -> F) -> Result<()> {
        let began = std::time::Instant::now();
        while began.elapsed() < PATIENCE {
            if matches!(tokio::time::timeout(Duration::from_secs(5), check()).await, Ok(Ok(true))) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut ends = String::new();
        let names: Vec<_> =
            self.running.lock().map(|all| all.iter().map(|(name, _)| name.clone()).collect()).unwrap_or_default();
        for name in names {
            let log = std::fs::read_to_string(self.file(&format!("{name}.log"))).unwrap_or_default();
            let end: Vec<_> = log.lines().rev().take(8).collect();
            ends.push_str(&["\n", &name, ":\n", &end.into_iter().rev().collect::<Vec<_>>().join("\n")].concat());
        }
        bail!("no {what} after {} seconds{ends}", PATIENCE.as_secs())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Clients of the API server first, so that they do not fill their logs.
        if let Ok(mut running) = self.running.lock() {
            while running.pop().is_some() {}
        }
    }
}

/// A client from a kubeconfig.
///
/// # Errors
/// A kubeconfig that is none.
pub async fn client(path: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn write_kubeconfig(path: &Path, server: &str, authority: &str, user: &Value) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": { "server": server, "certificate-authority-data": base64(authority) } }],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "user" } }],
        "current-context": "test",
    });
    Ok(std::fs::write(path, serde_yaml_ng::to_string(&config)?)?)
}

fn base64(text: &str) -> String {
    // A Secret's data is base64: Kubernetes' own type does it.
    serde_json::to_value(k8s_openapi::ByteString(text.as_bytes().to_vec()))
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// A port that nobody listens on.
///
/// # Errors
/// None is left.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

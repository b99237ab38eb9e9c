//! Tier `api`: a prover pod lets in who has a token of an allowed service account, and a real API server says whose it is.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cluster::objects::namespace;
use cluster::wait::until;
use cluster::{Cluster, Tier, binary};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use support::cluster;

const NAMESPACE: &str = "trust";
const AUDIENCE: &str = "upgrader-fleet.dev/provers";
const REVIEWER: &str = "system:serviceaccount:trust:prod";

struct Pod(Child);

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A prover pod as the operator starts it, with another address of the API server.
async fn start(cluster: &Cluster, folder: &Path, believed: &str) -> Result<(Pod, String)> {
    let port_file = folder.join(format!("port-{believed}"));
    let child = Command::new(binary("prover-pod")?)
        .args(["serve", "--listen=127.0.0.1:0", "--network=regtest", "--backend=mock"])
        .arg(format!("--port-file={}", port_file.display()))
        .arg(format!("--token-file={}", folder.join("tokens").display()))
        .arg(format!("--kube-dir={}", folder.display()))
        .arg(format!("--kube-api={}", cluster.server()))
        .arg(format!("--token-audience={AUDIENCE}"))
        .args(["--allow-service-account=trust:caller", "--allow-service-account=elsewhere:caller"])
        .arg(format!("--token-review-seconds={believed}"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join(format!("log-{believed}")))?)
        .spawn()?;
    let pod = Pod(child);
    until("a port", Duration::from_secs(30), || async { Ok(if port_file.exists() { Ok(()) } else { Err("none".to_owned()) }) })
        .await?;
    let port = std::fs::read_to_string(&port_file)?;
    Ok((pod, format!("http://127.0.0.1:{}/v1/capacity", port.trim())))
}

async fn ask(url: &str, token: Option<&str>) -> Result<(u16, Value)> {
    let request = reqwest::Client::builder().no_proxy().build()?.get(url);
    let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
    let response = request.send().await?;
    Ok((response.status().as_u16(), response.json().await?))
}

struct Accounts(Api<ServiceAccount>);

impl Accounts {
    async fn make(&self, name: &str) -> Result<()> {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        self.0.create(&PostParams::default(), &ServiceAccount { metadata, ..ServiceAccount::default() }).await?;
        Ok(())
    }

    /// As the kubelet asks for it, to project it into a pod.
    async fn token(&self, name: &str, audience: Option<&str>) -> Result<String> {
        let spec = TokenRequestSpec {
            audiences: audience.map(|audience| vec![audience.to_owned()]),
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let issued = self.0.create_token_request(name, &PostParams::default(), &request).await?;
        issued.status.and_then(|status| status.token).context("a token")
    }
}

/// What the chart grants with `tokenReview.namespaces: [trust]`.
async fn grant(client: &Client) -> Result<()> {
    let file: Value = serde_yaml_ng::from_str(include_str!("../../../charts/upgrader-fleet/files/rbac.yaml"))?;
    let role = json!({ "metadata": { "name": "token-reviewer" }, "rules": file["reviewers"] });
    Api::<ClusterRole>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(role)?).await?;
    let binding = json!({
        "metadata": { "name": "token-reviewer" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "token-reviewer" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts:trust" }],
    });
    Api::<ClusterRoleBinding>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    Ok(())
}

fn reviews(cluster: &Cluster) -> Result<usize> {
    let asked = cluster.asked_by(REVIEWER)?;
    Ok(asked.iter().filter(|event| event.pointer("/objectRef/resource") == Some(&json!("tokenreviews"))).count())
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_allowed_accounts_open_a_pod_and_no_others() -> Result<()> {
    let Some(cluster) = cluster(Tier::Api).await else { return Ok(()) };
    let client = cluster.client().await?;
    namespace(&client, NAMESPACE).await?;
    let accounts = Accounts(Api::namespaced(client.clone(), NAMESPACE));
    for name in ["prod", "caller", "stranger"] {
        accounts.make(name).await?;
    }
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("tokens"), "the-fleets-own\n")?;
    std::fs::write(folder.path().join("token"), accounts.token("prod", None).await?)?;
    std::fs::copy(cluster.folder().join("ca.crt"), folder.path().join("ca.crt"))?;
    let (_pod, url) = start(cluster, folder.path(), "60").await?;
    let caller = accounts.token("caller", Some(AUDIENCE)).await?;

    // Before the chart's right is there, nobody can tell; the fleet's token works all the same.
    assert_eq!(ask(&url, Some("the-fleets-own")).await?.0, 200);
    let (status, problem) = ask(&url, Some(&caller)).await?;
    ensure!(status == 503 && problem["type"].as_str().is_some_and(|kind| kind.ends_with("token-unchecked")), "{problem}");
    grant(&client).await?;
    until("the right", Duration::from_secs(30), || async {
        let (status, problem) = ask(&url, Some(&caller)).await?;
        Ok(if status == 200 { Ok(()) } else { Err(problem.to_string()) })
    })
    .await?;

    // One question for many requests.
    let before = reviews(cluster)?;
    for _ in 0..20 {
        assert_eq!(ask(&url, Some(&caller)).await?.0, 200);
    }
    assert_eq!(reviews(cluster)?, before, "each request asks the API server");

    let stranger = accounts.token("stranger", Some(AUDIENCE)).await?;
    let for_the_server = accounts.token("caller", None).await?;
    let mut forged = caller.clone();
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    for (what, token) in [
        ("another account's", stranger.as_str()),
        ("for another audience", &for_the_server),
        ("with a wrong signature", &forged),
        ("rubbish", "a.b.c"),
        ("not even a token", "the-fleets-own-not"),
    ] {
        let (status, problem) = ask(&url, Some(token)).await?;
        ensure!(status == 401, "{what}: {status} {problem}");
    }
    assert_eq!(ask(&url, None).await?.0, 401);
    // A refusal is remembered, too.
    let before = reviews(cluster)?;
    assert_eq!(ask(&url, Some(&stranger)).await?.0, 401);
    assert_eq!(reviews(cluster)?, before);

    // An account that is gone: its token works as long as an answer is believed, and no longer.
    let (_short, url) = start(cluster, folder.path(), "2").await?;
    assert_eq!(ask(&url, Some(&caller)).await?.0, 200);
    accounts.0.delete("caller", &DeleteParams::default()).await?;
    until("the end of the token", Duration::from_secs(30), || async {
        let (status, _) = ask(&url, Some(&caller)).await?;
        Ok(if status == 401 { Ok(()) } else { Err(status.to_string()) })
    })
    .await?;
    let log = std::fs::read_to_string(folder.path().join("log-60"))?;
    ensure!(log.contains("cannot be checked") && !log.contains(&caller) && !log.contains("the-fleets-own"), "{log}");
    Ok(())
}

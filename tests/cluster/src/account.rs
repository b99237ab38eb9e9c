//! A service account with the rights that the chart gives to the operator.

use std::path::PathBuf;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::server::Cluster;

/// The account's name, and that of its role.
pub const NAME: &str = "operator";

/// Where the account's rights hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In its own namespace.
    Namespace,
    /// In all.
    Cluster,
}

/// The rules as the chart has them, of fleets and of the operator's own namespace.
///
/// # Errors
/// The chart's file is not what it was.
pub fn rules() -> Result<Vec<Value>> {
    let file: Value = serde_yaml_ng::from_str(include_str!("../../../charts/upgrader-fleet/files/rbac.yaml"))?;
    let of = |part: &str| file[part].as_array().cloned().context("rules");
    Ok([of("fleets")?, of("own")?].concat())
}

/// Gives the account these rights.
///
/// # Errors
/// What the server says.
pub async fn grant(client: &Client, namespace: &str, scope: Scope, rules: &[Value]) -> Result<()> {
    let body = |kind: &str| json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": { "name": NAME }, "rules": rules });
    let parameters = PatchParams::apply("test").force();
    match scope {
        Scope::Namespace => {
            let roles: Api<Role> = Api::namespaced(client.clone(), namespace);
            roles.patch(NAME, &parameters, &Patch::Apply(body("Role"))).await?;
        }
        Scope::Cluster => {
            let roles: Api<ClusterRole> = Api::all(client.clone());
            roles.patch(NAME, &parameters, &Patch::Apply(body("ClusterRole"))).await?;
        }
    }
    Ok(())
}

/// Makes the account with these rights and returns its kubeconfig.
///
/// # Errors
/// What the server says.
pub async fn make(cluster: &Cluster, client: &Client, namespace: &str, scope: Scope, rules: &[Value]) -> Result<PathBuf> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    accounts.create(&PostParams::default(), &account).await?;
    grant(client, namespace, scope, rules).await?;
    let binding = |kind: &str| {
        json!({
            "metadata": { "name": NAME },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": NAME },
            "subjects": [{ "kind": "ServiceAccount", "name": NAME, "namespace": namespace }],
        })
    };
    let new = PostParams::default();
    match scope {
        Scope::Namespace => {
            let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
            bindings.create(&new, &serde_json::from_value(binding("Role"))?).await?;
        }
        Scope::Cluster => {
            let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
            bindings.create(&new, &serde_json::from_value(binding("ClusterRole"))?).await?;
        }
    }
    let request = TokenRequest {
        spec: Some(TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() }),
        ..TokenRequest::default()
    };
    let issued = accounts.create_token_request(NAME, &PostParams::default(), &request).await?;
    let token = issued.status.and_then(|status| status.token).context("a token")?;
    cluster.kubeconfig_with_token(namespace, &token)
}

/// The user that the API server sees.
pub fn user(namespace: &str) -> String {
    format!("system:serviceaccount:{namespace}:{NAME}")
}

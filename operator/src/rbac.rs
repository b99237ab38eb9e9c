//! What the operator may do, in one table. The role in the chart is generated from it, and a test on a real API server checks
//! that nothing else is asked for and nothing granted in vain.

use serde_json::{Value, json};

use crate::kinds::Kind;

/// One grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// API group; empty for the core.
    pub group: &'static str,
    /// Resource, or resource/subresource.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Why.
    pub why: &'static str,
}

/// For objects that the operator owns: `patch` is server-side apply, which also creates.
const OWNED: &[&str] = &["create", "delete", "list", "patch", "watch"];

/// In the namespaces of fleets.
pub fn fleet_grants() -> Vec<Grant> {
    let mut grants = vec![
        Grant {
            group: "upgrader-fleet.dev",
            resource: "upgraderfleets",
            verbs: &["list", "watch"],
            why: "the specification; the operator never changes it",
        },
        Grant { group: "upgrader-fleet.dev", resource: "upgraderfleets/status", verbs: &["patch"], why: "what it saw" },
        Grant {
            group: "",
            resource: "pods",
            verbs: &["list", "patch", "watch"],
            why: "readiness; which prover goes first on scale-down",
        },
        Grant { group: "events.k8s.io", resource: "events", verbs: &["create", "patch"], why: "transitions" },
    ];
    grants.extend(Kind::ALL.iter().map(|kind| Grant {
        group: kind.group(),
        resource: kind.plural(),
        verbs: match kind {
            Kind::Secret => &["create", "get", "patch"],
            // Each fleet has one as long as it lives: the garbage collector takes it.
            Kind::ServiceAccount => &["create", "list", "patch", "watch"],
            _ => OWNED,
        },
        why: if *kind == Kind::Secret { "the provers' token, by name; never a list" } else { "objects of a fleet" },
    }));
    grants
}

/// In the operator's own namespace.
pub const OWN_GRANTS: &[Grant] =
    &[Grant { group: "coordination.k8s.io", resource: "leases", verbs: &["create", "get", "update"], why: "leader election" }];

/// Of the fleets' prover pods, in the namespaces that the chart's `tokenReview.namespaces` names. TokenReviews belong to no
/// namespace, so this takes a ClusterRole; the operator itself can not give it to anybody.
pub const REVIEWER_GRANTS: &[Grant] = &[Grant {
    group: "authentication.k8s.io",
    resource: "tokenreviews",
    verbs: &["create"],
    why: "whose a service account's token is",
}];

/// Rules of a role.
pub fn rules(grants: &[Grant]) -> Value {
    let rule = |grant: &Grant| json!({ "apiGroups": [grant.group], "resources": [grant.resource], "verbs": grant.verbs });
    Value::Array(grants.iter().map(rule).collect())
}

//! Where clients that want the same proof at the same time agree to send it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body and answer of `PUT /v1/proofs/{id}/destination`: the pod that a new job is sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Destination {
    /// Base URL of the pod: the caller's choice; in the answer the one that counts, which is that of whoever came first.
    #[schema(max_length = 256, example = "http://10.1.7.3:8080")]
    pub pod: String,
    /// An earlier answer that is of no use to the caller, because that pod refused the job or the caller does not know it: if it
    /// still counts, the caller's choice takes its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    pub instead_of: Option<String>,
}

impl Destination {
    /// Longest name of a pod in bytes.
    pub const MAX_POD_BYTES: usize = 256;

    /// Whether the names are ones that a client can have: visible ASCII characters, and not too many.
    pub fn is_sound(&self) -> bool {
        let sound = |pod: &str| {
            (1..=Self::MAX_POD_BYTES).contains(&pod.len()) && pod.bytes().all(|character| character.is_ascii_graphic())
        };
        sound(&self.pod) && self.instead_of.as_deref().is_none_or(sound)
    }
}

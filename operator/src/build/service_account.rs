//! The identity of the fleet's pods.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{BuildError, Fleet, Object, object};
use crate::kinds::Kind;

/// A ServiceAccount without rights and without a mounted token.
pub fn service_account(fleet: &Fleet<'_>) -> Result<Object, BuildError> {
    let account = ServiceAccount {
        metadata: fleet.meta(&fleet.service_account(), []),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    object(Kind::ServiceAccount, &account)
}

//! The Grafana dashboard of one fleet, as a ConfigMap that Grafana's sidecar picks up.

use k8s_openapi::api::core::v1::ConfigMap;

use super::{BuildError, Fleet, Object, object};
use crate::kinds::Kind;

/// The dashboard over all fleets; the chart has the same file.
pub const FLEET_DASHBOARD: &str = include_str!("../../dashboards/fleet.json");

/// The ConfigMap.
pub fn dashboard(fleet: &Fleet<'_>) -> Result<Option<Object>, BuildError> {
    let switch = &fleet.resource.spec.monitoring.dashboard;
    if !switch.enabled {
        return Ok(None);
    }
    let mut metadata = fleet.meta(&format!("{}-dashboard", fleet.name), [("grafana_dashboard", "1".to_owned())]);
    metadata.labels.get_or_insert_default().extend(switch.labels.clone());
    // Grafana tells dashboards apart by uid and shows titles.
    let body = FLEET_DASHBOARD
        .replace("upgrader-fleet-overview", &format!("uf-{}", super::hash(&fleet.resource.metadata.uid.clone().into())))
        .replace("Upgrader Fleet / Fleets", &format!("Upgrader Fleet / {}/{}", fleet.namespace, fleet.name));
    let data = [(format!("{}.json", fleet.name), body)].into();
    object(Kind::ConfigMap, &ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }).map(Some)
}

//! Services: how upgraders find provers, and Prometheus all of them.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{BuildError, COMPONENT_LABEL, Fleet, Object, PROVER_PORT, UPGRADER_PORT, object};
use crate::kinds::Kind;

/// A headless Service over the prover pods, whose addresses clients choose among by themselves, and one over the
/// upgraders, for Prometheus.
pub fn services(fleet: &Fleet<'_>) -> Result<Vec<Object>, BuildError> {
    let mut provers = headless(fleet, "provers", "prover", PROVER_PORT);
    // With those that are not ready: a pod that drains still has the proofs which it makes, and who asks for one must find it there.
    // Clients see from a pod's capacity whether it takes new jobs.
    provers.spec.get_or_insert_default().publish_not_ready_addresses = Some(true);
    let upgraders = headless(fleet, "upgraders", "upgrader", UPGRADER_PORT);
    [provers, upgraders].iter().map(|service| object(Kind::Service, service)).collect()
}

fn headless(fleet: &Fleet<'_>, suffix: &str, component: &str, port: i32) -> Service {
    Service {
        metadata: fleet.meta(&format!("{}-{suffix}", fleet.name), [(COMPONENT_LABEL, component.to_owned())]),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            selector: Some(fleet.selector(component)),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

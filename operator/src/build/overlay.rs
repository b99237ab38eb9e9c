//! Changes to pods that a person writes into the fleet.

use std::collections::BTreeMap;

use fleet_api::v1alpha1::PodOverlay;
use k8s_openapi::DeepMerge;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};

/// Not part of a pod's specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec is no part of a pod's specification: {0}")]
pub struct InvalidPodTemplate(String);

/// Merges the overlay over the template. Labels that are there already stay: selectors rely on them.
pub fn overlay(template: &mut PodTemplateSpec, overlay: Option<&PodOverlay>) -> Result<(), InvalidPodTemplate> {
    let Some(overlay) = overlay else { return Ok(()) };
    let meta = template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    for (key, value) in &overlay.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    meta.annotations.get_or_insert_with(BTreeMap::new).extend(overlay.annotations.clone());
    if let Some(spec) = &overlay.spec {
        // A pod has at least one container; an overlay need not name any.
        let mut spec = spec.clone();
        if let Some(map) = spec.as_object_mut() {
            map.entry("containers").or_insert_with(|| serde_json::Value::Array(Vec::new()));
        }
        let changes: PodSpec = serde_json::from_value(spec).map_err(|error| InvalidPodTemplate(error.to_string()))?;
        template.spec.get_or_insert_default().merge_from(changes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;
    use serde_json::json;

    use super::*;

    fn template() -> PodTemplateSpec {
        let main = Container { name: "main".to_owned(), image: Some("image:1".to_owned()), ..Container::default() };
        let mut template = PodTemplateSpec {
            spec: Some(PodSpec { containers: vec![main], ..PodSpec::default() }),
            ..PodTemplateSpec::default()
        };
        template.metadata.get_or_insert_default().labels = Some([("kept".to_owned(), "ours".to_owned())].into());
        template
    }

    #[test]
    fn containers_are_merged_by_name_and_our_labels_stay() {
        let mut pod = template();
        let changes = PodOverlay {
            labels: [("kept".to_owned(), "theirs".to_owned()), ("more".to_owned(), "yes".to_owned())].into(),
            annotations: [("note".to_owned(), "x".to_owned())].into(),
            spec: Some(
                json!({ "containers": [{ "name": "main", "env": [{ "name": "A", "value": "1" }] }, { "name": "side" }] }),
            ),
        };
        overlay(&mut pod, Some(&changes)).expect("a pod");
        let labels = pod.metadata.as_ref().and_then(|meta| meta.labels.clone()).expect("labels");
        assert_eq!((labels["kept"].as_str(), labels["more"].as_str()), ("ours", "yes"));
        let containers = pod.spec.expect("a specification").containers;
        assert_eq!((containers.len(), containers[0].image.as_deref()), (2, Some("image:1")));
        assert_eq!(containers[0].env.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        let changes = PodOverlay { spec: Some(json!({ "containers": "many" })), ..PodOverlay::default() };
        assert!(overlay(&mut template(), Some(&changes)).is_err());
    }
}

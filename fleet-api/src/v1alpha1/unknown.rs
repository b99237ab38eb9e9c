//! Fields that the definition does not have. `kubectl apply` refuses them; serde would pass over them in silence, and a misspelt
//! `shard: 4` would be a fleet of one.

use kube::CustomResourceExt;
use serde_json::Value;

use super::UpgraderFleet;

/// What any resource has beside what its definition says.
const OF_ANY_RESOURCE: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

impl UpgraderFleet {
    /// Paths of the fields in a manifest that the definition of this resource does not know, such as `spec.upgraders.shard`.
    pub fn unknown_fields(manifest: &Value) -> Vec<String> {
        let mut found = Vec::new();
        for name in manifest.as_object().into_iter().flat_map(|fields| fields.keys()) {
            if !OF_ANY_RESOURCE.contains(&name.as_str()) {
                found.push(name.clone());
            }
        }
        let definition = serde_json::to_value(Self::crd()).unwrap_or_default();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        look(schema, &manifest["spec"], "spec", &mut found);
        found
    }
}

fn look(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    match value {
        Value::Object(fields) => {
            let others = &schema["additionalProperties"];
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match schema["properties"].get(name) {
                    Some(known) => look(known, value, &path, found),
                    None if others.is_object() => look(others, value, &path, found),
                    None if *others == true => {}
                    None => found.push(path),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                look(&schema["items"], item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_definition_does_not_know_is_found_wherever_it_is() {
        let manifest = json!({
            "apiVersion": "upgrader-fleet.dev/v1alpha1", "kind": "UpgraderFleet", "metadata": { "name": "a", "labels": { "b": "c" } },
            "sepc": {},
            "spec": {
                "network": "main",
                "node": { "urls": ["http://n:1"], "url": "http://n:1" },
                "upgraders": {
                    "shard": 4,
                    "scheduling": {
                        "nodeSelector": { "any": "thing" },
                        "tolerations": [{ "key": "a", "operater": "Exists" }],
                    },
                    "resources": { "limits": { "example.com/anything": 1 }, "limit": {} },
                    "podTemplate": { "spec": { "anything": { "at": "all" } } },
                },
                "additionalProvers": [{ "name": "a", "template": { "replica": 1 } }],
            },
        });
        let expected = [
            "sepc",
            "spec.additionalProvers[0].template.replica",
            "spec.node.url",
            "spec.upgraders.resources.limit",
            "spec.upgraders.scheduling.tolerations[0].operater",
            "spec.upgraders.shard",
        ];
        let mut found = UpgraderFleet::unknown_fields(&manifest);
        found.sort();
        assert_eq!(found, expected);
    }
}

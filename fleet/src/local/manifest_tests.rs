//! Good manifests, and bad ones with what each is told.

use super::*;

const SMALL: &str = "\
apiVersion: upgrader-fleet.dev/v1alpha1
kind: UpgraderFleet
metadata: {name: main}
spec:
  network: main
  node: {urls: [\"http://neptune-core:9797\"]}
";

fn refused(text: &str) -> String {
    parse("fleet.yaml", text).expect_err(text).to_string()
}

#[test]
fn the_manifest_of_the_readme_is_understood() {
    let text = format!("{SMALL}  upgraders: {{shards: 4}}\n  provers: {{replicas: 2}}\n");
    let manifest = parse("fleet.yaml", &text).expect("is a fleet");
    assert_eq!(manifest.fleet.metadata.name.as_deref(), Some("main"));
    assert_eq!((manifest.fleet.spec.upgraders.shards, manifest.fleet.spec.provers.replicas), (Some(4), 2));
    assert!(manifest.others.is_empty());
}

#[test]
fn what_else_kubectl_would_apply_is_left_to_kubectl() {
    let text = format!("---\n# a comment\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: a}}\n---\n{SMALL}---\n");
    let manifest = parse("fleet.yaml", &text).expect("is a fleet");
    assert_eq!(manifest.others, ["Namespace"]);
}

/// What is added to [`SMALL`] and what is said then.
#[test]
fn bad_manifests_are_told_the_field_and_what_is_wrong() {
    for (more, message) in [
        ("  upgraders: {shard: 4}\n", "spec.upgraders.shard: no such field"),
        ("  upgraders: {shards: 0}\n", "spec.upgraders.shards: 0 shards: not from 1 to 128"),
        ("  upgraders: {shards: four}\n", "spec.upgraders.shards: invalid type: string \"four\", expected i32 at line 7"),
        ("  upgraders: {shards: 2, classes: [\"1:0\"]}\n", "spec.upgraders: shards and classes exclude each other"),
        (
            "  upgraders: {classes: [\"2:0\", \"4:1\"]}\n",
            "spec.upgraders.classes: classes leave out 64 of 256 values of a transaction id's last byte, the first of them 3",
        ),
        ("  upgraders: {classes: [\"2:0\", \"4:0\", \"4:2\"]}\n", "spec.upgraders.classes: classes 2:0 and 4:0 overlap"),
        ("  upgraders: {classes: [\"3:0\"]}\n", "divisor 3 is not one of 1, 2, 4, 8, 16, 32, 64, 128 at line 7"),
        ("  upgraders: {gobbling: {fraction: 1.5}}\n", "spec.upgraders.gobbling.fraction: 1.5 is not a fraction from 0 to 1"),
        ("  upgraders: {gobbling: {minFee: much}}\n", "spec.upgraders.gobbling.minFee: not a decimal number of coins"),
        ("  upgraders: {receivingAddress: \"\"}\n", "spec.upgraders.receivingAddress: 0 characters: not from 1 to 8192"),
        ("  upgraders: {mode: Node}\n", "spec: upgraders.mode Node needs node.deploy"),
        ("  provers: {backend: Mock}\n", "spec.provers.backend: backend Mock is for networks regtest and testnet-mock only"),
        ("  provers: {backend: Cpu, gpu: {count: 1}}\n", "spec.provers: gpu is for backend Gpu only"),
        ("  provers: {gpu: {count: 17}}\n", "spec.provers.gpu.count: 17 GPUs: not from 1 to 16"),
        ("  provers: {autoscaling: {min: 3, max: 2}}\n", "spec.provers.autoscaling.min: min is not larger than max"),
        ("  provers: {replicas: -1}\n", "spec.provers.replicas: -1 pods: not from 0 to 1000"),
        (
            "  additionalProvers: [{name: default, template: {}}]\n",
            "spec.additionalProvers[0].name: a name is unique, not default",
        ),
    ] {
        let said = refused(&format!("{SMALL}{more}"));
        assert!(said.starts_with("fleet.yaml") && said.contains(message), "{more}expected: {message}\nsaid: {said}");
    }
}

#[test]
fn what_is_no_manifest_of_a_fleet_is_told_so() {
    let with = |from: &str, to: &str| SMALL.replace(from, to);
    for (text, message) in [
        (String::new(), "no document of kind UpgraderFleet; it is empty"),
        ("kind: Deployment\n---\nkind: Secret\n".to_owned(), "no document of kind UpgraderFleet; found: Deployment, Secret"),
        ("a: 1\n".to_owned(), "found: a document without a kind"),
        (format!("{SMALL}---\n{}", with("name: main", "name: second")), "2 fleets (main, second); fleet local runs one"),
        (with("v1alpha1", "v2"), "apiVersion is \"upgrader-fleet.dev/v2\"; this program knows upgrader-fleet.dev/v1alpha1"),
        (with("{name: main}", "{}"), "metadata.name: a fleet has a name"),
        (with("name: main", &format!("name: {}", "x".repeat(37))), "metadata.name: the name of a fleet has at most 36"),
        (with("network: main", "network: moon"), "spec.network: unknown variant `moon`"),
        (with("  network: main\n", ""), "spec: missing field `network`"),
        (with("http://neptune-core:9797", "neptune-core:9797"), "spec.node.urls[0]: not an http:// or https:// address"),
        (with("urls: [\"http://neptune-core:9797\"]", ""), "spec.node: exactly one of urls and deploy is set"),
        (with("{urls: [\"http://neptune-core:9797\"]}", "{urls: [\"http://a:1\"}"), "fleet.yaml: not YAML: "),
        (with("network: main", "network: xnt"), "network xnt needs upgraders.mode Node"),
    ] {
        let said = refused(&text);
        assert!(said.contains(message), "{text}expected: {message}\nsaid: {said}");
    }
    let said = refused(&with("{urls: [\"http://neptune-core:9797\"]}", "{urls: [\"http://a:1\"}"));
    assert!(said.contains("line 6"), "{said}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let said = refused(&format!("{SMALL}  upgraders: {{shards: 0, maxSurge: 0}}\n  suspended: true\n"));
    assert_eq!(said.lines().count(), 4, "{said}");
    let said = refused(&SMALL.replace("network: main", "netwerk: main"));
    assert!(said.contains("missing field `network`") && said.contains("spec.netwerk: no such field"), "{said}");
}

#[test]
fn files_are_read_and_what_is_too_large_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fleet.yaml");
    assert!(read(&path).expect_err("is missing").to_string().contains("cannot read"));
    std::fs::write(&path, SMALL).expect("writes");
    assert_eq!(read(&path).expect("is there").1, SMALL);
    std::fs::write(&path, vec![b' '; MAX_BYTES as usize + 1]).expect("writes");
    assert!(matches!(read(&path), Err(ManifestError::TooLarge(_))));
}

//! The resource: its defaults, its rules in CEL and the same rules in Rust.

use fleet_api::v1alpha1::{Backend, Network, UpgraderMode};
use fleet_api::{UpgraderFleet, UpgraderFleetSpec};
use kube::CustomResourceExt;
use serde_json::{Value, json};

/// A resource as it is after the API server has filled in the defaults: serde does the same.
fn fleet(spec: Value) -> UpgraderFleet {
    let spec: UpgraderFleetSpec = serde_json::from_value(spec).expect("a specification");
    let mut fleet = UpgraderFleet::new("fleet", spec);
    fleet.metadata.namespace = Some("default".to_owned());
    fleet
}

fn standalone(upgraders: &Value) -> UpgraderFleet {
    fleet(json!({ "network": "main", "node": { "urls": ["http://node:9797"] }, "upgraders": upgraders }))
}

fn cel(fleet: &UpgraderFleet) -> String {
    fleet.validate_cel().err().map(|errors| errors.to_string()).unwrap_or_default()
}

fn own(fleet: &UpgraderFleet) -> String {
    fleet.violations().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_smallest_manifest_has_the_documented_defaults() {
    let fleet = fleet(json!({ "network": "main", "node": { "urls": ["http://node:9797"] } }));
    assert_eq!((cel(&fleet), own(&fleet)), (String::new(), String::new()));
    let spec = &fleet.spec;
    assert_eq!(spec.shards().expect("in range").iter().map(ToString::to_string).collect::<Vec<_>>(), ["1:0"]);
    assert_eq!((spec.upgraders.mode, spec.upgraders.gobbling.fraction), (UpgraderMode::Standalone, 0.6));
    assert_eq!((spec.upgraders.gobbling.min_fee.as_str(), spec.upgraders.max_num_proofs), ("0.01", 16));
    assert_eq!((spec.provers.replicas, spec.provers.effective_backend(Network::Main)), (1, Backend::Gpu));
    assert_eq!(spec.provers.effective_backend(Network::Regtest), Backend::Mock);
    assert!(spec.upgraders.failover.enabled && !spec.suspend && !spec.monitoring.rules.enabled);
}

/// `Default` in Rust, the defaults of serde and those in the definition are the same.
#[test]
fn all_defaults_agree() {
    use fleet_api::v1alpha1::{Gpu, Monitoring, NetworkPolicies, ProverSpec, UpgradersSpec};
    let empty = || json!({});
    assert_eq!(serde_json::from_value::<UpgradersSpec>(empty()).ok(), Some(UpgradersSpec::default()));
    assert_eq!(serde_json::from_value::<ProverSpec>(empty()).ok(), Some(ProverSpec::default()));
    assert_eq!(serde_json::from_value::<Monitoring>(empty()).ok(), Some(Monitoring::default()));
    assert_eq!(serde_json::from_value::<NetworkPolicies>(empty()).ok(), Some(NetworkPolicies::default()));
    assert_eq!(serde_json::from_value::<Gpu>(json!({ "count": 1 })).ok(), Some(Gpu::default()));

    let crd = serde_json::to_value(UpgraderFleet::crd()).expect("JSON");
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert_eq!(spec["upgraders"]["default"], serde_json::to_value(UpgradersSpec::default()).expect("JSON"));
    assert_eq!(spec["provers"]["default"], serde_json::to_value(ProverSpec::default()).expect("JSON"));
}

#[test]
fn accounts_are_names_with_or_without_a_namespace() {
    let with = |account: &str| {
        let node = json!({ "urls": ["http://node:9797"] });
        own(&fleet(json!({ "network": "main", "node": node, "allowedServiceAccounts": [account] })))
    };
    for good in ["wallet", "tenant-a/wallet.v2", "a/b"] {
        assert_eq!(with(good), "", "{good}");
    }
    for bad in ["", "/", "a/", "/a", "a:b", "a/b/c", "A", "*", "-a", "a.b/c", "a b"] {
        assert!(with(bad).contains("spec.allowedServiceAccounts[0]"), "{bad}");
    }
}

#[test]
fn rules_in_cel_and_in_rust_refuse_the_same_and_say_why() {
    let node = json!({ "urls": ["http://node:9797"] });
    let deployed = json!({ "deploy": { "image": "neptune:1", "walletSecret": { "name": "wallet" } } });
    let with = |path: &str, value: Value| merge(json!({ "network": "main", "node": node }), path, value);
    // Path and value of one change to the smallest manifest, and a part of the message.
    let cases = [
        ("/upgraders", json!({ "shards": 2, "classes": ["1:0"] }), "exclude each other"),
        ("/upgraders/classes", json!(["2:0"]), "exactly once"),
        ("/upgraders/classes", json!(["2:0", "4:0", "4:2"]), "overlap"),
        ("/upgraders/classes", json!(["2:0", "4:1", "4:3", "8:0"]), ""),
        ("/node", json!({}), "exactly one of urls and deploy"),
        ("/node", json!({ "urls": ["http://a:1"], "deploy": { "image": "x" } }), "exactly one of urls and deploy"),
        ("/network", json!("xnt"), "needs upgraders.mode Node"),
        ("/upgraders/mode", json!("Node"), "needs node.deploy"),
        ("/provers/backend", json!("Mock"), "regtest and testnet-mock only"),
        ("/provers", json!({ "backend": "Cpu", "gpu": { "count": 1 } }), "gpu is for backend Gpu only"),
        ("/provers/gpu", json!({ "count": 1, "claimTemplateName": "gpu" }), "exactly one of count and claimTemplateName"),
        ("/provers/gpu", json!({}), "exactly one of count and claimTemplateName"),
        ("/provers/autoscaling", json!({ "min": 3, "max": 2 }), "min is not larger than max"),
    ];
    for (path, value, message) in cases {
        let fleet = fleet(with(path, value.clone()));
        assert!(cel(&fleet).contains(message) && !cel(&fleet).is_empty(), "{path} {value}: CEL says {:?}", cel(&fleet));
        assert!(!own(&fleet).is_empty(), "{path} {value}: Rust says nothing");
    }
    for (path, value) in [
        ("/upgraders/classes", json!(["2:0", "4:1", "8:3", "8:7"])),
        ("/upgraders/classes", json!(["1:0"])),
        ("/upgraders/shards", json!(128)),
        ("/provers/gpu", json!({ "claimTemplateName": "gpu" })),
        ("/provers/gpu", json!({ "count": 2, "resourceName": "nvidia.com/mig-1g.10gb" })),
        ("/provers/autoscaling", json!({ "min": 2, "max": 2 })),
        ("/provers/backend", json!("Cpu")),
    ] {
        let fleet = fleet(with(path, value.clone()));
        assert_eq!((cel(&fleet), own(&fleet)), (String::new(), String::new()), "{path} {value}");
    }
    let xnt = fleet(json!({ "network": "xnt", "node": deployed, "upgraders": { "mode": "Node" } }));
    assert_eq!((cel(&xnt), own(&xnt)), (String::new(), String::new()));
    let walletless =
        fleet(json!({ "network": "xnt", "node": { "deploy": { "image": "x" } }, "upgraders": { "mode": "Node" } }));
    assert!(cel(&walletless).contains("silently makes a new one") && own(&walletless).contains("silently makes a new one"));
    let regtest = fleet(json!({ "network": "regtest", "node": node, "provers": { "backend": "Cpu" } }));
    assert!(cel(&regtest).contains("mock proofs") && own(&regtest).contains("mock proofs"));
}

/// The largest lists that the schema admits are judged, too, and right.
#[test]
fn an_exact_cover_of_128_classes_passes() {
    let classes = fleet_api::shard::plan(128).expect("in range");
    assert_eq!(cel(&standalone(&json!({ "classes": classes }))), "");
    let mut doubled = classes;
    doubled[5] = doubled[6];
    assert!(own(&standalone(&json!({ "classes": doubled }))).contains("overlap"));
}

#[test]
fn what_cannot_change_does_not() {
    let main = standalone(&json!({ "shards": 3 }));
    let mut other = main.clone();
    other.spec.upgraders.shards = Some(5);
    assert!(other.validate_cel_update(&main).is_ok());
    other.spec.network = Network::Testnet;
    assert!(other.validate_cel_update(&main).expect_err("immutable").to_string().contains("network is immutable"));
}

#[test]
fn numbers_out_of_range_are_refused_in_rust_as_the_schema_does() {
    for (change, message) in [
        (json!({ "shards": 0 }), "spec.upgraders.shards: 0 shards: not from 1 to 128"),
        (json!({ "shards": 129 }), "spec.upgraders.shards: 129 shards: not from 1 to 128"),
        (json!({ "gobbling": { "fraction": 1.5 } }), "spec.upgraders.gobbling.fraction: 1.5 is not a fraction from 0 to 1"),
        (
            json!({ "gobbling": { "minFee": "-1" } }),
            "spec.upgraders.gobbling.minFee: not a decimal number of coins, for example \"0.01\"",
        ),
        (json!({ "maxSurge": 0 }), "spec.upgraders.maxSurge: 0 shards: not from 1 to 128"),
    ] {
        assert_eq!(own(&standalone(&change)), message);
    }
    let long = UpgraderFleet::new(&"x".repeat(37), standalone(&json!({})).spec);
    assert!(cel(&long).contains("at most 36 characters") && own(&long).contains("at most 36 characters"));
}

#[test]
fn the_definition_is_small_enough_and_says_what_people_rely_on() {
    let crd = UpgraderFleet::crd();
    let json = serde_json::to_value(&crd).expect("JSON");
    // `kubectl apply` without --server-side keeps a copy in an annotation of at most 256 KiB.
    let size = json.to_string().len();
    assert!(size < 200_000, "the definition has {size} bytes");
    assert_eq!(crd.spec.names.short_names, Some(vec!["uf".to_owned()]));
    let version = &json["spec"]["versions"][0];
    assert_eq!(version["subresources"]["scale"]["specReplicasPath"], ".spec.provers.replicas");
    assert!(version["subresources"]["status"].is_object());
    let columns = version["additionalPrinterColumns"].as_array().expect("columns");
    let names: Vec<_> = columns.iter().filter_map(|column| column["name"].as_str()).collect();
    assert_eq!(names, ["Ready", "Network", "Shards", "Coverage", "Provers", "Queue", "Reason", "Age"]);
    let conditions = &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"];
    assert_eq!(
        (&conditions["x-kubernetes-list-type"], &conditions["x-kubernetes-list-map-keys"]),
        (&json!("map"), &json!(["type"]))
    );
    // Formats that API servers do not know give a warning to everyone who applies the definition.
    let text = json.to_string();
    for unknown in ["uint8", "uint16", "uint32", "uint64"] {
        assert!(!text.contains(&format!("\"format\":\"{unknown}\"")), "{unknown}");
    }
}

fn merge(mut spec: Value, path: &str, value: Value) -> Value {
    let mut here = &mut spec;
    for part in path.split('/').skip(1) {
        here = &mut here[part];
    }
    *here = value;
    spec
}

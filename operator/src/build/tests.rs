//! What the objects of a fleet look like.

use fleet_api::{ResidueClass, UpgraderFleetSpec};
use serde_json::json;

use super::*;

fn defaults() -> Defaults {
    Defaults {
        upgrader_image: "upgrader:1".to_owned(),
        prover_image: "prover-pod:1".to_owned(),
        operator_namespace: "system".to_owned(),
    }
}

fn resource(spec: Value) -> UpgraderFleet {
    let spec: UpgraderFleetSpec = serde_json::from_value(spec).expect("a specification");
    let mut resource = UpgraderFleet::new("prod", spec);
    resource.metadata.namespace = Some("proofs".to_owned());
    resource.metadata.uid = Some("uid-1".to_owned());
    resource
}

fn minimal() -> UpgraderFleet {
    resource(json!({ "network": "main", "node": { "urls": ["http://node:9797"] } }))
}

fn node_mode() -> UpgraderFleet {
    resource(json!({
        "network": "xnt",
        "node": { "deploy": { "image": "xnt-core:1", "walletSecret": { "name": "wallet" } } },
        "upgraders": { "mode": "Node", "shards": 2 },
    }))
}

fn everything() -> UpgraderFleet {
    resource(json!({
        "network": "main",
        "node": { "deploy": { "image": "neptune-core:1" } },
        "upgraders": { "shards": 4, "receivingAddress": "nolgam1abc" },
        "provers": { "replicas": 3, "gpu": { "count": 2, "resourceName": "nvidia.com/mig-1g.10gb" } },
        "additionalProvers": [{ "name": "cpu", "template": { "backend": "Cpu", "replicas": 1 } }],
        "monitoring": { "serviceMonitor": { "enabled": true }, "rules": { "enabled": true }, "dashboard": { "enabled": true } },
        "networkPolicy": { "enabled": true, "monitoringNamespaces": ["monitoring"] },
    }))
}

fn build(resource: &UpgraderFleet) -> Vec<Object> {
    let defaults = defaults();
    let fleet = Fleet::new(resource, &defaults).expect("stored");
    let mut objects = fleet.objects(&BTreeMap::new()).expect("sound");
    for class in resource.spec.shards().expect("in range") {
        objects.push(fleet.shard(Key::primary(class), false).expect("sound"));
    }
    objects
}

fn find<'a>(objects: &'a [Object], kind: Kind, name: &str) -> &'a Value {
    &objects.iter().find(|object| object.kind == kind && object.name == name).unwrap_or_else(|| panic!("{kind:?} {name}")).body
}

fn container(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn a_minimal_fleet_is_these_objects() {
    let names: Vec<String> = build(&minimal()).iter().map(|object| format!("{} {}", object.kind.name(), object.name)).collect();
    assert_eq!(
        names,
        [
            "ServiceAccount prod",
            "Service prod-provers",
            "Service prod-upgraders",
            "Deployment prod-prover",
            "Deployment prod-d1-r0"
        ]
    );
}

#[test]
fn whoever_has_no_address_for_fees_works_for_free() {
    let fee = |resource: &UpgraderFleet, shard: &str| {
        let objects = build(resource);
        let args = container(find(&objects, Kind::Deployment, shard))["args"].as_array().cloned().unwrap_or_default();
        let texts: Vec<String> = args.iter().filter_map(|arg| arg.as_str().map(str::to_owned)).collect();
        let has_address = texts.iter().any(|text| text.starts_with("--fee-address="));
        (has_address, texts.into_iter().find(|text| text.starts_with("--min-gobbling-fee=")))
    };
    assert_eq!(fee(&minimal(), "prod-d1-r0"), (false, Some("--min-gobbling-fee=0".to_owned())));
    assert_eq!(fee(&everything(), "prod-d4-r0"), (true, Some("--min-gobbling-fee=0.01".to_owned())));
}

#[test]
fn all_objects_are_owned_and_labelled_and_their_names_fit() {
    for resource in [minimal(), node_mode(), everything()] {
        for object in build(&resource) {
            let meta = &object.body["metadata"];
            assert_eq!(meta["labels"]["upgrader-fleet.dev/fleet"], "prod", "{}", object.name);
            assert_eq!(meta["labels"]["app.kubernetes.io/managed-by"], MANAGER, "{}", object.name);
            assert_eq!(meta["ownerReferences"][0]["uid"], "uid-1", "{}", object.name);
            assert_eq!(meta["ownerReferences"][0]["controller"], true);
            assert_eq!(
                (object.body["kind"].as_str(), object.body["apiVersion"].as_str()),
                (Some(object.kind.name()), Some(object.kind.api_version().as_str()))
            );
        }
    }
    let longest = UpgraderFleet::new(&"x".repeat(fleet_api::v1alpha1::MAX_NAME_LENGTH), minimal().spec);
    let defaults = defaults();
    let fleet = Fleet {
        resource: &longest,
        name: longest.metadata.name.as_deref().expect("a name"),
        namespace: "n",
        defaults: &defaults,
    };
    let class = ResidueClass::new(128, 127).expect("a class");
    let shard = fleet.shard_name(Key::substitute(class));
    assert!(shard.len() <= 52, "{shard}: the pods of a StatefulSet get its name and ten digits as a label");
    for name in [fleet.prover_name("fifteen-letters"), fleet.token_secret(), fleet.provers_service()] {
        assert!(name.len() <= 63, "{name}");
    }
}

#[test]
fn all_pods_meet_the_restricted_standard() {
    for resource in [minimal(), node_mode(), everything()] {
        for object in build(&resource).iter().filter(|object| matches!(object.kind, Kind::Deployment | Kind::StatefulSet)) {
            let pod = &object.body["spec"]["template"]["spec"];
            assert_eq!(pod["automountServiceAccountToken"], false);
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            let containers = pod["containers"].as_array().into_iter().chain(pod["initContainers"].as_array()).flatten();
            for container in containers {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{container}");
                assert_eq!(security["readOnlyRootFilesystem"], true);
                assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
            }
        }
    }
}

#[test]
fn shards_differ_in_their_filter_alone_and_share_a_revision() {
    let fleet = everything();
    let objects = build(&fleet);
    let shards: Vec<_> =
        ["prod-d4-r0", "prod-d4-r1", "prod-d4-r2", "prod-d4-r3"].map(|name| find(&objects, Kind::Deployment, name)).to_vec();
    let filters: Vec<_> = shards
        .iter()
        .map(|shard| {
            container(shard)["args"]
                .as_array()
                .expect("args")
                .iter()
                .filter_map(Value::as_str)
                .find(|arg| arg.starts_with("--tx-upgrade-filter"))
        })
        .collect();
    assert_eq!(filters[2], Some("--tx-upgrade-filter=4:2"));
    let revisions: std::collections::BTreeSet<_> =
        shards.iter().map(|shard| shard["metadata"]["annotations"][REVISION_ANNOTATION].to_string()).collect();
    assert_eq!(revisions.len(), 1);
    let strategy = &shards[0]["spec"]["strategy"]["rollingUpdate"];
    assert_eq!((&strategy["maxSurge"], &strategy["maxUnavailable"]), (&json!(1), &json!(0)));

    let defaults = defaults();
    let before = Fleet::new(&fleet, &defaults).expect("stored").shard_revision().expect("sound");
    let mut other = fleet.clone();
    other.spec.upgraders.shards = Some(9);
    assert_eq!(
        Fleet::new(&other, &defaults).expect("stored").shard_revision().as_ref(),
        Ok(&before),
        "a resize restarts nobody"
    );
    other.spec.upgraders.gobbling.fraction = 0.5;
    assert_ne!(Fleet::new(&other, &defaults).expect("stored").shard_revision().as_ref(), Ok(&before));
}

#[test]
fn allowed_accounts_are_checked_by_the_api_server_and_upgraders_use_their_own() {
    let spec = |accounts: Value| json!({ "network": "main", "node": { "urls": ["http://node:9797"] }, "allowedServiceAccounts": accounts });
    let of = |accounts: Value| {
        let fleet = resource(spec(accounts));
        let name = fleet.metadata.name.clone().expect("a name");
        let objects = build(&fleet);
        let prover = find(&objects, Kind::Deployment, &format!("{name}-prover")).clone();
        let upgrader = find(&objects, Kind::Deployment, &format!("{name}-d1-r0")).clone();
        (name, prover.to_string(), upgrader.to_string())
    };
    let (_, prover, upgrader) = of(json!([]));
    assert!(!prover.contains("projected") && !upgrader.contains("projected"), "nobody asked for it");

    let (_, prover, upgrader) = of(json!(["node", "other/wallet"]));
    let namespace = resource(spec(json!([]))).metadata.namespace.expect("a namespace");
    for part in
        [&format!("--allow-service-account={namespace}:node"), "--allow-service-account=other:wallet", "kube-root-ca.crt"]
    {
        assert!(prover.contains(part), "{part} is not in {prover}");
    }
    assert!(!upgrader.contains("projected"), "its account is not allowed");

    // Where a policy keeps everybody out, it lets in the namespaces of these accounts.
    let callers = |accounts: Value| {
        let mut spec = spec(accounts);
        spec["networkPolicy"] = json!({ "enabled": true });
        find(&build(&resource(spec)), Kind::NetworkPolicy, "prod-provers").to_string()
    };
    let policy = callers(json!(["node", "other/wallet"]));
    assert!(policy.contains(&format!("\"values\":[\"other\",\"{namespace}\"]")), "{policy}");
    assert!(!callers(json!(["prod"])).contains("other"), "its own upgraders are let in by label");

    let name = resource(spec(json!([]))).metadata.name.expect("a name");
    let (_, prover, upgrader) = of(json!([name]));
    assert!(prover.contains(&format!("--allow-service-account={namespace}:{name}")));
    assert!(upgrader.contains("--prover-token-file=/var/run/upgrader-fleet/account/token"));
    assert!(upgrader.contains("\"audience\":\"upgrader-fleet.dev/provers\""), "{upgrader}");
    assert!(!upgrader.contains("\"key\":\"token\""), "it still sees everybody's token");
}

#[test]
fn prover_pods_get_their_gpus_and_never_surge() {
    let objects = build(&everything());
    let gpu = find(&objects, Kind::Deployment, "prod-prover");
    assert_eq!(container(gpu)["resources"]["limits"]["nvidia.com/mig-1g.10gb"], "2");
    let pod = &gpu["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"], json!({ "nvidia.com/gpu.present": "true" }));
    assert_eq!(pod["tolerations"][0]["key"], "nvidia.com/gpu");
    assert_eq!(gpu["spec"]["strategy"]["rollingUpdate"]["maxSurge"], 0);
    assert_eq!(pod["terminationGracePeriodSeconds"], 3630);
    assert_eq!(find(&objects, Kind::PodDisruptionBudget, "prod-prover")["spec"]["maxUnavailable"], 1);

    let cpu = find(&objects, Kind::Deployment, "prod-prover-cpu");
    assert!(container(cpu)["args"].to_string().contains("--backend=cpu"));
    assert!(container(cpu)["resources"].get("limits").is_none());
    assert!(!objects.iter().any(|object| object.kind == Kind::PodDisruptionBudget && object.name == "prod-prover-cpu"));

    let claimed = resource(json!({
        "network": "main", "node": { "urls": ["http://n:1"] }, "provers": { "gpu": { "claimTemplateName": "one-gpu" } },
    }));
    let objects = build(&claimed);
    let pod = &find(&objects, Kind::Deployment, "prod-prover")["spec"]["template"]["spec"];
    assert_eq!(pod["resourceClaims"][0]["resourceClaimTemplateName"], "one-gpu");
    assert_eq!(pod["containers"][0]["resources"]["claims"][0]["name"], "gpu");

    let mock = resource(json!({ "network": "regtest", "node": { "urls": ["http://n:1"] } }));
    let objects = build(&mock);
    let args = container(find(&objects, Kind::Deployment, "prod-prover"))["args"].to_string();
    assert!(args.contains("--backend=mock") && args.contains("--network=regtest"), "{args}");
}

#[test]
fn nodes_keep_their_volumes_and_have_a_wallet_and_a_proxy() {
    let objects = build(&node_mode());
    let set = find(&objects, Kind::StatefulSet, "prod-d2-r1");
    assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"], json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }));
    let pod = &set["spec"]["template"]["spec"];
    let init: Vec<_> = pod["initContainers"].as_array().expect("init").iter().map(|one| one["name"].as_str()).collect();
    assert_eq!(init, [Some("prover-proxy"), Some("wallet")]);
    // The image that these run in has no shell and no `cp`.
    let commands: Vec<_> = pod["initContainers"].as_array().expect("init").iter().map(|one| &one["command"]).collect();
    assert_eq!(
        commands,
        [
            &json!(["prover-pod", "give-proxy", "/opt/upgrader-fleet"]),
            &json!(["prover-pod", "give-wallet", "/wallet", "/var/lib/node/main/wallet"])
        ]
    );
    let text = container(set).to_string();
    for part in
        ["--tx-upgrade-filter=2:1", "--tx-proof-upgrading", "TRITON_VM_PROVER_PATH", "dns+https://prod-provers.proofs.svc:8080"]
    {
        assert!(text.contains(part), "{part}");
    }
    let provers = find(&objects, Kind::Deployment, "prod-prover");
    assert!(container(provers)["args"].to_string().contains("--tls-cert"), "the jobs of nodes hold spending secrets");
}

#[test]
fn a_wallet_lies_where_the_node_of_each_network_looks_for_it() {
    let folder = |network: &str| {
        let fleet = resource(json!({
            "network": network,
            "node": { "deploy": { "image": "neptune-core:1", "walletSecret": { "name": "wallet" } } },
            "upgraders": { "mode": "Node", "shards": 1 },
        }));
        let objects = build(&fleet);
        let pod = &find(&objects, Kind::StatefulSet, "prod-d1-r0")["spec"]["template"]["spec"];
        pod["initContainers"][1]["command"][3].as_str().expect("a folder").to_owned()
    };
    // As neptune_primitives::network::Network writes them; elsewhere, the node would make a wallet of its own.
    for (network, name) in
        [("main", "main"), ("testnet", "testnet-0"), ("testnet-mock", "testnet-mock"), ("regtest", "regtest")]
    {
        assert_eq!(folder(network), format!("/var/lib/node/{name}/wallet"));
    }
}

#[test]
fn an_overlay_is_merged_last_and_a_bad_one_is_named() {
    let mut fleet = minimal();
    fleet.spec.provers.pod_template = serde_json::from_value(
        json!({ "spec": { "hostNetwork": true, "containers": [{ "name": "prover", "image": "mine:1" }] } }),
    )
    .ok();
    let objects = build(&fleet);
    let prover = find(&objects, Kind::Deployment, "prod-prover");
    assert_eq!(
        (&prover["spec"]["template"]["spec"]["hostNetwork"], &container(prover)["image"]),
        (&json!(true), &json!("mine:1"))
    );
    fleet.spec.upgraders.pod_template = serde_json::from_value(json!({ "spec": { "containers": 1 } })).ok();
    let defaults = defaults();
    let error = Fleet::new(&fleet, &defaults).expect("stored").shard_revision().expect_err("no pod");
    assert!(error.to_string().starts_with("spec.upgraders.podTemplate: spec is no part of a pod's specification"), "{error}");
}

#[test]
fn suspended_provers_have_no_pods() {
    let mut fleet = everything();
    fleet.spec.suspend = true;
    assert_eq!(find(&build(&fleet), Kind::Deployment, "prod-prover")["spec"]["replicas"], 0);
}

#[test]
fn each_alert_of_a_fleet_chooses_that_fleet() {
    let text = rules(Some(("proofs", "prod"))).to_string();
    assert!(!text.contains("SELECTOR") && text.contains("fleet=\\\"prod\\\""));
    // Of pods, Prometheus knows the fleet by their label.
    assert!(text.contains("failures_total{namespace=\\\"proofs\\\",upgrader_fleet_dev_fleet=\\\"prod\\\"}"), "{text}");
    assert!(!text.contains("operator_leader"), "the operator's own alert is not a fleet's");
    let all = rules(None).to_string();
    assert!(!all.contains("SELECTOR") && all.contains("operator_leader"), "{all}");
    let names: std::collections::BTreeSet<_> = ALERTS.iter().map(|alert| alert.name).collect();
    assert_eq!(names.len(), ALERTS.len());
}

//! What is refused, ignored and changed on one machine.

use serde_json::{Value, json};

use super::*;

fn fleet(spec: Value) -> UpgraderFleet {
    UpgraderFleet::new("main", serde_json::from_value(spec).expect("a specification"))
}

/// The specification of a fleet on regtest with a change at this path.
fn on_regtest(path: &str, value: Value) -> Value {
    let mut spec =
        json!({ "network": "regtest", "node": { "urls": ["http://n:1"] }, "upgraders": { "gobbling": { "minFee": "0" } } });
    let mut here = &mut spec;
    for part in path.split('/') {
        here = &mut here[part];
    }
    *here = value;
    spec
}

fn regtest(path: &str, value: Value) -> UpgraderFleet {
    fleet(on_regtest(path, value))
}

fn refused(fleet: UpgraderFleet) -> String {
    fit(fleet, false).expect_err("is refused").iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_cannot_be_done_is_refused_with_what_to_do_instead() {
    let deploy = json!({ "image": "x", "walletSecret": { "name": "w" } });
    let node = json!({ "urls": ["http://n:1"] });
    let main = |upgraders: Value| json!({ "network": "main", "node": node, "upgraders": upgraders });
    let cases = [
        (on_regtest("node", json!({ "deploy": deploy })), "spec.node.deploy: fleet local runs no node with a chain"),
        (
            json!({ "network": "xnt", "node": { "deploy": deploy }, "upgraders": { "mode": "Node" } }),
            "spec.upgraders.mode: fleet local runs standalone upgraders; for stock nodes start prover-pod here",
        ),
        (
            json!({
                "network": "main", "node": node, "upgraders": { "gobbling": { "minFee": "0.0" } },
                "provers": { "gpu": { "claimTemplateName": "gpu" } },
            }),
            "spec.provers.gpu.claimTemplateName: claims are of Kubernetes; write count: 1",
        ),
        (on_regtest("provers", json!({ "replicas": 0 })), "spec.provers.replicas: no prover pod at all"),
        (
            on_regtest("provers", json!({ "resources": { "limits": { "memory": "lots" } } })),
            "spec.provers.resources.limits.memory: not a quantity of bytes",
        ),
        (main(json!({ "receivingAddress": "nolgam1nonsense" })), "spec.upgraders.receivingAddress: this is no address on main"),
    ];
    for (spec, message) in cases {
        let said = refused(fleet(spec));
        assert!(said.contains(message) && !said.contains("nonsense"), "expected: {message}\nsaid: {said}");
    }
}

#[test]
fn what_is_about_a_cluster_is_ignored_in_one_line() {
    let fleet = fleet(json!({
        "network": "regtest",
        "node": { "urls": ["http://n:1"] },
        "upgraders": {
            "gobbling": { "minFee": "0" }, "image": "x", "maxSurge": 9, "scheduling": { "nodeSelector": { "a": "b" } },
            "failover": { "enabled": false },
        },
        "provers": { "podTemplate": { "labels": { "a": "b" } }, "resources": { "limits": { "memory": "1Gi", "cpu": 4 } } },
        "additionalProvers": [{ "name": "big", "template": { "image": "y" } }],
        "monitoring": { "rules": { "enabled": true } },
        "networkPolicy": { "enabled": true },
    }));
    let fitted = fit(fleet, false).expect("runs");
    let expected = "ignored on one machine: spec.upgraders.image, spec.upgraders.failover, spec.upgraders.maxSurge, \
                    spec.upgraders.scheduling, spec.provers.resources (but limits.memory), spec.provers.podTemplate, \
                    spec.additionalProvers[0].template.image, spec.monitoring, spec.networkPolicy";
    assert_eq!(fitted.notes, [expected]);
    assert_eq!(memory_limit(&fitted.spec.provers), Some(1 << 30));
    assert!(fit(regtest("suspend", json!(false)), false).expect("runs").notes.is_empty());
}

#[test]
fn a_suspended_fleet_needs_no_prover() {
    let mut suspended = regtest("provers", json!({ "replicas": 0 }));
    suspended.spec.suspend = true;
    assert!(fit(suspended, false).is_ok());
}

#[test]
fn without_an_address_mock_coins_are_left_alone_and_real_ones_are_a_question() {
    let spec = json!({ "network": "testnet-mock", "node": { "urls": ["http://n:1"] } });
    let fitted = fit(fleet(spec), false).expect("runs");
    assert_eq!(fitted.spec.upgraders.gobbling.min_fee, "0");
    assert!(fitted.notes[0].contains("for free"), "{:?}", fitted.notes);
    let free =
        json!({ "network": "main", "node": { "urls": ["http://n:1"] }, "upgraders": { "gobbling": { "minFee": "0.00" } } });
    assert!(fit(fleet(free), false).is_ok());
}

#[test]
fn a_dev_node_takes_the_place_of_any_node_with_mock_proofs_for_real_ones() {
    let fleet = fleet(json!({
        "network": "main",
        "node": { "deploy": { "image": "x" } },
        "upgraders": { "shards": 3, "receivingAddress": "an address of main" },
        "provers": { "replicas": 2, "gpu": { "count": 4 } },
    }));
    let fitted = fit(fleet, true).expect("runs");
    assert_eq!(
        (fitted.spec.network, fitted.spec.upgraders.shards, fitted.spec.provers.replicas),
        (Network::Regtest, Some(3), 2)
    );
    assert_eq!(fitted.spec.provers.effective_backend(fitted.spec.network), Backend::Mock);
    assert_eq!(wants_gpu(&fitted.spec.provers, fitted.spec.network), Some(false));
    assert_eq!((fitted.spec.upgraders.receiving_address, fitted.spec.upgraders.gobbling.min_fee.as_str()), (None, "0"));
    assert!(fitted.notes[0].contains("a dev node on regtest with mock proofs, not spec.node on main"), "{:?}", fitted.notes);
}

#[test]
fn autoscaling_is_its_least_number_of_pods() {
    let fitted = fit(regtest("provers", json!({ "autoscaling": { "min": 0, "max": 8 } })), false).expect("runs");
    assert_eq!((fitted.spec.provers.replicas, fitted.spec.provers.autoscaling), (1, None));
    assert!(fitted.notes[0].starts_with("spec.provers.autoscaling: one machine does not scale"), "{:?}", fitted.notes);
}

#[test]
fn quantities_are_read_as_kubernetes_reads_them() {
    for (text, expected) in [
        ("12", Some(12)),
        ("1Ki", Some(1024)),
        ("64Gi", Some(64 << 30)),
        ("2G", Some(2_000_000_000)),
        ("1.5Mi", Some(3 << 19)),
        ("", None),
        ("-1", None),
        ("1.2.3", None),
        ("500m", None),
        ("9999999999Ti", None),
        ("lots", None),
    ] {
        assert_eq!(bytes(&Quantity::text(text)), expected, "{text}");
    }
}

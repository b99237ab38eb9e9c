//! Whatever the manifest says: exact cover, no port and no GPU twice, nothing secret where others read it.

use std::collections::HashSet;

use fleet_api::shard::check_exact_cover;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn places(dev_node: bool) -> Places {
    Places {
        prover_pod: "/bin/prover-pod".into(),
        upgrader: "/bin/upgrader".into(),
        dev_node: dev_node.then(|| "/bin/dev-node".into()),
        listen: Ipv4Addr::LOCALHOST.into(),
        token_file: "/dir/prover-token".into(),
        secret_file: "/dir/fleet-secret".into(),
    }
}

fn spec(value: Value) -> UpgraderFleetSpec {
    serde_json::from_value(value).expect("a specification")
}

fn main_net() -> UpgraderFleetSpec {
    spec(json!({
        "network": "main",
        "node": { "urls": ["http://user:password@node:9797", "http://other:9797"] },
        "upgraders": { "shards": 3, "receivingAddress": " nolgam1address\n", "gobbling": { "fraction": 0.5, "minFee": "0.1" } },
        "provers": { "replicas": 2, "gpu": { "count": 2 }, "drainSeconds": 60, "maxConcurrentJobs": 3, "maxLog2PaddedHeight": 22 },
        "additionalProvers": [{ "name": "cores", "template": { "backend": "Cpu", "resources": { "limits": { "memory": "8Gi" } } } }],
    }))
}

fn with_gpus(gpus: usize) -> Machine {
    Machine { gpus: (0..gpus).map(|gpu| gpu.to_string()).collect(), no_gpu: None, free_memory_bytes: Some(31 << 30) }
}

fn planned(spec: &UpgraderFleetSpec, dev_node: bool) -> Plan {
    plan(spec, &with_gpus(4), &places(dev_node), &mut (9000..)).expect("a plan")
}

#[test]
fn a_fleet_on_main_net_becomes_pods_with_gpus_and_upgraders_with_shards() {
    let plan = planned(&main_net(), false);
    let names: Vec<&str> = plan.processes.iter().map(|process| process.name.as_str()).collect();
    let upgraders = ["upgrader-d2-r1", "upgrader-d4-r0", "upgrader-d4-r2"];
    assert_eq!(names[..3], ["prover-default-0", "prover-default-1", "prover-cores-0"]);
    assert_eq!(names[3..], upgraders);

    let pod = &plan.processes[1];
    assert_eq!(
        pod.arguments.join(" "),
        "serve --listen=127.0.0.1:9001 --network=main --backend=gpu --token-file=/dir/prover-token --grace-period=60 \
         --max-log2-padded-height=22 --max-concurrent-jobs=3 --memory-limit=10737418240"
    );
    assert!(pod.environment.contains(&("CUDA_VISIBLE_DEVICES", "2,3".to_owned())));
    assert_eq!((pod.grace, pod.device.as_deref(), pod.gate), (Duration::from_mins(1), Some("gpu 2,3"), Gate::Open));
    let on_cores = &plan.processes[2];
    assert!(on_cores.arguments.contains(&"--memory-limit=8589934592".to_owned()), "{:?}", on_cores.arguments);
    assert!(on_cores.environment.iter().all(|(name, _)| *name != "CUDA_VISIBLE_DEVICES"));

    let upgrader = &plan.processes[3];
    assert_eq!(
        upgrader.arguments.join(" "),
        "--network=main --tx-proof-upgrading=true --tx-upgrade-filter=2:1 --gobbling-fraction=0.5 --min-gobbling-fee=0.1 \
         --max-num-proofs=16 --prover-token-file=/dir/prover-token --fleet-secret-file=/dir/fleet-secret --grace-period=600s \
         --listen=127.0.0.1:9003 --provers=http://127.0.0.1:9000 --provers=http://127.0.0.1:9001 \
         --provers=http://127.0.0.1:9002"
    );
    assert!(upgrader.environment.contains(&("UPGRADER_FEE_ADDRESS", "nolgam1address".to_owned())));
    assert_eq!(upgrader.gate, Gate::Provers);
    assert!(upgrader.without.contains(&"UPGRADER_FEE_ADDRESS"), "a shell's address would get the fees");
}

#[test]
fn a_dev_node_comes_first_and_is_whom_the_upgraders_watch() {
    let plan = planned(&spec(json!({ "network": "regtest", "node": {}, "provers": { "replicas": 2 } })), true);
    let node = &plan.processes[0];
    assert_eq!((node.role, node.url.as_str()), (Role::Node, "http://127.0.0.1:9000"));
    assert_eq!(node.arguments, ["--listen=127.0.0.1:9000", "--network=regtest"]);
    assert_eq!(plan.nodes, ["http://127.0.0.1:9000"]);
    let pod = &plan.processes[1];
    assert!(pod.arguments.contains(&"--backend=mock".to_owned()) && pod.arguments.contains(&"--network=regtest".to_owned()));
    assert!(!pod.arguments.iter().any(|argument| argument.starts_with("--memory-limit")), "mock proofs take no memory");
}

#[test]
fn what_listens_everywhere_is_reached_on_the_loopback_interface() {
    let to = |listen: &str| url(SocketAddr::new(listen.parse().expect("an address"), 80));
    assert_eq!(to("0.0.0.0"), "http://127.0.0.1:80");
    assert_eq!(to("::"), "http://[::1]:80");
    assert_eq!(to("10.1.2.3"), "http://10.1.2.3:80");
}

#[test]
fn what_does_not_go_is_told() {
    let no_node = spec(json!({ "network": "regtest", "node": {} }));
    assert!(matches!(plan(&no_node, &with_gpus(0), &places(false), &mut (9000..)), Err(PlanError::Node)));
    assert!(matches!(plan(&main_net(), &with_gpus(4), &places(false), &mut (65_534..=65_535)), Err(PlanError::Ports)));
    assert!(matches!(plan(&main_net(), &with_gpus(3), &places(false), &mut (9000..)), Err(PlanError::Gpus(_))));
}

#[test]
fn nothing_secret_is_in_what_others_can_read() {
    for process in planned(&main_net(), false).processes {
        let line = process.arguments.join(" ");
        assert!(!line.contains("password") && !line.contains("nolga"), "{line}");
    }
}

proptest! {
    #[test]
    fn shards_cover_exactly_and_no_port_or_name_comes_twice(
        shards in 1_i32..=128,
        replicas in 1_i32..40,
        more in 0_i32..5,
        dev_node: bool,
        base in 1024_u16..60_000,
    ) {
        let spec = spec(json!({
            "network": "regtest",
            "node": { "urls": ["http://n:1"] },
            "upgraders": { "shards": shards },
            "provers": { "replicas": replicas },
            "additionalProvers": [{ "name": "more", "template": { "replicas": more } }],
        }));
        let plan = plan(&spec, &with_gpus(0), &places(dev_node), &mut (base..)).expect("a plan");
        let classes: Vec<ResidueClass> = plan.processes.iter().filter_map(|process| process.class).collect();
        prop_assert_eq!(classes.len(), shards as usize);
        prop_assert_eq!(check_exact_cover(&classes), Ok(()));
        for (class, process) in classes.iter().zip(plan.processes.iter().filter(|process| process.class.is_some())) {
            let filter = format!("--tx-upgrade-filter={class}");
            prop_assert!(process.arguments.contains(&filter));
        }
        let addresses: HashSet<SocketAddr> = plan.processes.iter().map(|process| process.address).collect();
        let names: HashSet<&str> = plan.processes.iter().map(|process| process.name.as_str()).collect();
        let count = usize::from(dev_node) + (replicas + more + shards) as usize;
        prop_assert_eq!((plan.processes.len(), addresses.len(), names.len()), (count, count, count));
        prop_assert!(plan.processes.is_sorted_by_key(|process| process.role));
    }
}

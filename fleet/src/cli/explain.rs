//! `fleet explain`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::join_all;
use serde_json::Value;

use crate::explain::{render, telling};
use crate::local::plan::Role;
use crate::pods::LocalArgs;
use crate::remote::{ClusterArgs, Remote, owners};

#[derive(Debug, clap::Args)]
pub struct Explain {
    /// The transaction's id, as the node's mempool lists it
    txid: String,
    /// A fleet in a Kubernetes cluster, the name of its UpgraderFleet: the pod whose shard the transaction is in is asked
    name: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Where upgraders listen, such as http://127.0.0.1:9810; all of them are asked
    #[arg(long, env = "UPGRADER_FLEET_UPGRADERS", value_delimiter = ',')]
    upgraders: Vec<String>,
    #[command(flatten)]
    local: LocalArgs,
    /// Print what the upgrader says, as JSON
    #[arg(long)]
    json: bool,
}

/// An upgrader answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);

impl Explain {
    /// Asks every upgrader and shows what the one says that knows most.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let Self { txid, name, cluster, upgraders, local, json } = self;
        let is_id = txid.len() == 80 && txid.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(is_id, "{txid:?} is no transaction id: those have 80 hexadecimal digits");
        if let Some(name) = name {
            return in_cluster(&cluster.connect(&name).await?, &txid, json).await;
        }
        ensure!(!cluster.is_named(), "which fleet of the cluster? fleet explain TXID -n NAMESPACE NAME");
        let upgraders = match local.fleet(!upgraders.is_empty())? {
            Some(fleet) => fleet.urls(Role::Upgrader),
            None => upgraders,
        };
        if upgraders.is_empty() {
            bail!("no upgraders: name them with --upgraders http://HOST:PORT, or a fleet of this machine with --local DIR");
        }
        let http = crate::explain::client(PATIENCE)?;
        let answers = join_all(upgraders.iter().map(async |url| {
            let url = format!("{}/explain/{txid}", url.trim_end_matches('/'));
            let answer = http.get(&url).send().await.and_then(reqwest::Response::error_for_status);
            match answer {
                Ok(answer) => answer.json::<Value>().await.with_context(|| format!("{url} answers something else")),
                Err(error) => Err(error).with_context(|| format!("no answer from {url}")),
            }
        }))
        .await;
        let mut explanations = Vec::new();
        for answer in answers {
            match answer {
                Ok(explanation) => explanations.push(explanation),
                Err(error) => eprintln!("fleet: {error:#}"),
            }
        }
        let Some(explanation) = telling(explanations) else {
            bail!("no upgrader answers; are they up, and is this where they listen?")
        };
        show(&explanation, json)
    }
}

/// Asks the pods whose shard the transaction is in, the ready ones first, until one answers.
async fn in_cluster(fleet: &Remote, txid: &str, json: bool) -> anyhow::Result<ExitCode> {
    // The byte that shards go by is the last of the id.
    let last_byte = u8::from_str_radix(&txid[txid.len() - 2..], 16)?;
    let (resource, pods) = fleet.look().await?;
    for owner in owners(&resource, &pods, last_byte).map_err(anyhow::Error::msg)? {
        match fleet.explain(&owner, txid).await {
            Ok(mut explanation) => {
                if json {
                    explanation["pod"] = owner.pod.into();
                } else {
                    let node = owner.node.map(|node| format!(" on {node}")).unwrap_or_default();
                    println!("pod          {}{node}, of shard {}", owner.pod, owner.class);
                }
                return show(&explanation, json);
            }
            Err(error) => eprintln!("fleet: {error:#}"),
        }
    }
    bail!("no pod of the transaction's shard answers")
}

fn show(explanation: &Value, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(explanation)?);
    } else {
        println!("{}", render(explanation));
    }
    Ok(ExitCode::SUCCESS)
}

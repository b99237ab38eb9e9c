//! `fleet status`

use std::process::ExitCode;

use anyhow::ensure;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use crate::local::record::FleetRecord;
use crate::local::sight::{Counts, Sight, UpgraderAnswer, Watcher};
use crate::local::table;
use crate::pods::{self, PodArgs};
use crate::remote::{self, ClusterArgs};
use crate::status::{Answer, Format, PodReport, device_table, render};

#[derive(Debug, clap::Args)]
pub struct Status {
    /// A fleet in a Kubernetes cluster, the name of its UpgraderFleet. Without it: pods, or the fleet of this machine
    name: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    pods: PodArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Status {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(name) = &self.name {
            let (fleet, pods) = self.cluster.connect(name).await?.look().await?;
            let view = remote::view(&fleet, &pods, Timestamp::now());
            println!("{}", remote::render(&view, self.output)?);
            return Ok(if view.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        ensure!(!self.cluster.is_named(), "which fleet of the cluster? fleet status -n NAMESPACE NAME");
        let pods = if let Some(fleet) = self.pods.fleet()? {
            let sight = Watcher::new(&fleet)?.look().await;
            println!("{}", fleet_text(&fleet, &sight, self.output)?);
            sight.pods
        } else {
            let pods = pods::reports(&self.pods.connect()?).await;
            println!("{}", render(&pods, self.output)?);
            pods
        };
        let any_up = pods.iter().any(|pod| matches!(pod.answer, Answer::Up { .. }));
        Ok(if any_up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A fleet of this machine: the upgraders, too.
fn fleet_text(fleet: &FleetRecord, sight: &Sight, format: Format) -> serde_json::Result<String> {
    let counts: Vec<Counts> = sight
        .upgraders
        .iter()
        .map(|upgrader| match &upgrader.answer {
            UpgraderAnswer::Up(state) => state.counts,
            UpgraderAnswer::Down { .. } => Counts::default(),
        })
        .collect();
    let summary = table::summary(fleet, sight, &counts);
    let tables =
        [summary.line(), table::upgraders(fleet, sight, &counts, usize::MAX), table::provers(fleet, sight, usize::MAX)]
            .join("\n\n");
    Ok(match format {
        Format::Table => tables,
        Format::Wide => format!("{tables}\n\n{}", device_table(&sight.pods).trim_fmt()),
        Format::Json => {
            let pods: &[PodReport] = &sight.pods;
            let whole = json!({
                "fleet": summary, "processes": fleet.processes, "upgraders": sight.upgraders, "pods": pods,
            });
            serde_json::to_string_pretty(&whole)?
        }
    })
}

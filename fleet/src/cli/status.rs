//! `fleet status`

use std::process::ExitCode;

use crate::pods::{self, PodArgs};
use crate::status::{Answer, Format, render};

#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    pods: PodArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

impl Status {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let pods = pods::reports(&self.pods.connect()?).await;
        println!("{}", render(&pods, self.output)?);
        let any_up = pods.iter().any(|pod| matches!(pod.answer, Answer::Up { .. }));
        Ok(if any_up { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

//! Makes the proofs of [`story`] on this machine's GPU and stores them, for tests on machines without one.
//!
//! `record-proofs FOLDER` writes the transaction with its ProofCollection and both SingleProofs, by the ids of their jobs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fleet::pods::PodArgs;
use upgrader_fleet_tests::devnode;
use upgrader_fleet_tests::pods::Pod;
use upgrader_fleet_tests::scenario::claims_in;
use upgrader_fleet_tests::{http, story};

#[tokio::main]
async fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("give the folder to write to")?);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut pod = Pod::start(&["--backend", "gpu"])?;
    pod.ready().await?;
    let began = Instant::now();
    let (chain, witness) = story::begin()?;
    let client = PodArgs::at([pod.url().to_owned()]).connect()?;
    let transaction = devnode::prove(&witness, &client, story::NETWORK).await?;
    println!("the ProofCollection after {:.2} s", began.elapsed().as_secs_f64());
    story::store(&folder, &transaction)?;
    let fleet = story::tell(chain, transaction, pod, Duration::from_mins(3)).await?;
    println!("mined after {:.2} s", began.elapsed().as_secs_f64());
    let (url, claims) = (fleet.pods[0].url(), claims_in(&fleet.upgraders[0].log()));
    ensure!(claims.len() == 2, "a raise and an update: {claims:?}");
    for id in claims {
        let proof =
            http::client()?.get(format!("{url}/v1/proofs/{id}/proof")).send().await?.error_for_status()?.bytes().await?;
        std::fs::write(folder.join(format!("{id}.bin")), &proof)?;
        println!("{id}.bin, {} bytes", proof.len());
    }
    Ok(())
}

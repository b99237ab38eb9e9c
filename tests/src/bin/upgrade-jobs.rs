//! Writes real upgrade jobs, as a node would send them to its prover: for measuring provers.
//!
//! `upgrade-jobs FOLDER` writes raise, gobbler, merge and update jobs of 2^19 to 2^22 rows as `NAME.json.zst`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use upgrader_fleet_tests::upgrade;

#[tokio::main]
async fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("give the folder to write to")?);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, step) in upgrade::all().await? {
        let (id, height) = (prover_api::JobId::of(&step.claim()), step.expected_log2_padded_height());
        let json = step.into_job()?.to_json()?;
        let path = folder.join(format!("{name}.json.zst"));
        std::fs::write(&path, zstd::encode_all(json.as_slice(), 3)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{} 2^{height} rows, {} bytes of JSON, claim {id}", path.display(), json.len());
    }
    Ok(())
}

//! `fleet verify`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use neptune_consensus::transaction::validity::proof_collection::ProofCollection;
use neptune_primitives::network::Network;

use super::prove::real_network;
use crate::store::{self, COLLECTION, Stored};
use crate::transaction::VerifiedCollection;

#[derive(Debug, clap::Args)]
pub struct Verify {
    /// A folder that `fleet prove` wrote, or a claim (JSON)
    path: PathBuf,
    /// The proof of that claim
    proof: Option<PathBuf>,
    /// The network whose rules a proof collection must satisfy
    #[arg(long, default_value = "main", value_parser = real_network)]
    network: Network,
}

impl Verify {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let stored = if let Some(proof) = &self.proof {
            let name = proof.file_name().unwrap_or(proof.as_os_str()).to_string_lossy().into_owned();
            vec![Stored { name, claim: store::claim(&self.path)?, proof: store::proof_bytes(proof)? }]
        } else {
            ensure!(self.path.is_dir(), "{}: a claim needs its proof: fleet verify CLAIM PROOF", self.path.display());
            store::pairs(&self.path)?
        };
        let width = stored.iter().map(|stored| stored.name.len()).max().unwrap_or(0).max(COLLECTION.len());
        let mut all_valid = true;
        for Stored { name, claim, proof } in stored {
            let verdict = tokio::task::spawn_blocking(move || prover_api::proof::verify(&claim, &proof)).await?;
            all_valid &= verdict.is_ok();
            println!("{name:width$}  {}", verdict.map_or_else(|error| format!("NOT VALID: {error}"), |()| "valid".to_owned()));
        }
        let collection = self.path.join(COLLECTION);
        if self.proof.is_none() && collection.is_file() {
            let verdict = VerifiedCollection::check(read_collection(&collection)?, self.network).await;
            all_valid &= verdict.is_ok();
            let text = match verdict {
                Ok(_) => format!("valid under the rules of {}", self.network),
                Err(error) => format!("NOT VALID: {error}"),
            };
            println!("{COLLECTION:width$}  {text}");
        }
        Ok(if all_valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn read_collection(path: &Path) -> anyhow::Result<ProofCollection> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    bincode::deserialize(&bytes).with_context(|| format!("{} is no proof collection", path.display()))
}

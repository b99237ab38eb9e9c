//! `fleet prove`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use neptune_primitives::network::Network;
use prover_api::{JobKind, Priority};

use crate::input::{self, ProgramInputs, Work};
use crate::pods::{self, PodArgs};
use crate::progress::Board;
use crate::prove::{NamedJob, Wishes, prove_all};
use crate::store;
use crate::transaction::{Frame, Leaf, ProofCollectionPlan, VerifiedCollection, file};

#[derive(Debug, clap::Args)]
pub struct Prove {
    /// Prover jobs (JSON), Triton assembly programs (NAME.tasm) or transaction files (JSON)
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Folder for the proofs: NAME.claim.json beside NAME.proof, a folder of its own for each transaction
    #[arg(short, long, value_name = "FOLDER", default_value = "proofs")]
    output: PathBuf,
    /// Public input of a program: numbers separated by commas
    #[arg(long, value_name = "NUMBERS", default_value = "", hide_default_value = true)]
    input: String,
    /// Secret input of a program: a JSON list of numbers, or a whole non-determinism as JSON
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// How urgent it is
    #[arg(long, value_enum, default_value_t = Priority::Normal)]
    priority: Priority,
    /// Not on a GPU
    #[arg(long)]
    force_cpu: bool,
    /// Give up after this time, such as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    deadline: Option<std::time::Duration>,
    /// The network whose rules a transaction must satisfy
    #[arg(long, default_value = "main", value_parser = real_network)]
    network: Network,
    #[command(flatten)]
    pods: PodArgs,
}

/// A network with real proofs.
pub(super) fn real_network(name: &str) -> Result<Network, String> {
    let network: Network = name.parse()?;
    if network.use_mock_proof() {
        return Err(format!("{network} has mock proofs: there is nothing to prove or to verify"));
    }
    Ok(network)
}

/// A transaction whose proofs are being made.
struct Collecting {
    folder: PathBuf,
    frame: Frame,
    leaves: BTreeMap<String, Leaf>,
}

impl Prove {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let inputs = ProgramInputs { public: self.input.clone(), secret: self.secret_file.clone() };
        let (mut jobs, mut transactions) = (vec![], vec![]);
        for path in &self.files {
            self.understand(path, &inputs, &mut jobs, &mut transactions).await?;
        }
        let client = self.pods.connect()?;
        let wishes = Wishes { priority: self.priority, force_cpu: self.force_cpu, deadline: self.deadline };
        let board = Board::new(jobs.iter().map(|job| job.name.len()).max().unwrap_or(0));
        let results = tokio::select! {
            results = prove_all(&client, jobs, wishes, &board) => results,
            interrupt = tokio::signal::ctrl_c() => {
                interrupt?;
                pods::settle(&client).await;
                bail!("interrupted; the pods were told to stop");
            }
        };

        let mut failed = 0;
        let mut proofs = BTreeMap::new();
        for result in results {
            match result.outcome {
                Ok(proved) => {
                    store::write(&self.output, &result.name, &result.claim, &proved.proof)?;
                    proofs.insert(result.name, proved.proof);
                }
                Err(_shown_on_the_board) => failed += 1,
            }
        }
        for transaction in transactions {
            failed += usize::from(!self.collect(transaction, &mut proofs, &board).await?);
        }
        Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Reads one file and adds its jobs.
    async fn understand(
        &self,
        path: &Path,
        inputs: &ProgramInputs,
        jobs: &mut Vec<NamedJob>,
        transactions: &mut Vec<Collecting>,
    ) -> anyhow::Result<()> {
        let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        match input::read(path, inputs)? {
            Work::Job(job) => {
                let name = unique(&stem, |name| jobs.iter().any(|job| job.name == name));
                jobs.push(NamedJob { name, job: *job, kind: JobKind::Other });
            }
            Work::Transaction(witness) => {
                if file::readable_by_others(path) {
                    eprintln!("fleet: {0} holds spending secrets and others may read it; run: chmod 600 {0}", path.display());
                }
                let plan = ProofCollectionPlan::new(&witness).await.with_context(|| path.display().to_string())?;
                let folder = unique(&stem, |name| transactions.iter().any(|other| other.folder.ends_with(name)));
                let mut leaves = BTreeMap::new();
                for leaf_job in plan.jobs {
                    let name = format!("{folder}/{}", leaf_job.leaf);
                    leaves.insert(name.clone(), leaf_job.leaf);
                    jobs.push(NamedJob { name, job: leaf_job.job, kind: JobKind::Leaf });
                }
                transactions.push(Collecting { folder: self.output.join(folder), frame: plan.frame, leaves });
            }
        }
        Ok(())
    }

    /// Assembles, checks and writes the collection of a transaction. False when proofs are missing or the chain says no.
    async fn collect(
        &self,
        transaction: Collecting,
        proofs: &mut BTreeMap<String, triton_vm::prelude::Proof>,
        board: &Board,
    ) -> anyhow::Result<bool> {
        let Collecting { folder, frame, leaves } = transaction;
        let own = leaves.into_iter().filter_map(|(name, leaf)| Some((leaf, proofs.remove(&name)?))).collect();
        let verdict = match frame.assemble(own) {
            Ok(collection) => VerifiedCollection::check(collection, self.network).await.map_err(anyhow::Error::from),
            Err(error) => Err(error.into()),
        };
        match verdict {
            Ok(verified) => {
                let path = folder.join(store::COLLECTION);
                store::replace(&path, &bincode::serialize(verified.collection())?)?;
                board.say(&format!("{}: valid under the rules of {}", path.display(), self.network));
                Ok(true)
            }
            Err(error) => {
                board.say(&format!("{}: no proof collection: {error}", folder.display()));
                Ok(false)
            }
        }
    }
}

/// The first of `stem`, `stem-2`, `stem-3` … that is not taken.
fn unique(stem: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|number| format!("{stem}-{number}"));
    let free = std::iter::once(stem.to_owned()).chain(numbered).find(|name| !taken(name));
    free.unwrap_or_else(|| stem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_same_name_do_not_overwrite_each_other() {
        let taken = ["job", "job-2"];
        assert_eq!("job-3", unique("job", |name| taken.contains(&name)));
        assert_eq!("other", unique("other", |name| taken.contains(&name)));
    }

    #[test]
    fn only_networks_with_real_proofs_have_something_to_prove() {
        assert!(real_network("main").is_ok());
        assert!(real_network("testnet").is_ok());
        assert!(real_network("regtest").is_err());
        assert!(real_network("testnet-mock").is_err());
        assert!(real_network("mars").is_err());
    }
}

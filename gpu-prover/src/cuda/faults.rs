//! Faults on purpose, for the tests on a device.

use triton_vm::challenges::Challenges;
use triton_vm::prelude::{Digest, XFieldElement};

use super::arena::Region;
use super::launch::{Launcher, args};
use super::stages::CudaStages;
use crate::domain::Domains;
use crate::error::GpuError;
use crate::main_table::MainTable;
use crate::plan::COSET_PRIORITY;
use crate::randomness::RandomStreams;
use crate::stages::{
    CombinationValues, CombinationWeights, FriOpening, FriQuery, OutOfDomainPoints, OutOfDomainRows, RowOpenings, RowQuery,
    Stages,
};

/// Makes room for a proof of `2^log2_height` rows.
///
/// # Errors
/// If there is none.
pub fn begin(stages: &mut CudaStages, log2_height: u32) -> Result<(), GpuError> {
    let domains = Domains::new(1 << log2_height)?;
    stages.begin(&domains)
}

/// Runs a kernel that writes to an address where nothing is. The context is lost afterwards.
///
/// # Errors
/// Always, on a device that checks addresses.
pub fn write_nowhere(stages: &CudaStages) -> Result<(), GpuError> {
    let launcher = Launcher::new(stages.device())?;
    let nowhere = 8_u64;
    launcher.launch("fri_leaves", &stages.kernels().fri_leaves, (1, 1), 32, 0, &mut args![nowhere, 8_u64, 1_u64, nowhere])?;
    stages.device().synchronize()
}

/// Where a bit is flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A coefficient of the main table, after its commitment.
    MainCoefficients,
    /// A value of the auxiliary table on a coset, after its commitment.
    AuxCodeword,
    /// The quotient's coefficients, after their commitment.
    QuotientSegments,
    /// The first FRI codeword, after its commitment.
    FriCodeword,
    /// A node of the main tree that is opened.
    MainTree,
}

impl Place {
    /// All places.
    pub const ALL: [Self; 5] =
        [Self::MainCoefficients, Self::AuxCodeword, Self::QuotientSegments, Self::FriCodeword, Self::MainTree];
}

/// A device that flips one bit of its memory during each proof.
#[derive(Debug)]
pub struct FlippedBit<'a> {
    stages: &'a mut CudaStages,
    place: Place,
}

impl<'a> FlippedBit<'a> {
    /// The device behind `stages`, with a bit flipped at `place`.
    pub fn new(stages: &'a mut CudaStages, place: Place) -> Self {
        Self { stages, place }
    }

    fn flip_if(&mut self, place: Place, word: Option<usize>) -> Result<(), GpuError> {
        if self.place != place {
            return Ok(());
        }
        let parts = self.stages.parts()?;
        let job = &parts.job;
        let region = match place {
            Place::MainCoefficients => job.main.region(),
            Place::AuxCodeword => job.buffer(COSET_PRIORITY[0]).aux.region(),
            Place::QuotientSegments => job.segments.region(),
            Place::FriCodeword => job.rounds[0].codeword,
            Place::MainTree => job.main_tree.nodes,
        };
        flip(&parts.launcher, region, word.unwrap_or(region.len() / 3))
    }
}

/// Flips the third bit of a word: the element stays below 2^64, and another one.
fn flip(launcher: &Launcher, region: Region<u64>, word: usize) -> Result<(), GpuError> {
    let one = region.slice(word, 1);
    let value = launcher.download(one)?[0];
    launcher.upload(one, &[value ^ 4])
}

impl Stages for FlippedBit<'_> {
    type Error = GpuError;

    fn begin(&mut self, domains: &Domains) -> Result<(), GpuError> {
        self.stages.begin(domains)
    }

    fn commit_main(&mut self, main: &MainTable, randomness: &RandomStreams) -> Result<Digest, GpuError> {
        let root = self.stages.commit_main(main, randomness)?;
        self.flip_if(Place::MainCoefficients, None)?;
        Ok(root)
    }

    fn commit_aux(&mut self, challenges: &Challenges, randomness: &RandomStreams) -> Result<Digest, GpuError> {
        let root = self.stages.commit_aux(challenges, randomness)?;
        self.flip_if(Place::AuxCodeword, None)?;
        Ok(root)
    }

    fn commit_quotient(&mut self, weights: &[XFieldElement], randomness: &RandomStreams) -> Result<Digest, GpuError> {
        let root = self.stages.commit_quotient(weights, randomness)?;
        self.flip_if(Place::QuotientSegments, None)?;
        Ok(root)
    }

    fn out_of_domain(&mut self, points: &OutOfDomainPoints) -> Result<OutOfDomainRows, GpuError> {
        self.stages.out_of_domain(points)
    }

    fn commit_deep(
        &mut self,
        points: &OutOfDomainPoints,
        values: &CombinationValues,
        weights: &CombinationWeights,
    ) -> Result<Digest, GpuError> {
        let root = self.stages.commit_deep(points, values, weights)?;
        self.flip_if(Place::FriCodeword, None)?;
        Ok(root)
    }

    fn fri_fold(&mut self, challenge: XFieldElement) -> Result<Digest, GpuError> {
        self.stages.fri_fold(challenge)
    }

    fn fri_last_codeword(&mut self) -> Result<Vec<XFieldElement>, GpuError> {
        self.stages.fri_last_codeword()
    }

    fn open_fri(&mut self, queries: &[FriQuery]) -> Result<Vec<FriOpening>, GpuError> {
        self.stages.open_fri(queries)
    }

    fn open_rows(&mut self, query: &RowQuery) -> Result<RowOpenings, GpuError> {
        // A node that is opened.
        self.flip_if(Place::MainTree, query.nodes.first().map(|&node| 5 * node))?;
        self.stages.open_rows(query)
    }
}

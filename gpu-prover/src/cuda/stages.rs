//! The prover's stages on a CUDA device.

use std::sync::Arc;
use std::time::Instant;

use triton_vm::challenges::Challenges;
use triton_vm::prelude::{BFieldElement, Digest, XFieldElement};

use super::ahead::{self, Ahead, Uploader, WaitingRoom};
use super::air;
use super::arena::{Arena, Region};
use super::columns::Columns;
use super::device::Device;
use super::job::{self, AUX_BASE_COLUMNS, BATCH_COLUMN, CosetBuffer, ForAux, Job, Tree, words};
use super::launch::{Kernels, Launcher, Tail, XMat, args};
use super::staging::Staging;
use crate::domain::{Domains, NUM_COSETS};
use crate::error::{GpuError, ProtocolError};
use crate::main_table::MainTable;
use crate::plan::{COSET_PRIORITY, Plan};
use crate::randomness::RandomStreams;
use crate::stages::{
    CombinationValues, CombinationWeights, FriOpening, FriQuery, NUM_MAIN_COLUMNS, NUM_ORIGINAL_AUX_COLUMNS,
    NUM_ORIGINAL_MAIN_COLUMNS, OutOfDomainPoints, OutOfDomainRows, RowOpenings, RowQuery, Stages,
};

/// [`Stages`] on one CUDA device. Reusable for any number of proofs, one at a time.
#[derive(Debug)]
pub struct CudaStages {
    device: Device,
    kernels: Kernels,
    staging: Staging,
    arena: Option<Arena>,
    forced_plan: Option<Plan>,
    job: Option<Job>,
    profile: Option<Profile>,
    room: Arc<WaitingRoom>,
    /// The next proof's table, if it is on the device already.
    arrived: Option<Ahead>,
}

/// Times of the steps of a proof, each waited for: the sum is a little more than an unprofiled proof takes.
#[derive(Debug)]
struct Profile {
    last: Instant,
    steps: Vec<(&'static str, f64)>,
}

/// Device memory that is left to the driver and to other processes' small needs.
const HEADROOM: u64 = 512 << 20;

/// Parents of the lowest level that one block handles alone.
const TOP_OF_TREE: u64 = 128;

impl CudaStages {
    /// Opens device `ordinal`. Without a plan, each proof gets the fastest one that fits.
    ///
    /// # Errors
    /// If there is no such device or no kernels for it.
    pub fn new(ordinal: usize, plan: Option<Plan>) -> Result<Self, GpuError> {
        let device = Device::open(ordinal)?;
        let kernels = Kernels::load(&device)?;
        let staging = Staging::new(device.context(), device.stream())?;
        let room = Arc::default();
        Ok(Self { device, kernels, staging, arena: None, forced_plan: plan, job: None, profile: None, room, arrived: None })
    }

    /// What brings the next proof's table to the device while a proof is made.
    ///
    /// # Errors
    /// If there is no page-locked memory for its buffers.
    pub fn uploader(&self) -> Result<Uploader, GpuError> {
        Uploader::new(&self.device, Arc::clone(&self.room))
    }

    /// The next proof's table, if it has been uploaded ahead.
    pub fn expect(&mut self, table: Option<Ahead>) {
        self.arrived = table;
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Prescribe a plan for the next proofs, or `None` for the fastest one that fits.
    pub fn set_plan(&mut self, plan: Option<Plan>) {
        self.forced_plan = plan;
    }

    /// The plan for a proof with these domains and the bytes it takes.
    ///
    /// # Errors
    /// If none fits.
    pub fn plan(&self, domains: &Domains) -> Result<(Plan, u64), GpuError> {
        if let Some(plan) = self.forced_plan {
            return Ok((plan, job::bytes(domains, plan)));
        }
        let usable = self.usable()?;
        ahead::fastest_plan(domains, usable).ok_or_else(|| {
            let needed = job::bytes(domains, Plan::CosetByCoset);
            GpuError::OutOfMemory { requested: needed, free: usable }
        })
    }

    /// Bytes that an arena may have.
    fn usable(&self) -> Result<u64, GpuError> {
        let (free, _) = self.device.memory()?;
        Ok((free + self.arena.as_ref().map_or(0, Arena::size)).saturating_sub(HEADROOM))
    }

    /// Waits after each step from now on and notes its time, or no longer does.
    pub fn set_profiling(&mut self, on: bool) {
        self.profile = on.then(|| Profile { last: Instant::now(), steps: vec![] });
    }

    /// The steps since the last call, with their seconds, in order; steps of one name are added up.
    pub fn take_profile(&mut self) -> Vec<(&'static str, f64)> {
        let mut sums: Vec<(&'static str, f64)> = vec![];
        for (name, seconds) in self.profile.iter_mut().flat_map(|profile| profile.steps.drain(..)) {
            match sums.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum += seconds,
                None => sums.push((name, seconds)),
            }
        }
        sums
    }

    /// The plan that [`Self::set_plan`] prescribed.
    pub fn plan_override(&self) -> Option<Plan> {
        self.forced_plan
    }

    pub(super) fn parts(&mut self) -> Result<Parts<'_>, GpuError> {
        let launcher = Launcher::new(&self.device)?;
        let job = self.job.as_mut().ok_or(ProtocolError::Internal("a stage before `begin`"))?;
        Ok(Parts { launcher, kernels: &self.kernels, job, staging: &mut self.staging, profile: self.profile.as_mut() })
    }
}

/// What every stage works with.
pub(super) struct Parts<'a> {
    pub launcher: Launcher<'a>,
    pub kernels: &'a Kernels,
    pub job: &'a mut Job,
    staging: &'a mut Staging,
    profile: Option<&'a mut Profile>,
}

impl Parts<'_> {
    /// Ends a step of the profile, if there is one.
    pub(super) fn step(&mut self, name: &'static str) -> Result<(), GpuError> {
        if let Some(profile) = &mut self.profile {
            self.launcher.device().synchronize()?;
            let now = Instant::now();
            profile.steps.push((name, (now - profile.last).as_secs_f64()));
            profile.last = now;
        }
        Ok(())
    }

    /// Does `work` for each coset (its place in the list, the coset): one after the other, or at the same time where cosets
    /// are small and none shares memory with another.
    pub(super) fn each_coset(
        &mut self,
        cosets: impl IntoIterator<Item = usize>,
        mut work: impl FnMut(&mut Self, usize, usize) -> Result<(), GpuError>,
    ) -> Result<(), GpuError> {
        let main = self.launcher;
        let cosets = cosets.into_iter().enumerate();
        if self.profile.is_some() || !self.job.uses_lanes() {
            return cosets.into_iter().try_for_each(|(place, coset)| work(self, place, coset));
        }
        let ready = main.mark()?;
        let mut done = vec![];
        for (place, coset) in cosets {
            self.launcher = main.on_lane(place);
            self.launcher.wait(&ready)?;
            let result = work(self, place, coset).and_then(|()| self.launcher.mark());
            self.launcher = main;
            done.push(result?);
        }
        done.iter().try_for_each(|mark| main.wait(mark))
    }

    /// Hashes the rows of a coset's columns into the leaves of a tree.
    pub(super) fn hash_rows(&self, columns: Columns, tree: Tree, coset: usize) -> Result<(), GpuError> {
        assert_eq!(tree.leaves, NUM_COSETS * columns.rows(), "a tree over eight cosets");
        let tiles = columns.rows().div_ceil(128) as u32;
        let leaves = tree.nodes.slice(5 * tree.leaves, 5 * tree.leaves);
        self.launcher.launch(
            "row_hash",
            &self.kernels.row_hash,
            (tiles.min(3 * self.launcher.multiprocessors()), 1),
            256,
            0,
            &mut args![
                columns.address(),
                columns.stride(),
                columns.columns() as u32,
                columns.rows() as u64,
                leaves.address(),
                NUM_COSETS as u64,
                coset as u64
            ],
        )
    }

    /// Builds a tree on its leaves and returns the root.
    pub(super) fn build_tree(&self, tree: Tree) -> Result<Digest, GpuError> {
        let mut parents = tree.leaves as u64 / 2;
        while parents > TOP_OF_TREE {
            let tiles = parents.div_ceil(128) as u32;
            self.launcher.launch(
                "merkle_level",
                &self.kernels.merkle_level,
                (tiles.min(3 * self.launcher.multiprocessors()), 1),
                256,
                0,
                &mut args![tree.nodes.address(), parents],
            )?;
            parents /= 2;
        }
        self.launcher.launch(
            "merkle_top",
            &self.kernels.merkle_top,
            (1, 1),
            256,
            0,
            &mut args![tree.nodes.address(), parents],
        )?;
        let root = self.launcher.download(tree.nodes.slice(5, 5))?;
        Ok(digest(&root))
    }

    /// Evaluates the main table on a coset.
    pub(super) fn main_on_coset(&self, coset: usize) -> Result<CosetBuffer, GpuError> {
        let job = &self.job;
        let buffer = job.buffer(coset);
        if !job.is_cached(coset) {
            job.shared_main.set(Some(coset));
        }
        let tail = Tail::of(job.main_tail, job.domains.coset_zerofier(coset));
        job.ntt.evaluate(&self.launcher, self.kernels, job.main, buffer.main, coset, tail)?;
        Ok(buffer)
    }

    /// Evaluates the auxiliary table on a coset.
    fn aux_on_coset(&self, coset: usize) -> Result<CosetBuffer, GpuError> {
        let job = &self.job;
        let buffer = job.buffer(coset);
        if !job.is_cached(coset) {
            job.shared_aux.set(Some(coset));
        }
        let zerofier = job.domains.coset_zerofier(coset);
        let (aux, target) = (job.aux, buffer.aux);
        job.ntt.evaluate(
            &self.launcher,
            self.kernels,
            aux.part(0, BATCH_COLUMN),
            target.part(0, BATCH_COLUMN),
            coset,
            Tail::of(job.aux_tail, zerofier),
        )?;
        // The batch randomizer's own randomizer is as long as the trace.
        let batch = target.part(BATCH_COLUMN, 3);
        self.add_scaled(aux.part(BATCH_COLUMN, 3), zerofier, aux.part(AUX_BASE_COLUMNS, 3), batch)?;
        job.ntt.evaluate(&self.launcher, self.kernels, batch, batch, coset, Tail::NONE)?;
        Ok(buffer)
    }

    /// Both tables on a coset, computed again if they were not kept.
    pub(super) fn coset(&self, coset: usize) -> Result<CosetBuffer, GpuError> {
        let job = &self.job;
        if !job.is_cached(coset) {
            if job.shared_main.get() != Some(coset) {
                self.main_on_coset(coset)?;
            }
            if job.shared_aux.get() != Some(coset) {
                self.aux_on_coset(coset)?;
            }
        }
        Ok(job.buffer(coset))
    }

    /// out = a + factor * b
    pub(super) fn add_scaled(&self, a: Columns, factor: BFieldElement, b: Columns, out: Columns) -> Result<(), GpuError> {
        assert_eq!((a.rows(), a.columns()), (b.rows(), b.columns()), "matrices of different shapes");
        assert_eq!((a.rows(), a.columns()), (out.rows(), out.columns()), "matrices of different shapes");
        self.launcher.launch(
            "add_scaled",
            &self.kernels.add_scaled,
            self.launcher.blocks(a.rows(), 256),
            256,
            0,
            &mut args![
                a.address(),
                a.stride(),
                factor.raw_u64(),
                b.address(),
                b.stride(),
                out.address(),
                out.stride(),
                a.rows() as u64,
                a.columns() as u32
            ],
        )
    }

    /// Extension elements of the host, columns of `target.rows()`, into base columns.
    fn split(&self, elements: Region<u64>, target: Columns, bit_reversed: bool) -> Result<(), GpuError> {
        assert_eq!(elements.len(), target.rows() * target.columns(), "as many words as the columns have");
        let (rows, columns) = (target.rows() as u64, target.columns() as u64 / 3);
        let log_n = if bit_reversed { target.rows().ilog2() } else { 0 };
        self.launcher.launch(
            "split_coefficients",
            &self.kernels.split_coefficients,
            self.launcher.blocks(target.rows() * target.columns() / 3, 256),
            256,
            0,
            &mut args![elements.address(), rows, columns, target.address(), target.stride(), log_n],
        )
    }

    fn fill(
        &self,
        name: &'static str,
        function: &cudarc::driver::CudaFunction,
        main: Columns,
        aux: Columns,
        rows: usize,
    ) -> Result<(), GpuError> {
        assert_eq!(main.columns(), NUM_MAIN_COLUMNS, "all main columns");
        let blocks = rows.div_ceil(air::THREADS as usize) as u32;
        self.launcher.launch(
            name,
            function,
            (blocks, 1),
            air::THREADS,
            0,
            &mut args![main.address(), aux.address(), main.stride(), rows as u64],
        )
    }

    /// Sum over columns times weights: base columns first, then extension columns.
    pub(super) fn combine(
        &self,
        base: Option<Columns>,
        extension: Columns,
        weights: &[XFieldElement],
        out: Columns,
    ) -> Result<(), GpuError> {
        let num_base = base.map_or(0, Columns::columns);
        let num_extension = extension.columns() / 3;
        assert_eq!(weights.len(), num_base + num_extension, "one weight a column");
        assert_eq!((out.columns(), out.rows()), (3, extension.rows()), "one extension column");
        let matrices: Vec<u64> = weights.iter().flat_map(|&w| XMat::from(w).0).collect();
        let region = self.job.combination_weights.slice(0, matrices.len());
        self.launcher.upload(region, &matrices)?;
        let base = base.unwrap_or(extension);
        self.launcher.launch(
            "combine_columns",
            &self.kernels.combine_columns,
            self.launcher.blocks(out.rows(), 256),
            256,
            8 * matrices.len() as u32,
            &mut args![
                base.address(),
                base.stride(),
                num_base as u32,
                extension.address(),
                extension.stride(),
                num_extension as u32,
                region.address(),
                out.rows() as u64,
                out.address(),
                out.stride()
            ],
        )
    }

    /// The columns of degree lowering, from the 149 original ones in `main_values`.
    pub(super) fn derive_main_columns(&self) -> Result<(), GpuError> {
        let values = self.job.main_values;
        let derived = values.part(NUM_ORIGINAL_MAIN_COLUMNS, NUM_MAIN_COLUMNS - NUM_ORIGINAL_MAIN_COLUMNS);
        // The last row of columns that depend on the next row stays 0.
        self.launcher.clear(derived.region())?;
        self.fill("fill_main_single", &self.kernels.fill_main_single, values, values, values.rows())?;
        self.fill("fill_main_dual", &self.kernels.fill_main_dual, values, values, values.rows() - 1)
    }

    /// The auxiliary columns of degree lowering, from all others and the main table.
    pub(super) fn derive_aux_columns(&self, challenges: &Challenges) -> Result<(), GpuError> {
        let (main, aux) = (self.job.main_values, self.job.aux);
        let derived = aux.part(3 * NUM_ORIGINAL_AUX_COLUMNS, BATCH_COLUMN - 3 * NUM_ORIGINAL_AUX_COLUMNS);
        self.launcher.clear(derived.region())?;
        air::upload_challenges(self.launcher.device(), challenges, "fill_aux_dual")?;
        self.fill("fill_aux_dual", &self.kernels.fill_aux_dual, main, aux, main.rows() - 1)
    }

    fn commit_main(
        &mut self,
        main: &MainTable,
        arrived: Option<Ahead>,
        randomness: &RandomStreams,
    ) -> Result<Digest, GpuError> {
        if main.domains() != &self.job.domains {
            return Err(ProtocolError::Internal("a table of another height than `begin` was told").into());
        }
        self.step("host")?;
        let original = self.job.main_values.part(0, NUM_ORIGINAL_MAIN_COLUMNS);
        let stream = self.launcher.device().stream();
        if !arrived.map_or(Ok(false), |table| table.move_to(main, original.region(), stream))? {
            self.staging.upload(stream, original.region(), words(main.columns().as_slice()))?;
        }
        self.step("main upload")?;
        self.derive_main_columns()?;
        self.step("main derived columns")?;
        let (values, coefficients) = (self.job.main_values, self.job.main);
        self.job.ntt.interpolate_trace(&self.launcher, self.kernels, values, coefficients)?;
        self.step("main interpolation")?;

        let randomizers = randomness.main_randomizers();
        self.launcher.upload(self.job.main_tail.region(), words(randomizers.as_slice()))?;
        self.job.main_randomizers = Some(randomizers);
        self.step("main host work")?;
        self.each_coset(Plan::walk(), |parts, _, coset| {
            let buffer = parts.main_on_coset(coset)?;
            parts.step("main evaluation")?;
            parts.hash_rows(buffer.main, parts.job.main_tree, coset)?;
            parts.step("main row hash")
        })?;
        // All of that is only enqueued: what the host must do for the next stage costs no time here.
        let n = self.job.domains.trace_length();
        let (batch_values, batch_randomizer) = rayon::join(|| randomness.batch_values(n), || randomness.batch_randomizer(n));
        self.job.for_aux = Some(ForAux { batch_values, batch_randomizer });
        self.step("main host work")?;
        let root = self.build_tree(self.job.main_tree)?;
        self.step("trees")?;
        Ok(root)
    }

    fn commit_aux(&mut self, challenges: &Challenges, randomness: &RandomStreams) -> Result<Digest, GpuError> {
        let host = self.job.for_aux.take().ok_or(ProtocolError::Internal("aux before main"))?;
        let ForAux { batch_values, batch_randomizer } = host;
        self.step("host")?;
        // The auxiliary part of a coset buffer is free until the end of this stage.
        let aux = self.job.aux;
        let workspace = self.job.buffer(COSET_PRIORITY[0]).aux.region();
        self.extend(self.job.main_values, aux, challenges, workspace)?;
        self.step("aux extension")?;
        for (elements, target, bit_reversed) in [
            (batch_values.as_slice(), aux.part(BATCH_COLUMN, 3), false),
            (batch_randomizer.as_slice(), aux.part(AUX_BASE_COLUMNS, 3), true),
        ] {
            let staged = workspace.slice(0, 3 * elements.len());
            self.staging.upload(self.launcher.device().stream(), staged, job::extension_words(elements))?;
            self.split(staged, target, bit_reversed)?;
        }
        self.step("aux upload")?;
        self.derive_aux_columns(challenges)?;
        self.step("aux derived columns")?;
        let table = self.job.aux.part(0, AUX_BASE_COLUMNS);
        self.job.ntt.interpolate_trace(&self.launcher, self.kernels, table, table)?;
        self.step("aux interpolation")?;

        let randomizers = randomness.aux_randomizers();
        self.launcher.upload(self.job.aux_tail.region(), &job::base_columns(&randomizers))?;
        self.job.aux_randomizers = Some(randomizers);
        self.job.challenges = Some(challenges.clone());
        self.step("aux host work")?;
        self.each_coset(Plan::walk(), |parts, _, coset| {
            let buffer = parts.aux_on_coset(coset)?;
            parts.step("aux evaluation")?;
            parts.hash_rows(buffer.aux, parts.job.aux_tree, coset)?;
            parts.step("aux row hash")
        })?;
        let root = self.build_tree(self.job.aux_tree)?;
        self.step("trees")?;
        Ok(root)
    }
}

impl Stages for CudaStages {
    type Error = GpuError;

    fn begin(&mut self, domains: &Domains) -> Result<(), GpuError> {
        // A proof that was given up may still be under way.
        self.device.synchronize_all()?;
        let mut before = self.job.take();
        if let Some(profile) = &mut self.profile {
            profile.last = Instant::now();
        }
        let (plan, bytes) = self.plan(domains)?;
        if self.arena.as_ref().is_none_or(|arena| arena.size() < bytes) {
            // Freed before the new one is asked for: together they might not fit.
            before = None;
            self.room.close();
            self.arena = None;
            // Where there is memory to spare, the next proofs' tables can wait in it.
            let with_room = ahead::arena_bytes(domains, bytes, self.usable()?);
            let spacious = if with_room > bytes { Arena::new(&self.device, with_room).ok() } else { None };
            self.arena = Some(spacious.map_or_else(|| Arena::new(&self.device, bytes), Ok)?);
        }
        let usable = self.usable()?;
        if let Some(mut job) = before
            && (job.domains, job.plan) == (*domains, plan)
        {
            job.renew();
            self.job = Some(job);
            return Ok(());
        }
        let arena = self.arena.as_mut().ok_or(ProtocolError::Internal("no arena"))?;
        // A table that waits where this proof will work has to go first.
        arena.clear();
        self.room.make_way(arena.size() - bytes);
        let launcher = Launcher::new(&self.device)?;
        self.job = Some(Job::new(&launcher, arena, domains, plan)?);
        self.room.open(arena, usable, self.forced_plan);
        Ok(())
    }

    fn commit_main(&mut self, main: &MainTable, randomness: &RandomStreams) -> Result<Digest, GpuError> {
        let arrived = self.arrived.take();
        self.parts()?.commit_main(main, arrived, randomness)
    }

    fn commit_aux(&mut self, challenges: &Challenges, randomness: &RandomStreams) -> Result<Digest, GpuError> {
        self.parts()?.commit_aux(challenges, randomness)
    }

    fn commit_quotient(&mut self, weights: &[XFieldElement], randomness: &RandomStreams) -> Result<Digest, GpuError> {
        self.parts()?.commit_quotient(weights, randomness)
    }

    fn out_of_domain(&mut self, points: &OutOfDomainPoints) -> Result<OutOfDomainRows, GpuError> {
        let mut parts = self.parts()?;
        parts.step("host")?;
        let rows = parts.out_of_domain(points)?;
        parts.step("out of domain")?;
        Ok(rows)
    }

    fn commit_deep(
        &mut self,
        points: &OutOfDomainPoints,
        values: &CombinationValues,
        weights: &CombinationWeights,
    ) -> Result<Digest, GpuError> {
        let mut parts = self.parts()?;
        parts.step("host")?;
        let root = parts.commit_deep(points, values, weights)?;
        parts.step("combination, DEEP")?;
        Ok(root)
    }

    fn fri_fold(&mut self, challenge: XFieldElement) -> Result<Digest, GpuError> {
        let mut parts = self.parts()?;
        let root = parts.fri_fold(challenge)?;
        parts.step("FRI")?;
        Ok(root)
    }

    fn fri_last_codeword(&mut self) -> Result<Vec<XFieldElement>, GpuError> {
        let parts = self.parts()?;
        let newest = parts.job.newest_round;
        let all: Vec<usize> = (0..parts.job.rounds[newest].length).collect();
        parts.gather_codeword(newest, &all)
    }

    fn open_fri(&mut self, queries: &[FriQuery]) -> Result<Vec<FriOpening>, GpuError> {
        let parts = self.parts()?;
        let open = |query: &FriQuery| {
            let round = parts.job.rounds.get(query.round).ok_or(ProtocolError::Internal("a FRI round that is not there"))?;
            Ok(FriOpening {
                values: parts.gather_codeword(query.round, &query.indices)?,
                nodes: parts.gather_nodes(round.tree, &query.nodes)?,
            })
        };
        queries.iter().map(open).collect()
    }

    fn open_rows(&mut self, query: &RowQuery) -> Result<RowOpenings, GpuError> {
        let mut parts = self.parts()?;
        parts.step("host")?;
        let openings = parts.open_rows(query)?;
        parts.step("opening")?;
        Ok(openings)
    }
}

pub(super) fn digest(words: &[u64]) -> Digest {
    Digest::new(std::array::from_fn(|i| BFieldElement::from_raw_u64(words[i])))
}

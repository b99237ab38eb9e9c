//! The quotient on the device: constraints on five cosets, reconstruction, segments. `kernels/quotient.cu` has the algebra.

use triton_vm::prelude::{BFieldElement, Digest, XFieldElement};

use super::air::{self, Kind};
use super::columns::Columns;
use super::job::{self, QUOTIENT_COSETS};
use super::launch::{Tail, args};
use super::stages::Parts;
use crate::domain::NUM_COSETS;
use crate::error::{GpuError, ProtocolError};
use crate::randomness::RandomStreams;

impl Parts<'_> {
    pub(super) fn commit_quotient(
        &mut self,
        weights: &[XFieldElement],
        randomness: &RandomStreams,
    ) -> Result<Digest, GpuError> {
        self.step("host")?;
        let challenges = self.job.challenges.as_ref().ok_or(ProtocolError::Internal("quotient before aux"))?;
        air::upload_constants(self.launcher.device(), challenges, weights)?;
        self.each_coset(QUOTIENT_COSETS, |parts, place, coset| {
            let tables = parts.coset(coset)?;
            parts.step("evaluation again for the quotient")?;
            let regular = (place < 4).then(|| parts.job.regular.part(3 * place, 3));
            let sums = parts.job.sums[place % parts.job.sums.len()];
            for kind in Kind::ALL {
                if regular.is_some() || matches!(kind, Kind::Initial | Kind::Terminal) {
                    parts.kernels.air.sum(&parts.launcher, kind, tables.main, tables.aux, sums[kind as usize])?;
                    parts.step(kind.name())?;
                }
            }
            let boundary = parts.job.boundary.part(3 * place, 3);
            parts.divide_by_zerofiers(coset, sums, regular, boundary)?;
            for codeword in regular.into_iter().chain([boundary]) {
                parts.job.ntt.interpolate_coset(&parts.launcher, parts.kernels, codeword, coset)?;
            }
            parts.step("quotient interpolation")
        })?;
        self.reconstruct()?;
        self.randomize_segments(&randomness.quotient_randomizer())?;
        self.step("quotient segments")?;
        self.each_coset(0..NUM_COSETS, |parts, _, coset| {
            let job = &parts.job;
            let values = job.segment_cosets[coset];
            let tail = Tail::of(job.segment_tail, job.domains.coset_zerofier(coset) + BFieldElement::new(1));
            job.ntt.evaluate(&parts.launcher, parts.kernels, job.segments, values, coset, tail)?;
            parts.step("quotient evaluation")?;
            parts.hash_rows(values, parts.job.quotient_tree, coset)?;
            parts.step("quotient row hash")
        })?;
        let root = self.build_tree(self.job.quotient_tree)?;
        self.step("trees")?;
        Ok(root)
    }

    fn divide_by_zerofiers(
        &self,
        coset: usize,
        sums: [Columns; 4],
        regular: Option<Columns>,
        boundary: Columns,
    ) -> Result<(), GpuError> {
        #[repr(C)]
        struct Coset {
            offset: u64,
            low: u64,
            high: u64,
        }
        let job = &self.job;
        let points = Coset {
            offset: job.domains.coset_offset(coset).raw_u64(),
            low: job.ntt.roots.low.address(),
            high: job.ntt.roots.high.address(),
        };
        let last = job.domains.trace_generator().inverse().raw_u64();
        let zerofier_inverse = job.domains.coset_zerofier(coset).inverse().raw_u64();
        let [initial, consistency, transition, terminal] = sums.map(Columns::address);
        let n = boundary.rows();
        self.launcher.launch(
            "divide_by_zerofiers",
            &self.kernels.divide_by_zerofiers,
            self.launcher.blocks(n, 256),
            256,
            0,
            &mut args![
                initial,
                consistency,
                transition,
                terminal,
                n as u64,
                points,
                last,
                zerofier_inverse,
                regular.map_or(0, Columns::address),
                boundary.address()
            ],
        )
    }

    fn reconstruct(&self) -> Result<(), GpuError> {
        #[repr(C)]
        struct Reconstruction {
            inverse_twiddles: [u64; 4],
            scale: [u64; 4],
            odd: [u64; 4],
            minus_half_inverse: u64,
            constant: u64,
        }
        let job = &self.job;
        let n = job.domains.trace_length();
        let root = crate::domain::root_of_unity(4).inverse();
        let offset = job.domains.coset_offset(0).mod_pow(n as u64);
        let odd = job.domains.coset_offset(1).mod_pow(n as u64);
        let constant = offset.mod_pow(4);
        let per_block = |f: &dyn Fn(u64) -> BFieldElement| [0, 1, 2, 3].map(|t| f(t).raw_u64());
        let constants = Reconstruction {
            inverse_twiddles: per_block(&|t| root.mod_pow(t)),
            scale: per_block(&|t| (BFieldElement::new(4) * offset.mod_pow(t)).inverse()),
            odd: per_block(&|t| odd.mod_pow(t)),
            minus_half_inverse: (-BFieldElement::new(2) * constant).inverse().raw_u64(),
            constant: constant.raw_u64(),
        };
        self.launcher.launch(
            "reconstruct_quotient",
            &self.kernels.reconstruct_quotient,
            self.launcher.blocks(n, 256),
            256,
            0,
            &mut args![job.regular.address(), job.boundary.address(), n as u64, constants, job.quotient.address()],
        )
    }

    fn randomize_segments(&self, random: &[XFieldElement]) -> Result<(), GpuError> {
        let job = &self.job;
        let n = job.domains.trace_length();
        self.launcher.upload(job.segment_random, job::extension_words(random))?;
        self.launcher.launch(
            "randomize_segments",
            &self.kernels.randomize_segments,
            self.launcher.blocks(n + job.segment_tail.rows(), 256),
            256,
            0,
            &mut args![
                job.quotient.address(),
                n as u64,
                n.ilog2(),
                job.segment_random.address(),
                random.len() as u64,
                job.segment_powers.low.address(),
                job.segment_powers.high.address(),
                BFieldElement::new(3).raw_u64(),
                job.segments.address(),
                job.segment_tail.address(),
                job.segment_tail.stride()
            ],
        )
    }
}

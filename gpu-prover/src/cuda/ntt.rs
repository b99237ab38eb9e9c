//! Transforms on the device: tables, tile shapes, launches. `kernels/ntt.cuh` explains the two passes.

use std::ops::RangeInclusive;

use cudarc::driver::CudaFunction;
use triton_vm::prelude::BFieldElement;

use super::arena::{Arena, Region, padded};
use super::columns::Columns;
use super::launch::{Kernels, Launcher, RowsPass, Tail, args};
use crate::domain::{Domains, NUM_COSETS, root_of_unity};
use crate::error::GpuError;

/// Entries of the low half of a two-level table of powers.
pub(crate) const POWER_LOW: usize = 1 << 12;

/// Elements of a tile where the transform leaves a choice: 32 KiB.
const TILE: usize = 1 << 12;

/// log2 of the rows that there are kernels for.
pub(crate) const LOG_ROWS: RangeInclusive<u32> = 4..=11;

/// log2 of the longest block.
const LOG_BLOCK_MAX: u32 = 12;

/// Powers `base^0 .. base^length` as two tables on the device: see `table_power`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PowerTable {
    pub low: Region<u64>,
    pub high: Region<u64>,
}

impl PowerTable {
    pub(crate) fn bytes(length: usize) -> u64 {
        padded::<u64>(POWER_LOW) + padded::<u64>(length.div_ceil(POWER_LOW))
    }

    pub(crate) fn new(launcher: &Launcher, arena: &mut Arena, base: BFieldElement, length: usize) -> Result<Self, GpuError> {
        let table = |base: BFieldElement, length| {
            let power = std::iter::successors(Some(BFieldElement::new(1)), |&power| Some(power * base));
            power.take(length).map(|p| p.raw_u64()).collect::<Vec<_>>()
        };
        Ok(Self {
            low: launcher.upload_new(arena, &table(base, POWER_LOW))?,
            high: launcher.upload_new(arena, &table(base.mod_pow(POWER_LOW as u64), length.div_ceil(POWER_LOW)))?,
        })
    }
}

/// Tables for transforms on one coset, in one direction.
#[derive(Debug, Clone, Copy)]
struct CosetTables {
    /// Twiddles of the contiguous pass, with the offset's powers inside.
    contiguous: Region<u64>,
    /// The offset's power for each row of the other pass.
    powers: Region<u64>,
    /// What the other pass multiplies with beside: 1, or 1/n for inverses. In Montgomery form.
    scale: u64,
}

/// Everything that transforms of one length need.
#[derive(Debug)]
pub(crate) struct Ntt {
    log_n: u32,
    log_block: u32,
    forward: [CosetTables; NUM_COSETS],
    inverse: [CosetTables; NUM_COSETS],
    inverse_trace: CosetTables,
    row_twiddles: Region<u64>,
    inverse_row_twiddles: Region<u64>,
    /// Powers of `w_n`.
    pub roots: PowerTable,
    inverse_roots: PowerTable,
}

/// `2^log_n = rows * block`. Of the ways to do it one with the fewest phases (see `Phases` in `ntt.cuh`), and of those the one
/// with the fewest rows, whose tiles have the longest pieces of memory.
pub(crate) fn split(log_n: u32) -> (u32, u32) {
    let phases = |log_rows: &u32| log_rows.div_ceil(4) + (log_n - log_rows).div_ceil(4);
    let possible = LOG_ROWS.filter(|&log_rows| (4..=LOG_BLOCK_MAX).contains(&log_n.saturating_sub(log_rows)));
    let log_rows = possible.min_by_key(phases).unwrap_or(log_n / 2);
    (log_rows, log_n - log_rows)
}

impl Ntt {
    /// Device memory for transforms of `n` points.
    pub(crate) fn bytes(n: usize) -> u64 {
        let (log_rows, log_block) = split(n.ilog2());
        let tables = 2 * NUM_COSETS as u64 + 1;
        let each = padded::<u64>(1 << log_block) + padded::<u64>(1 << log_rows);
        tables * each + 2 * padded::<u64>(1 << log_rows) + 2 * PowerTable::bytes(n)
    }

    pub(crate) fn new(launcher: &Launcher, arena: &mut Arena, domains: &Domains) -> Result<Self, GpuError> {
        let n = domains.trace_length();
        let log_n = n.ilog2();
        let (log_rows, log_block) = split(log_n);
        let root = root_of_unity(n);
        let length = BFieldElement::new(n as u64);

        let mut coset = |offset: BFieldElement, inverse: bool| -> Result<CosetTables, GpuError> {
            let (offset, scale) = if inverse { (offset.inverse(), length.inverse()) } else { (offset, BFieldElement::new(1)) };
            let contiguous = twiddles(log_block, offset.mod_pow(1 << log_rows), inverse);
            let one = BFieldElement::new(1);
            let natural: Vec<_> = std::iter::successors(Some(one), |&power| Some(power * offset)).take(1 << log_rows).collect();
            let powers: Vec<_> = (0..natural.len()).map(|r| natural[reverse(r, log_rows)].raw_u64()).collect();
            Ok(CosetTables {
                contiguous: launcher.upload_new(arena, &contiguous)?,
                powers: launcher.upload_new(arena, &powers)?,
                scale: scale.raw_u64(),
            })
        };
        let mut all = |inverse| -> Result<[CosetTables; NUM_COSETS], GpuError> {
            let tables: Vec<_> = (0..NUM_COSETS).map(|j| coset(domains.coset_offset(j), inverse)).collect::<Result<_, _>>()?;
            Ok(std::array::from_fn(|j| tables[j]))
        };
        let (forward, inverse) = (all(false)?, all(true)?);
        let inverse_trace = coset(BFieldElement::new(1), true)?;
        Ok(Self {
            log_n,
            log_block,
            forward,
            inverse,
            inverse_trace,
            row_twiddles: launcher.upload_new(arena, &twiddles(log_rows, BFieldElement::new(1), false))?,
            inverse_row_twiddles: launcher.upload_new(arena, &twiddles(log_rows, BFieldElement::new(1), true))?,
            roots: PowerTable::new(launcher, arena, root, n)?,
            inverse_roots: PowerTable::new(launcher, arena, root.inverse(), n)?,
        })
    }

    /// Values on coset `coset` of the polynomials whose bit-reversed coefficients are `source`, plus `tail`, into
    /// `target`, which may be `source`.
    pub(crate) fn evaluate(
        &self,
        launcher: &Launcher,
        kernels: &Kernels,
        source: Columns,
        target: Columns,
        coset: usize,
        tail: Tail,
    ) -> Result<(), GpuError> {
        self.check(source);
        self.check(target);
        assert_eq!(source.columns(), target.columns(), "one column in, one column out");
        let tables = &self.forward[coset];
        let (tile, threads) = self.contiguous_shape();
        launcher.launch(
            "ntt_forward_contiguous",
            &kernels.ntt_forward_contiguous,
            ((1 << self.log_n) / tile, source.columns() as u32),
            threads,
            tile_bytes(tile, 0),
            &mut args![
                source.address(),
                source.stride(),
                target.address(),
                target.stride(),
                self.log_n,
                self.log_block,
                tables.contiguous.address(),
                tail
            ],
        )?;
        self.rows(launcher, &kernels.ntt_forward_rows, target, target, tables, (self.row_twiddles, self.roots))
    }

    /// The rows pass, in either direction.
    fn rows(
        &self,
        launcher: &Launcher,
        kernels: &[CudaFunction],
        source: Columns,
        target: Columns,
        tables: &CosetTables,
        (twiddles, roots): (Region<u64>, PowerTable),
    ) -> Result<(), GpuError> {
        let shape = self.row_shape(target.columns() as u32, launcher.multiprocessors());
        let pass = RowsPass {
            source: source.address(),
            source_stride: source.stride(),
            target: target.address(),
            target_stride: target.stride(),
            columns: target.columns() as u32,
            columns_per_block: shape.columns_per_block,
            log_n: self.log_n,
            log_width: shape.log_width,
            twiddles: twiddles.address(),
            powers: tables.powers.address(),
            low: roots.low.address(),
            high: roots.high.address(),
            scale: tables.scale,
        };
        let kernel = &kernels[(self.log_rows() - LOG_ROWS.start()) as usize];
        launcher.launch("ntt_rows", kernel, shape.grid, shape.threads, shape.shared, &mut args![pass])
    }

    /// Bit-reversed coefficients of the polynomials whose values on the trace domain are `source`, into `target`, which
    /// may be `source`.
    pub(crate) fn interpolate_trace(
        &self,
        launcher: &Launcher,
        kernels: &Kernels,
        source: Columns,
        target: Columns,
    ) -> Result<(), GpuError> {
        self.interpolate(launcher, kernels, source, target, self.inverse_trace)
    }

    /// The same for values on coset `coset`, in place: the polynomial modulo `X^n - g^n`.
    pub(crate) fn interpolate_coset(
        &self,
        launcher: &Launcher,
        kernels: &Kernels,
        values: Columns,
        coset: usize,
    ) -> Result<(), GpuError> {
        self.interpolate(launcher, kernels, values, values, self.inverse[coset])
    }

    fn interpolate(
        &self,
        launcher: &Launcher,
        kernels: &Kernels,
        source: Columns,
        target: Columns,
        tables: CosetTables,
    ) -> Result<(), GpuError> {
        self.check(source);
        self.check(target);
        assert_eq!(source.columns(), target.columns(), "one column in, one column out");
        self.rows(
            launcher,
            &kernels.ntt_inverse_rows,
            source,
            target,
            &tables,
            (self.inverse_row_twiddles, self.inverse_roots),
        )?;
        let (tile, threads) = self.contiguous_shape();
        launcher.launch(
            "ntt_inverse_contiguous",
            &kernels.ntt_inverse_contiguous,
            ((1 << self.log_n) / tile, target.columns() as u32),
            threads,
            tile_bytes(tile, 0),
            &mut args![target.address(), target.stride(), self.log_block, tables.contiguous.address()],
        )
    }

    fn check(&self, columns: Columns) {
        assert_eq!(columns.rows(), 1 << self.log_n, "columns of another length than the tables are for");
    }

    fn log_rows(&self) -> u32 {
        self.log_n - self.log_block
    }

    /// Elements of a tile, threads of its block.
    fn contiguous_shape(&self) -> (u32, u32) {
        let tile = TILE.max(1 << self.log_block).min(1 << self.log_n) as u32;
        (tile, tile / 16)
    }

    fn row_shape(&self, columns: u32, multiprocessors: u32) -> RowShape {
        let rows = 1_usize << self.log_rows();
        // At least 4 lanes, which are whole memory sectors.
        let width = (TILE / rows).max(4).min(1 << self.log_block);
        let tile = (rows * width) as u32;
        let tiles = (1 << self.log_n) / tile;
        // The factors of a tile are computed once for several columns, as long as there are blocks for everyone.
        let columns_per_block = (tiles * columns / (8 * multiprocessors)).clamp(1, 16);
        RowShape {
            grid: (tiles, columns.div_ceil(columns_per_block)),
            threads: tile / 16,
            shared: rows_bytes(rows as u32, width.ilog2()),
            log_width: width.ilog2(),
            columns_per_block,
        }
    }
}

struct RowShape {
    grid: (u32, u32),
    threads: u32,
    shared: u32,
    log_width: u32,
    columns_per_block: u32,
}

/// Bytes of fast memory of a padded tile: see `tile_length`.
fn tile_bytes(rows: u32, log_width: u32) -> u32 {
    ((rows + rows / 16) << log_width) * 8
}

/// Of the rows pass, whose tile is followed by a heap of twiddles for each lane.
fn rows_bytes(rows: u32, log_width: u32) -> u32 {
    tile_bytes(rows, log_width) + (16 << log_width) * 8
}

/// The most that any transform uses, for the limit that a kernel must be told of.
pub(crate) fn max_tile_bytes() -> u32 {
    rows_bytes(1 << LOG_ROWS.end(), 2)
}

pub(crate) fn reverse(index: usize, bits: u32) -> usize {
    if bits == 0 { 0 } else { index.reverse_bits() >> (usize::BITS - bits) }
}

/// The heap of twiddles of transforms of `2^log` points on the coset `offset <w>`: entry `h + i` is
/// `offset^(2^log / 2h) w_2h^i`, or its inverse (then `offset` comes inverted).
fn twiddles(log: u32, offset: BFieldElement, inverse: bool) -> Vec<u64> {
    let mut heap = vec![0; 1 << log];
    for level in 0..log {
        let half = 1_usize << level;
        let root = root_of_unity(2 * half);
        let root = if inverse { root.inverse() } else { root };
        let mut factor = offset.mod_pow(1 << (log - level - 1));
        for entry in &mut heap[half..2 * half] {
            *entry = factor.raw_u64();
            factor *= root;
        }
    }
    heap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_split_into_blocks_that_fit_a_tile() {
        for log_n in 8..=23 {
            let (rows, block) = split(log_n);
            assert_eq!(rows + block, log_n);
            assert!(LOG_ROWS.contains(&rows) && (4..=LOG_BLOCK_MAX).contains(&block), "2^{log_n}");
        }
        assert_eq!([16, 18, 20, 21, 22, 23].map(split), [(4, 12), (6, 12), (8, 12), (9, 12), (10, 12), (11, 12)]);
    }

    #[test]
    fn twiddle_heaps_hold_each_level() {
        let offset = BFieldElement::new(7);
        let heap = twiddles(3, offset, false);
        assert_eq!(heap[1], offset.mod_pow(4).raw_u64());
        assert_eq!(heap[3], (offset.mod_pow(2) * root_of_unity(4)).raw_u64());
        assert_eq!(heap[7], (offset * root_of_unity(8).mod_pow(3)).raw_u64());
    }
}

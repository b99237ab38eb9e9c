//! Opening on the device: rows of the tables, elements of codewords, nodes of trees.

use rayon::prelude::*;
use triton_vm::prelude::{BFieldElement, Digest, XFieldElement};

use super::arena::Region;
use super::columns::Columns;
use super::job::{self, AUX_BASE_COLUMNS, BATCH_COLUMN, Tree};
use super::launch::args;
use super::ntt;
use super::stages::{Parts, digest};
use crate::domain::{self, NUM_COSETS};
use crate::error::{GpuError, ProtocolError};
use crate::stages::{RowOpenings, RowQuery};

/// Columns of a block, as in `open.cu`.
const COLUMNS_OF_BLOCK: usize = 16;

/// Points of a block, as in `open.cu`.
const POINTS_OF_BLOCK: usize = 16;

/// Threads of a block, as in `open.cu`.
const THREADS: u32 = 256;

/// Lanes of a warp.
const LANES: usize = 32;

/// log2 of the inner sums' length: the table of their powers stays in the L2 cache, and what is done once a sum weighs little.
const LOG_BLOCK: u32 = 13;

/// A row of the main table, and one of the auxiliary table as base field elements.
type TableRows = (Vec<BFieldElement>, Vec<BFieldElement>);

impl Parts<'_> {
    pub(super) fn gather_nodes(&self, tree: Tree, indices: &[usize]) -> Result<Vec<Digest>, GpuError> {
        if indices.is_empty() {
            return Ok(vec![]);
        }
        assert!(indices.iter().all(|&i| i < 2 * tree.leaves), "a node outside of the tree");
        let (list, out) = self.index_list(indices, 5 * indices.len())?;
        self.launcher.launch(
            "gather_nodes",
            &self.kernels.gather_nodes,
            self.launcher.blocks(5 * indices.len(), 256),
            256,
            0,
            &mut args![tree.nodes.address(), list.address(), indices.len() as u32, out.address()],
        )?;
        Ok(self.launcher.download(out)?.chunks_exact(5).map(digest).collect())
    }

    /// Indices on the device and room for an answer of `words`.
    fn index_list(&self, indices: &[usize], words: usize) -> Result<(Region<u64>, Region<u64>), GpuError> {
        let list: Vec<u64> = indices.iter().map(|&i| i as u64).collect();
        let region = self.job.scratch.slice(0, list.len());
        self.launcher.upload(region, &list)?;
        Ok((region, self.job.scratch.slice(list.len(), words)))
    }

    fn gather_rows(&self, columns: Columns, rows: &[usize]) -> Result<Vec<Vec<BFieldElement>>, GpuError> {
        assert!(rows.iter().all(|&r| r < columns.rows()), "a row outside of the table");
        let (list, out) = self.index_list(rows, rows.len() * columns.columns())?;
        self.launcher.launch(
            "gather_rows",
            &self.kernels.gather_rows,
            self.launcher.blocks(out.len(), 256),
            256,
            0,
            &mut args![
                columns.address(),
                columns.stride(),
                columns.columns() as u32,
                list.address(),
                rows.len() as u32,
                out.address()
            ],
        )?;
        let row = |words: &[u64]| words.iter().map(|&w| BFieldElement::from_raw_u64(w)).collect();
        Ok(self.launcher.download(out)?.chunks_exact(columns.columns()).map(row).collect())
    }

    pub(super) fn gather_codeword(&self, round: usize, indices: &[usize]) -> Result<Vec<XFieldElement>, GpuError> {
        if indices.is_empty() {
            return Ok(vec![]);
        }
        let round = self.job.rounds[round];
        assert!(indices.iter().all(|&i| i < round.length), "an index outside of the codeword");
        let (list, out) = self.index_list(indices, 3 * indices.len())?;
        self.launcher.launch(
            "gather_codeword",
            &self.kernels.gather_codeword,
            self.launcher.blocks(indices.len(), 256),
            256,
            0,
            &mut args![
                round.codeword.address(),
                round.length as u64,
                (round.length / NUM_COSETS) as u64,
                list.address(),
                indices.len() as u32,
                out.address()
            ],
        )?;
        Ok(self.launcher.download(out)?.chunks_exact(3).map(job::extension).collect())
    }

    pub(super) fn open_rows(&self, query: &RowQuery) -> Result<RowOpenings, GpuError> {
        let job = &self.job;
        let mut main = vec![vec![]; query.rows.len()];
        let (mut aux, mut quotient) = (main.clone(), main.clone());
        let mut elsewhere = vec![];
        for coset in 0..NUM_COSETS {
            let places: Vec<usize> = (0..query.rows.len()).filter(|&i| query.rows[i] % NUM_COSETS == coset).collect();
            if places.is_empty() {
                continue;
            }
            let rows: Vec<usize> = places.iter().map(|&i| query.rows[i] / NUM_COSETS).collect();
            let gather = |columns, target: &mut [Vec<BFieldElement>]| -> Result<(), GpuError> {
                for (&place, row) in places.iter().zip(self.gather_rows(columns, &rows)?) {
                    target[place] = row;
                }
                Ok(())
            };
            gather(job.segment_cosets[coset], &mut quotient)?;
            if job.is_cached(coset) {
                let tables = job.buffer(coset);
                gather(tables.main, &mut main)?;
                gather(tables.aux, &mut aux)?;
            } else {
                elsewhere.extend(places);
            }
        }
        if !elsewhere.is_empty() {
            let rows: Vec<usize> = elsewhere.iter().map(|&i| query.rows[i]).collect();
            for (&place, (main_row, aux_row)) in elsewhere.iter().zip(self.evaluate_rows(&rows)?) {
                main[place] = main_row;
                aux[place] = aux_row;
            }
        }
        let wrong = || ProtocolError::Internal("a gathered row has another width than the table");
        let extension = |row: &Vec<BFieldElement>| -> Vec<XFieldElement> {
            row.chunks_exact(3).map(|c| XFieldElement::new([c[0], c[1], c[2]])).collect()
        };
        Ok(RowOpenings {
            main: main.into_iter().map(|row| row.try_into().map_err(|_| wrong())).collect::<Result<_, _>>()?,
            aux: aux.iter().map(|row| extension(row).try_into().map_err(|_| wrong())).collect::<Result<_, _>>()?,
            quotient: quotient.iter().map(|row| extension(row).try_into().map_err(|_| wrong())).collect::<Result<_, _>>()?,
            main_nodes: self.gather_nodes(job.main_tree, &query.nodes)?,
            aux_nodes: self.gather_nodes(job.aux_tree, &query.nodes)?,
            quotient_nodes: self.gather_nodes(job.quotient_tree, &query.nodes)?,
        })
    }

    /// Rows of both tables at these places of the FRI domain, from the coefficients: see `open.cu`.
    pub(super) fn evaluate_rows(&self, rows: &[usize]) -> Result<Vec<TableRows>, GpuError> {
        let job = &self.job;
        let missing = || ProtocolError::Internal("an opening before the tables");
        let main_randomizers = job.main_randomizers.as_ref().ok_or_else(missing)?;
        let aux_randomizers = job.aux_randomizers.as_ref().ok_or_else(missing)?;
        let points: Vec<BFieldElement> = rows.iter().map(|&row| job.domains.fri_point(row)).collect();
        let powers = PowersOfPoints::new(&points, job.domains.trace_length().ilog2());
        let main = self.evaluate_points(job.main, &powers)?;
        let aux = self.evaluate_points(job.aux, &powers)?;
        let points_of_column = powers.points();
        let finish = |i: usize| {
            let zerofier = job.domains.coset_zerofier(rows[i] % NUM_COSETS);
            let powers = domain::powers(zerofier, points[i], main_randomizers.rows());
            let main: Vec<BFieldElement> = (main_randomizers.iter_columns().enumerate())
                .map(|(c, randomizer)| {
                    let of_randomizer: BFieldElement = randomizer.iter().zip(&powers).map(|(&r, &p)| r * p).sum();
                    main[c * points_of_column + i] + of_randomizer
                })
                .collect();
            let base = |column: usize| aux[column * points_of_column + i];
            let aux: Vec<BFieldElement> = (0..AUX_BASE_COLUMNS)
                .map(|column| {
                    let of_randomizer = if column < BATCH_COLUMN {
                        let randomizer = aux_randomizers.column(column / 3).iter();
                        randomizer.zip(&powers).map(|(r, &p)| r.coefficients[column % 3] * p).sum()
                    } else {
                        // Its randomizer is as long as the trace.
                        zerofier * base(column + 3)
                    };
                    base(column) + of_randomizer
                })
                .collect();
            (main, aux)
        };
        Ok((0..rows.len()).into_par_iter().map(finish).collect())
    }

    /// Values of the polynomials with these bit-reversed coefficients: `powers.points()` for each column, of which the first
    /// ones are those of the points.
    fn evaluate_points(&self, columns: Columns, powers: &PowersOfPoints) -> Result<Vec<BFieldElement>, GpuError> {
        // Only a plan that does not keep all cosets comes here, and its shared buffer is free by now.
        let buffer = self.job.shared.ok_or(ProtocolError::Internal("all cosets are kept, and yet a row is not there"))?;
        self.job.shared_main.set(None);
        let room = buffer.main.region();
        let (blocks, length) = (1 << powers.log_rows, columns.columns() * powers.points());
        let mut used = 0;
        let mut take = |words: usize| {
            used += words;
            room.slice(used - words, words)
        };
        let (inner, outer) = (take(powers.inner.len()), take(powers.outer.len()));
        let (out, parts) = (take(length), take(blocks * length));
        self.launcher.upload(inner, &powers.inner)?;
        self.launcher.upload(outer, &powers.outer)?;
        let groups_of_columns = columns.columns().div_ceil(COLUMNS_OF_BLOCK);
        self.launcher.launch(
            "evaluate_points",
            &self.kernels.evaluate_points,
            // The points' groups come first: they read the same coefficients at the same time.
            ((powers.groups * groups_of_columns) as u32, blocks as u32),
            THREADS,
            0,
            &mut args![
                columns.address(),
                columns.stride(),
                columns.columns() as u32,
                powers.log_block,
                powers.groups as u32,
                inner.address(),
                outer.address(),
                parts.address()
            ],
        )?;
        self.launcher.launch(
            "add_chunks",
            &self.kernels.add_chunks,
            self.launcher.blocks(length, 256),
            256,
            0,
            &mut args![parts.address(), blocks as u32, length as u64, out.address()],
        )?;
        Ok(self.launcher.download(out)?.into_iter().map(BFieldElement::from_raw_u64).collect())
    }
}

/// Powers of points as `evaluate_points` takes them: see `open.cu`.
struct PowersOfPoints {
    /// Blocks of points; the last one may have some that are 0.
    groups: usize,
    log_rows: u32,
    log_block: u32,
    /// `[step][point][lane]`: for steps of 32 powers of `x^(2^log_rows)` in bit-reversed order what each lane brings to the tensor
    /// cores.
    inner: Vec<u64>,
    /// `[row][point]`: powers of `x` in bit-reversed order.
    outer: Vec<u64>,
}

impl PowersOfPoints {
    /// For polynomials of `2^log_n` coefficients.
    fn new(points: &[BFieldElement], log_n: u32) -> Self {
        let groups = points.len().div_ceil(POINTS_OF_BLOCK);
        // Blocks are one dimension of a launch, which has less than 2^16 of them.
        let log_block = log_n.min(LOG_BLOCK).max(log_n.saturating_sub(15));
        let log_rows = log_n - log_block;
        let all = groups * POINTS_OF_BLOCK;
        let reversed = |base: BFieldElement, log: u32| {
            let powers = domain::powers(BFieldElement::new(1), base, 1 << log);
            (0..powers.len()).map(move |place| powers[ntt::reverse(place, log)].raw_u64())
        };
        let (mut inner, mut outer) = (vec![0; all << log_block], vec![0; all << log_rows]);
        let of_points: Vec<(Vec<u64>, Vec<u64>)> = points
            .par_iter()
            .map(|&x| {
                let powers: Vec<u64> = reversed(x.mod_pow(1 << log_rows), log_block).collect();
                (powers.chunks_exact(LANES).flat_map(fragments).collect(), reversed(x, log_rows).collect())
            })
            .collect();
        for (point, (lanes, rows)) in of_points.iter().enumerate() {
            for (step, lanes) in lanes.chunks_exact(LANES).enumerate() {
                inner[(step * all + point) * LANES..][..LANES].copy_from_slice(lanes);
            }
            for (row, &power) in rows.iter().enumerate() {
                outer[row * all + point] = power;
            }
        }
        Self { groups, log_rows, log_block, inner, outer }
    }

    /// Points with those that fill up the last block.
    fn points(&self) -> usize {
        self.groups * POINTS_OF_BLOCK
    }
}

/// What the lanes of a warp bring of 32 elements: lane `4 g + t` byte `g` of eight of them, from `8 t` on.
fn fragments(elements: &[u64]) -> [u64; LANES] {
    std::array::from_fn(|lane| {
        let (byte, first) = (lane / 4, lane % 4 * 8);
        u64::from_le_bytes(std::array::from_fn(|k| elements[first + k].to_le_bytes()[byte]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `points.cuh` transposes the coefficients' bytes.
    #[test]
    fn a_lane_has_one_byte_of_eight_elements() {
        let elements: Vec<u64> =
            (0..32).map(|element| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|byte| 8 * element + byte))).collect();
        let lanes = fragments(&elements);
        assert_eq!(lanes[0].to_le_bytes(), [0, 8, 16, 24, 32, 40, 48, 56]);
        assert_eq!(lanes[4 * 3 + 2].to_le_bytes(), [0, 1, 2, 3, 4, 5, 6, 7].map(|k| 8 * (16 + k) + 3));
    }

    #[test]
    fn tables_hold_all_powers_of_all_points() {
        for log_n in [9, 14] {
            let points: Vec<BFieldElement> = (2..19).map(BFieldElement::new).collect();
            let powers = PowersOfPoints::new(&points, log_n);
            assert_eq!((powers.groups, powers.points()), (2, 32));
            assert_eq!(powers.log_rows + powers.log_block, log_n);
            for (point, x) in points.iter().enumerate() {
                for place in [0, 1, (1 << log_n) / 3, (1 << log_n) - 1] {
                    let (row, inside) = (place >> powers.log_block, place & ((1 << powers.log_block) - 1));
                    let byte = |byte: usize| {
                        let lane = 4 * byte + inside % 32 / 8;
                        powers.inner[(inside / 32 * 32 + point) * LANES + lane].to_le_bytes()[inside % 8]
                    };
                    let inner = BFieldElement::from_raw_u64(u64::from_le_bytes(std::array::from_fn(byte)));
                    let outer = BFieldElement::from_raw_u64(powers.outer[row * 32 + point]);
                    assert_eq!(inner * outer, x.mod_pow(ntt::reverse(place, log_n) as u64), "{log_n} {point} {place}");
                }
            }
        }
    }
}

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

/// Points of one launch, as in `open.cu`.
const POINTS: usize = 80;

/// Columns of a block, as in `open.cu`.
const COLUMNS_OF_BLOCK: usize = 24;

/// Threads of a block, as in `open.cu`.
const THREADS: u32 = 240;

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
        for places in elsewhere.chunks(POINTS) {
            let rows: Vec<usize> = places.iter().map(|&i| query.rows[i]).collect();
            for (&place, (main_row, aux_row)) in places.iter().zip(self.evaluate_rows(&rows)?) {
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
        let main = self.evaluate_points(job.main, &points)?;
        let aux = self.evaluate_points(job.aux, &points)?;
        let finish = |i: usize| {
            let zerofier = job.domains.coset_zerofier(rows[i] % NUM_COSETS);
            let powers = domain::powers(zerofier, points[i], main_randomizers.rows());
            let main: Vec<BFieldElement> = (main_randomizers.iter_columns().enumerate())
                .map(|(c, randomizer)| {
                    let of_randomizer: BFieldElement = randomizer.iter().zip(&powers).map(|(&r, &p)| r * p).sum();
                    main[c * POINTS + i] + of_randomizer
                })
                .collect();
            let base = |column: usize| aux[column * POINTS + i];
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

    /// Values of the polynomials with these bit-reversed coefficients: `POINTS` for each column, of which the first ones
    /// are wanted.
    fn evaluate_points(&self, columns: Columns, points: &[BFieldElement]) -> Result<Vec<BFieldElement>, GpuError> {
        assert!(points.len() <= POINTS, "more points than a launch takes");
        let (log_rows, log_block) = ntt::split(columns.rows().ilog2());
        let table = |bases: &mut dyn Iterator<Item = BFieldElement>, log: u32| {
            let mut table = vec![0; POINTS << log];
            for (i, base) in bases.enumerate() {
                for (exponent, power) in domain::powers(BFieldElement::new(1), base, 1 << log).into_iter().enumerate() {
                    table[ntt::reverse(exponent, log) * POINTS + i] = power.raw_u64();
                }
            }
            table
        };
        let inner = table(&mut points.iter().map(|x| x.mod_pow(1 << log_rows)), log_block);
        let outer = table(&mut points.iter().copied(), log_rows);

        // Only a plan that does not keep all cosets comes here, and its shared buffer is free by now.
        let buffer = self.job.shared.ok_or(ProtocolError::Internal("all cosets are kept, and yet a row is not there"))?;
        self.job.shared_main.set(None);
        let room = buffer.main.region();
        let length = columns.columns() * POINTS;
        let for_parts = room.len() - inner.len() - outer.len() - length;
        let chunks = (for_parts / length).min(32).min(1 << log_rows);
        let chunks = 1 << chunks.max(1).ilog2();
        let inner_region = room.slice(0, inner.len());
        let outer_region = room.slice(inner.len(), outer.len());
        let out = room.slice(inner.len() + outer.len(), length);
        let parts = room.slice(inner.len() + outer.len() + length, chunks * length);
        self.launcher.upload(inner_region, &inner)?;
        self.launcher.upload(outer_region, &outer)?;
        self.launcher.launch(
            "evaluate_points",
            &self.kernels.evaluate_points,
            (chunks as u32, columns.columns().div_ceil(COLUMNS_OF_BLOCK) as u32),
            THREADS,
            0,
            &mut args![
                columns.address(),
                columns.stride(),
                columns.columns() as u32,
                log_rows,
                log_block,
                inner_region.address(),
                outer_region.address(),
                parts.address()
            ],
        )?;
        self.launcher.launch(
            "add_chunks",
            &self.kernels.add_chunks,
            self.launcher.blocks(length, 256),
            256,
            0,
            &mut args![parts.address(), chunks as u32, length as u64, out.address()],
        )?;
        Ok(self.launcher.download(out)?.into_iter().map(BFieldElement::from_raw_u64).collect())
    }
}

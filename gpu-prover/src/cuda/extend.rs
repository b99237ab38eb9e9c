//! The auxiliary table's 49 linked columns on the device: `kernels/extend.cu` explains contributions and scans.

use cudarc::driver::CudaFunction;
use triton_vm::challenges::Challenges;

use super::air::{self, registry};
use super::arena::Region;
use super::columns::Columns;
use super::device::Device;
use super::launch::{Launcher, args};
use super::stages::Parts;
use crate::error::GpuError;
use crate::stages::{NUM_MAIN_COLUMNS, NUM_ORIGINAL_AUX_COLUMNS};

/// Threads of a block, as in `extend.cu`.
const THREADS: u32 = 256;

/// Rows of a tile, as in `extend.cu`.
const TILE: usize = 4 * THREADS as usize;

/// Words of a composed contribution: two extension field elements.
const MAP_WORDS: usize = 6;

/// Tables whose rows contribute on their own.
const TABLES: [&str; 9] = [
    "extend_program",
    "extend_processor",
    "extend_op_stack",
    "extend_ram",
    "extend_jump_stack",
    "extend_hash",
    "extend_cascade",
    "extend_lookup",
    "extend_u32",
];

/// What a column's rows contribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sum,
    Product,
    Map,
}

/// The three launches of a scan.
#[derive(Debug)]
struct ScanKernels {
    reduce: CudaFunction,
    totals: CudaFunction,
    apply: CudaFunction,
}

/// The extension's kernels.
#[derive(Debug)]
pub(crate) struct ExtendKernels {
    tables: Vec<CudaFunction>,
    late: CudaFunction,
    scans: [ScanKernels; 3],
}

impl ExtendKernels {
    pub(crate) fn load(device: &Device) -> Result<Self, GpuError> {
        let function = |name: &str| device.function("extend", name);
        let scan = |kind: &str| -> Result<ScanKernels, GpuError> {
            Ok(ScanKernels {
                reduce: function(&format!("scan_reduce_{kind}"))?,
                totals: function(&format!("scan_totals_{kind}"))?,
                apply: function(&format!("scan_apply_{kind}"))?,
            })
        };
        Ok(Self {
            tables: TABLES.into_iter().map(function).collect::<Result<_, _>>()?,
            late: function("extend_late")?,
            scans: [scan("sums")?, scan("products")?, scan("maps")?],
        })
    }
}

/// Memory that the extension uses for a short time.
#[derive(Debug, Clone, Copy)]
struct Workspace {
    factors: Region<u64>,
    columns: Region<u64>,
    totals: Region<u64>,
}

/// See `Scan` in `extend.cu`.
#[repr(C)]
struct Scan {
    aux: u64,
    factors: u64,
    rows: u64,
    columns: u64,
    first_slot: u64,
    totals: u64,
}

/// Words of workspace for `rows` rows: factors of all maps, the list of columns, totals of the longest list.
pub(crate) fn workspace_words(rows: usize) -> usize {
    let maps = registry::MAPS.len() + registry::LATE_MAPS.len();
    let longest = registry::SUMS.len().max(maps);
    3 * maps * rows + NUM_ORIGINAL_AUX_COLUMNS + MAP_WORDS * longest * rows.div_ceil(TILE)
}

impl Parts<'_> {
    /// Extends the nine tables: reads the original columns of `main`, writes the 49 first columns of `aux`. `workspace`
    /// has [`workspace_words`].
    pub(super) fn extend(
        &self,
        main: Columns,
        aux: Columns,
        challenges: &Challenges,
        workspace: Region<u64>,
    ) -> Result<(), GpuError> {
        let rows = main.rows();
        assert_eq!((main.columns(), aux.rows()), (NUM_MAIN_COLUMNS, rows), "tables of one height");
        assert!(aux.columns() >= 3 * NUM_ORIGINAL_AUX_COLUMNS, "room for the linked columns");
        let maps = registry::MAPS.len() + registry::LATE_MAPS.len();
        let factors = workspace.slice(0, 3 * maps * rows);
        let columns = workspace.slice(factors.len(), NUM_ORIGINAL_AUX_COLUMNS);
        let first = factors.len() + columns.len();
        let totals = workspace.slice(first, workspace_words(rows) - first);
        let workspace = Workspace { factors, columns, totals };

        air::upload_challenges(self.launcher.device(), challenges, "extend")?;
        let lists = [registry::SUMS, registry::PRODUCTS, registry::MAPS, registry::LATE_MAPS];
        self.launcher.upload(columns, &lists.concat())?;
        for (name, table) in TABLES.into_iter().zip(&self.kernels.extend.tables) {
            self.contribute(name, table, main, aux, factors)?;
        }
        let mut place = 0;
        for (list, kind) in lists.into_iter().zip([Kind::Sum, Kind::Product, Kind::Map, Kind::Map]) {
            let late = list == registry::LATE_MAPS;
            if late {
                self.contribute("extend_late", &self.kernels.extend.late, main, aux, factors)?;
            }
            let first_slot = if late { registry::MAPS.len() } else { 0 };
            self.scan(kind, aux, &workspace, workspace.columns.slice(place, list.len()), first_slot)?;
            place += list.len();
        }
        Ok(())
    }

    fn contribute(
        &self,
        name: &'static str,
        function: &CudaFunction,
        main: Columns,
        aux: Columns,
        factors: Region<u64>,
    ) -> Result<(), GpuError> {
        self.launcher.launch(
            name,
            function,
            (main.rows().div_ceil(THREADS as usize) as u32, 1),
            THREADS,
            0,
            &mut args![main.address(), aux.address(), factors.address(), main.stride()],
        )
    }

    /// Turns contributions into running values for the auxiliary columns that `columns` lists.
    fn scan(
        &self,
        kind: Kind,
        aux: Columns,
        workspace: &Workspace,
        columns: Region<u64>,
        first_slot: usize,
    ) -> Result<(), GpuError> {
        let tiles = aux.rows().div_ceil(TILE);
        assert!(MAP_WORDS * tiles * columns.len() <= workspace.totals.len(), "room for the totals");
        let scan = || Scan {
            aux: aux.address(),
            factors: workspace.factors.address(),
            rows: aux.stride(),
            columns: columns.address(),
            first_slot: first_slot as u64,
            totals: workspace.totals.address(),
        };
        let kernels = &self.kernels.extend.scans[kind as usize];
        let (tiles, columns) = (tiles as u32, columns.len() as u32);
        let launcher: &Launcher = &self.launcher;
        launcher.launch("scan_reduce", &kernels.reduce, (tiles, columns), THREADS, 0, &mut args![scan()])?;
        launcher.launch("scan_totals", &kernels.totals, (1, columns), THREADS, 0, &mut args![scan(), tiles])?;
        launcher.launch("scan_apply", &kernels.apply, (tiles, columns), THREADS, 0, &mut args![scan()])
    }
}

//! The generated kernels: constraints and their table of constants.

use cudarc::driver::CudaFunction;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::XFieldElement;

use super::columns::Columns;
use super::device::{Device, driver};
use super::launch::{Launcher, XMat, args};
use crate::error::GpuError;

#[allow(clippy::unreadable_literal, reason = "generated")]
pub(crate) mod registry {
    include!(concat!(env!("OUT_DIR"), "/air_registry.rs"));
}

/// Threads of a block, as the generated kernels are compiled for.
pub(crate) const THREADS: u32 = 128;

/// One kind of constraint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Initial,
    Consistency,
    Transition,
    Terminal,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Initial, Self::Consistency, Self::Transition, Self::Terminal];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Initial => "initial constraints",
            Self::Consistency => "consistency constraints",
            Self::Transition => "transition constraints",
            Self::Terminal => "terminal constraints",
        }
    }

    pub(crate) fn names(self) -> &'static [&'static str] {
        match self {
            Self::Initial => registry::INITIAL,
            Self::Consistency => registry::CONSISTENCY,
            Self::Transition => registry::TRANSITION,
            Self::Terminal => registry::TERMINAL,
        }
    }
}

/// The constraint kernels.
#[derive(Debug)]
pub(crate) struct AirKernels {
    kinds: [Vec<CudaFunction>; 4],
}

impl AirKernels {
    pub(crate) fn load(device: &Device) -> Result<Self, GpuError> {
        let load = |kind: Kind| -> Result<Vec<CudaFunction>, GpuError> {
            kind.names().iter().map(|name| device.function(name, name)).collect()
        };
        let [initial, consistency, transition, terminal] = Kind::ALL.map(load);
        Ok(Self { kinds: [initial?, consistency?, transition?, terminal?] })
    }

    /// Kernels of a kind, in the registry's order.
    pub(crate) fn of(&self, kind: Kind) -> &[CudaFunction] {
        &self.kinds[kind as usize]
    }

    /// Sums all constraints of a kind, weighted, over every row of a coset, into `sums` (three columns).
    pub(crate) fn sum(
        &self,
        launcher: &Launcher,
        kind: Kind,
        main: Columns,
        aux: Columns,
        sums: Columns,
    ) -> Result<(), GpuError> {
        for index in 0..self.of(kind).len() {
            self.sum_one(launcher, kind, index, main, aux, sums, index == 0)?;
        }
        Ok(())
    }

    /// One kernel of a kind. `first`: write, else add.
    #[allow(clippy::too_many_arguments, reason = "one kernel launch")]
    pub(crate) fn sum_one(
        &self,
        launcher: &Launcher,
        kind: Kind,
        index: usize,
        main: Columns,
        aux: Columns,
        sums: Columns,
        first: bool,
    ) -> Result<(), GpuError> {
        let rows = main.rows();
        assert_eq!((main.columns(), aux.columns(), sums.columns()), (379, 273, 3), "tables of another shape");
        assert_eq!((aux.rows(), sums.rows()), (rows, rows), "tables of different heights");
        launcher.launch(
            kind.names()[index],
            &self.of(kind)[index],
            (rows.div_ceil(THREADS as usize) as u32, 1),
            THREADS,
            0,
            &mut args![main.address(), aux.address(), main.stride(), sums.address(), u32::from(first), 0_u64],
        )
    }
}

/// Puts challenges and weights into the constant memory of all constraint kernels.
pub(crate) fn upload_constants(device: &Device, challenges: &Challenges, weights: &[XFieldElement]) -> Result<(), GpuError> {
    assert_eq!(weights.len(), registry::TABLE_LENGTHS.1, "one weight a constraint");
    let table = table_of_constants(challenges, weights);
    Kind::ALL.into_iter().flat_map(Kind::names).try_for_each(|module| upload_table(device, module, &table))
}

/// Puts challenges into the constant memory of a module that knows no weights.
pub(crate) fn upload_challenges(device: &Device, challenges: &Challenges, module: &'static str) -> Result<(), GpuError> {
    let no_weights = vec![XFieldElement::from(0_u64); registry::TABLE_LENGTHS.1];
    upload_table(device, module, &table_of_constants(challenges, &no_weights))
}

/// Challenges, weights, and the challenges' negatives: see `air.cuh`.
fn table_of_constants(challenges: &Challenges, weights: &[XFieldElement]) -> Vec<u8> {
    assert_eq!(challenges.challenges.len(), registry::TABLE_LENGTHS.0, "the AIR was generated for another proof system");
    let negatives = challenges.challenges.iter().map(|&challenge| -challenge);
    let matrices = challenges.challenges.iter().chain(weights).copied().chain(negatives).map(XMat::from);
    matrices.flat_map(|m| m.0).flat_map(u64::to_le_bytes).collect()
}

fn upload_table(device: &Device, module: &'static str, table: &[u8]) -> Result<(), GpuError> {
    let global = device.module(module)?.get_global("air_constants", device.stream());
    let mut global = global.map_err(driver("finding the table of constants"))?;
    let mut view = global.try_slice_mut(0..table.len()).ok_or(GpuError::NoKernels)?;
    device.stream().memcpy_htod(table, &mut view).map_err(driver("writing the table of constants"))
}

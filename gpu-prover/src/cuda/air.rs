//! The generated kernels: constraints and their table of constants.

use cudarc::driver::CudaFunction;
use triton_vm::challenges::Challenges;
use triton_vm::prelude::XFieldElement;

use super::columns::Columns;
use super::device::{Device, driver};
use super::launch::{Launcher, XMat, args};
use crate::error::GpuError;

#[allow(clippy::unreadable_literal, reason = "generated")]
mod registry {
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
            &mut args![main.address(), aux.address(), main.stride(), sums.address(), u32::from(first)],
        )
    }
}

/// Puts challenges and weights into the constant memory of all generated modules that read them.
pub(crate) fn upload_constants(
    device: &Device,
    challenges: &Challenges,
    weights: Option<&[XFieldElement]>,
) -> Result<(), GpuError> {
    let (num_challenges, num_weights) = registry::TABLE_LENGTHS;
    assert_eq!(challenges.challenges.len(), num_challenges, "the AIR was generated for another proof system");
    let mut table: Vec<XMat> = challenges.challenges.iter().map(|&c| c.into()).collect();
    let modules: Vec<&'static str> = match weights {
        // Degree lowering knows no weights.
        None => vec!["fill_aux_dual"],
        Some(weights) => {
            assert_eq!(weights.len(), num_weights, "one weight a constraint");
            table.extend(weights.iter().map(|&w| XMat::from(w)));
            Kind::ALL.into_iter().flat_map(Kind::names).copied().collect()
        }
    };
    let bytes: Vec<u8> = table.iter().flat_map(|m| m.0).flat_map(u64::to_le_bytes).collect();
    for name in modules {
        let module = device.module(name)?;
        let mut global =
            module.get_global("air_constants", device.stream()).map_err(driver("finding the table of constants"))?;
        let mut view = global.try_slice_mut(0..bytes.len()).ok_or(GpuError::NoKernels)?;
        device.stream().memcpy_htod(&bytes, &mut view).map_err(driver("writing the table of constants"))?;
    }
    Ok(())
}

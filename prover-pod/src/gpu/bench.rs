//! `prover-pod bench`: seconds per height on the CPU and on the GPU, and the routing table that follows from them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use prover_api::ProverJob;

use super::doctor::spin;
use super::table::{MeasuredHeight, MeasuredTable, faster};
use crate::memory::{LdeMode, available_bytes, memory_plan};
use crate::worker::{Cancelled, CpuBackend, GpuBackend, Limits, ProverBackend};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// First log2 height.
    pub first: u8,
    /// Last log2 height.
    pub last: u8,
    /// Proofs at each height, after one that warms up; the median counts.
    pub runs: usize,
    /// A height whose proof would probably take longer on the CPU is left out there, and so are those above.
    pub cpu_seconds: f64,
}

/// Measures, telling each line to `say`. Without a usable GPU only the CPU is measured.
///
/// # Errors
/// A prover that fails, or makes a proof that does not verify.
pub fn measure(plan: Plan, mut say: impl FnMut(&str)) -> anyhow::Result<MeasuredTable> {
    let cpu = CpuBackend::default();
    let mut devices = BTreeMap::from([("cpu".to_owned(), cpu.device())]);
    let gpu = match GpuBackend::open(1, Limits::default()) {
        Ok(gpu) => {
            devices.insert("gpu".to_owned(), gpu.device());
            Some(gpu)
        }
        Err(error) => {
            say(&format!("only the CPU is measured: {error}"));
            None
        }
    };
    let gpu_largest = gpu.as_ref().and_then(|gpu| gpu.facts().max_log2_padded_height).unwrap_or(0);
    let mut rows = Vec::new();
    let mut cpu_before: Option<f64> = None;
    let mut cpu_goes_on = true;
    say(&format!("{:>11} {:>12} {:>12}  {}", "LOG2 HEIGHT", "CPU SECONDS", "GPU SECONDS", "FASTER"));
    for log2 in plan.first..=plan.last {
        // Twice the rows, a little more than twice the time.
        cpu_goes_on &= cpu_before.is_none_or(|before| before * 2.2 <= plan.cpu_seconds);
        let lde =
            available_bytes().map_or(Some(LdeMode::Cached), |free| memory_plan(log2, free, false).ok().map(|plan| plan.lde));
        cpu_goes_on &= lde.is_some();
        let cpu_seconds = match lde.filter(|_| cpu_goes_on) {
            Some(lde) => Some(median(&cpu, log2, plan.runs, lde).with_context(|| format!("CPU, 2^{log2}"))?),
            None => None,
        };
        cpu_before = cpu_seconds.or(cpu_before);
        let gpu_seconds = match gpu.as_ref().filter(|_| log2 <= gpu_largest) {
            Some(gpu) => Some(median(gpu, log2, plan.runs, LdeMode::Cached).with_context(|| format!("GPU, 2^{log2}"))?),
            None => None,
        };
        if cpu_seconds.is_none() && gpu_seconds.is_none() {
            say(&format!("{log2:>11} neither: it does not fit, or takes too long"));
            break;
        }
        let row =
            MeasuredHeight { log2_padded_height: log2, cpu_seconds, gpu_seconds, backend: faster(cpu_seconds, gpu_seconds) };
        let shown = |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.3}"));
        say(&format!("{log2:>11} {:>12} {:>12}  {}", shown(cpu_seconds), shown(gpu_seconds), row.backend.name()));
        rows.push(row);
    }
    Ok(MeasuredTable::new(devices, rows))
}

/// Median seconds of a whole job: trace and proof. Each proof is verified, outside of the time.
fn median(backend: &dyn ProverBackend, log2: u8, runs: usize, lde: LdeMode) -> anyhow::Result<f64> {
    let body = spin(log2).context("no program of that height")?;
    let claim = ProverJob::from_json(&body)?.claim;
    let nobody = Cancelled::default();
    let mut times = Vec::new();
    for run in 0..=runs {
        let started = Instant::now();
        let traced = backend.trace(&body, &nobody).map_err(|failure| anyhow!("no trace: {failure:?}"))?;
        let proof = traced.prove(lde, &nobody, &|_, _| {}).map_err(|failure| anyhow!("no proof: {failure:?}"))?;
        let took = started.elapsed();
        prover_api::proof::verify(&claim, &proof)?;
        // The first one warms up, unless it is so long that caches and clocks do not matter.
        let long = took > Duration::from_secs(2);
        if run > 0 || long {
            times.push(took.as_secs_f64());
        }
        if long && run > 0 {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().context("no runs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Backend;

    #[test]
    fn the_cpu_alone_is_measured_and_its_table_read_back() {
        let plan = Plan { first: 8, last: 9, runs: 1, cpu_seconds: 60.0 };
        let mut lines = Vec::new();
        let table = measure(plan, |line| lines.push(line.to_owned())).expect("measures");
        assert_eq!(table.heights.len(), 2);
        assert!(table.heights.iter().all(|row| row.cpu_seconds.is_some_and(|seconds| seconds > 0.0)));
        if !table.devices.contains_key("gpu") {
            assert!(lines[0].starts_with("only the CPU is measured: "), "{lines:?}");
            assert!(table.heights.iter().all(|row| row.backend == Backend::Cpu));
        }
        let bytes = serde_json::to_vec(&table).expect("serializes");
        assert_eq!(MeasuredTable::parse(&bytes).expect("is sound"), table);
    }
}

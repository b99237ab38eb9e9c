//! The log lines by which users of upgraders with a GPU know where a proof is made.

use prover_api::JobId;
use tracing::{info, warn};

use crate::scheduler::{Backend, Why, WorkerId};

/// Says where a job of a pod with a GPU is proven and why. Pods without one have nothing to say.
pub(super) fn log(job: JobId, worker: WorkerId, backend: Backend, why: Why, log2_height: Option<u8>) {
    let height = log2_height.unwrap_or(0);
    match (why, backend) {
        (Why::Forced, _) => info!(%job, %worker, "[HYBRID] Forcing CPU execution (force_cpu)"),
        (Why::TooBigForGpu, _) => {
            info!(%job, %worker, "[HYBRID] Padded height 2^{height} does not fit on the GPU, using CPU execution");
        }
        (Why::GpuFailed, _) => {
            warn!(%job, %worker, "[HYBRID] GPU proof failed, retrying with CPU execution (padded height 2^{height})");
        }
        (Why::TooBigForCpu | Why::OnlyKind | Why::Table, Backend::Gpu) => {
            info!(%job, %worker, "[HYBRID] Padded height 2^{height}, using GPU execution");
        }
        (Why::Table, _) => info!(%job, %worker, "[HYBRID] Padded height 2^{height}, using CPU execution"),
        (Why::OnlyKind | Why::TooBigForCpu, _) => {}
    }
}

//! What the CUDA prover says where it cannot work. On a host without a driver this also shows that nothing panics.

use gpu_prover::cuda::{CudaStages, device_count};
use gpu_prover::error::GpuError;

#[test]
fn a_device_that_does_not_exist_is_an_error_that_says_what_to_do() {
    let error = CudaStages::new(usize::MAX, None).expect_err("no host has that many devices");
    let expected = matches!(
        error,
        GpuError::NoKernels | GpuError::NoDriver { .. } | GpuError::NoDevice { .. } | GpuError::DriverTooOld { .. }
    );
    assert!(expected, "{error:?}");
    assert!(error.to_string().contains(':'), "the message names a remedy: {error}");
}

#[test]
fn counting_devices_never_panics() {
    match device_count() {
        Ok(count) => println!("{count} devices"),
        Err(error) => println!("no devices: {error}"),
    }
}

//! The CUDA driver's library: whether it is there, and what its calls answer.
#![allow(unsafe_code)]

use crate::transfer::TransferError;
use cudarc::driver::sys::{self, CUresult};
use std::sync::OnceLock;

/// Older drivers lack calls that are used here, and a missing call is a panic in `cudarc`.
const OLDEST_VERSION: i32 = 12_000;
/// From here on many copies can be handed over by one call.
const BATCHES_VERSION: i32 = 13_000;

/// A driver that was found and started.
#[derive(Debug, Clone, Copy)]
pub(super) struct Driver {
    pub devices: u32,
    pub has_batches: bool,
}

/// The driver; looked for once a process.
pub(super) fn driver() -> Result<Driver, TransferError> {
    static DRIVER: OnceLock<Result<Driver, TransferError>> = OnceLock::new();
    DRIVER.get_or_init(start).clone()
}

/// How many CUDA devices this process sees.
///
/// # Errors
///
/// Where the driver is not installed, is too old, or finds no device.
pub fn devices() -> Result<u32, TransferError> {
    driver().map(|driver| driver.devices)
}

fn start() -> Result<Driver, TransferError> {
    let failed = |what: String| TransferError::Device { device: "the CUDA driver".into(), what };
    // SAFETY: loading it runs the initialisers of a library that is meant to be loaded.
    if !unsafe { sys::is_culib_present() } {
        return Err(failed("libcuda.so.1 cannot be loaded: install NVIDIA's driver".into()));
    }
    let (mut version, mut devices) = (0, 0);
    // SAFETY: these may be called before anything else, and write one number each.
    unsafe {
        check("starting", sys::cuDriverGetVersion(&mut version))?;
        if version < OLDEST_VERSION {
            let (major, minor) = (version / 1000, version % 1000 / 10);
            return Err(failed(format!(
                "it is of CUDA {major}.{minor}: install one of 12.0 or later"
            )));
        }
        check("starting", sys::cuInit(0))?;
        check("counting devices", sys::cuDeviceGetCount(&mut devices))?;
    }
    let devices = u32::try_from(devices).unwrap_or(0);
    Ok(Driver { devices, has_batches: version >= BATCHES_VERSION })
}

/// What a call answered, as a result.
pub(super) fn check(doing: &str, answer: CUresult) -> Result<(), TransferError> {
    if answer == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let device = "the CUDA driver".into();
    Err(TransferError::Device { device, what: format!("{doing}: {answer:?}") })
}

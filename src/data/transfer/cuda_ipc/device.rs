//! A device and its primary context, which it shares with everything else in the process.
#![allow(unsafe_code)]

use super::driver::{check, driver};
use crate::transfer::TransferError;
use cudarc::driver::sys::{self, CUcontext, CUdevice};
use std::sync::Arc;

/// A CUDA device of this process.
#[derive(Debug)]
pub struct Device {
    ordinal: u32,
    device: CUdevice,
    context: CUcontext,
    uuid: [u8; 16],
}

// SAFETY: contexts may be used from any thread; the value is not changed after it was made.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// The device of this number, as `CUDA_VISIBLE_DEVICES` has them.
    ///
    /// # Errors
    ///
    /// Where there is no driver or no such device.
    pub fn open(ordinal: u32) -> Result<Arc<Self>, TransferError> {
        let devices = driver()?.devices;
        if ordinal >= devices {
            let device = format!("CUDA device {ordinal}");
            let what = format!("there are {devices}: give a number below that");
            return Err(TransferError::Device { device, what });
        }
        let (mut device, mut context) = (0, std::ptr::null_mut());
        let mut uuid = sys::CUuuid { bytes: [0; 16] };
        // SAFETY: the driver is started, and each call writes to a place of its type.
        unsafe {
            check("finding a device", sys::cuDeviceGet(&mut device, ordinal.cast_signed()))?;
            check("asking for a UUID", sys::cuDeviceGetUuid_v2(&mut uuid, device))?;
            check("making a context", sys::cuDevicePrimaryCtxRetain(&mut context, device))?;
        }
        let uuid = uuid.bytes.map(|byte| byte as u8);
        Ok(Arc::new(Self { ordinal, device, context, uuid }))
    }

    /// The device of a UUID, if this process sees it.
    pub(super) fn of_uuid(uuid: [u8; 16]) -> Result<Option<Arc<Self>>, TransferError> {
        for ordinal in 0..driver()?.devices {
            let device = Self::open(ordinal)?;
            if device.uuid == uuid {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// Its number.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    pub(super) fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Runs calls with this device's context current, and then makes current what was before:
    /// the thread may be one that computes.
    pub(super) fn within<R>(
        &self,
        work: impl FnOnce() -> Result<R, TransferError>,
    ) -> Result<R, TransferError> {
        let mut before = std::ptr::null_mut();
        // SAFETY: the context is retained, and `before` is what the driver said.
        unsafe {
            check("asking for the context", sys::cuCtxGetCurrent(&mut before))?;
            check("changing the context", sys::cuCtxSetCurrent(self.context))?;
        }
        let done = work();
        // SAFETY: as above.
        let restored = unsafe { sys::cuCtxSetCurrent(before) };
        done.and_then(|done| check("changing the context back", restored).map(|()| done))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained once by `open`. Nothing can be done about a refusal.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

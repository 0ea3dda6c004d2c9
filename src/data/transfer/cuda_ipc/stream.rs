//! Streams and events.
#![allow(unsafe_code)]

use super::Device;
use super::driver::{check, driver};
use crate::transfer::TransferError;
use cudarc::driver::sys::{self, CUevent, CUresult, CUstream};
use std::sync::Arc;

/// A queue of work on a device.
#[derive(Debug)]
pub struct Stream {
    stream: CUstream,
    device: Arc<Device>,
}

// SAFETY: the driver lets any thread use a stream, and several at once.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

/// A copy between addresses that the driver knows, or of the host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copy {
    pub to: u64,
    pub from: u64,
    pub bytes: usize,
}

impl Stream {
    /// A stream that does not wait for the default one.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn new(device: &Arc<Device>) -> Result<Self, TransferError> {
        let mut stream = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        device.within(|| {
            // SAFETY: a context is current.
            check("making a stream", unsafe { sys::cuStreamCreate(&mut stream, flags) })
        })?;
        Ok(Self { stream, device: device.clone() })
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// What follows waits for what `event` was recorded behind last.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn wait_for(&self, event: &Event) -> Result<(), TransferError> {
        self.device.within(|| {
            // SAFETY: both live.
            check("waiting for an event", unsafe {
                sys::cuStreamWaitEvent(self.stream, event.event, 0)
            })
        })
    }

    /// Waits until all is done that was asked of it.
    ///
    /// # Errors
    ///
    /// Where any of it failed.
    pub fn synchronize(&self) -> Result<(), TransferError> {
        self.device.within(|| {
            // SAFETY: it lives.
            check("waiting for a stream", unsafe { sys::cuStreamSynchronize(self.stream) })
        })
    }

    /// Asks for copies, by one call where the driver has it. Launching costs microseconds each
    /// otherwise, more than a block of 16 KB takes.
    ///
    /// # Safety
    ///
    /// Every range is mapped for this device, or is the host's, until the stream has done it, and
    /// no Rust reference to where bytes go lives meanwhile. Bytes that somebody else writes are
    /// undefined, as anywhere.
    pub(super) unsafe fn copy(&self, copies: &[Copy]) -> Result<(), TransferError> {
        if copies.is_empty() {
            return Ok(());
        }
        let has_batches = driver()?.has_batches;
        self.device.within(|| {
            if !has_batches {
                return copies.iter().try_for_each(|&Copy { to, from, bytes }| {
                    // SAFETY: by the caller's word.
                    check("copying", unsafe { sys::cuMemcpyAsync(to, from, bytes, self.stream) })
                });
            }
            let mut to: Vec<u64> = copies.iter().map(|copy| copy.to).collect();
            let mut from: Vec<u64> = copies.iter().map(|copy| copy.from).collect();
            let mut bytes: Vec<usize> = copies.iter().map(|copy| copy.bytes).collect();
            let nowhere = sys::CUmemLocation {
                type_: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_INVALID,
                id: 0,
            };
            let mut attributes = sys::CUmemcpyAttributes {
                srcAccessOrder: sys::CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM,
                srcLocHint: nowhere,
                dstLocHint: nowhere,
                flags: 0,
            };
            let mut first = 0;
            // SAFETY: the ranges by the caller's word; the lists have `copies.len()` entries, and
            // the one entry of attributes holds from copy 0 on.
            check("copying", unsafe {
                sys::cuMemcpyBatchAsync_v2(
                    to.as_mut_ptr(),
                    from.as_mut_ptr(),
                    bytes.as_mut_ptr(),
                    copies.len(),
                    &mut attributes,
                    &mut first,
                    1,
                    self.stream,
                )
            })
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it lives, and is nobody's after this. What is under way is done all the same.
        let _ = self
            .device
            .within(|| check("ending a stream", unsafe { sys::cuStreamDestroy_v2(self.stream) }));
    }
}

/// A mark in a stream, which other processes can wait for.
#[derive(Debug)]
pub struct Event {
    event: CUevent,
    device: Arc<Device>,
}

// SAFETY: the driver lets any thread use an event, and several at once.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that was never recorded: nobody waits for it.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn new(device: &Arc<Device>) -> Result<Self, TransferError> {
        let mut event = std::ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_INTERPROCESS as u32
            | sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        device.within(|| {
            // SAFETY: a context is current.
            check("making an event", unsafe { sys::cuEventCreate(&mut event, flags) })
        })?;
        Ok(Self { event, device: device.clone() })
    }

    /// Another process' event.
    pub(super) fn open(device: &Arc<Device>, handle: [u8; 64]) -> Result<Self, TransferError> {
        let mut event = std::ptr::null_mut();
        let handle = sys::CUipcEventHandle { reserved: handle.map(|byte| byte as _) };
        device.within(|| {
            // SAFETY: a context is current; the driver checks handles.
            check("opening a peer's event", unsafe {
                sys::cuIpcOpenEventHandle(&mut event, handle)
            })
        })?;
        Ok(Self { event, device: device.clone() })
    }

    /// What other processes open it by.
    pub(super) fn handle(&self) -> Result<[u8; 64], TransferError> {
        let mut handle = sys::CUipcEventHandle { reserved: [0; 64] };
        self.device.within(|| {
            // SAFETY: it lives, and the handle is a place for one.
            check("asking for an event's handle", unsafe {
                sys::cuIpcGetEventHandle(&mut handle, self.event)
            })
        })?;
        Ok(handle.reserved.map(|byte| byte as u8))
    }

    /// Marks what was asked of a stream so far.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn record(&self, stream: &Stream) -> Result<(), TransferError> {
        self.device.within(|| {
            // SAFETY: both live.
            check("recording an event", unsafe { sys::cuEventRecord(self.event, stream.stream) })
        })
    }

    /// Whether what it marks is done.
    ///
    /// # Errors
    ///
    /// Where it failed.
    pub fn is_done(&self) -> Result<bool, TransferError> {
        self.device.within(|| {
            // SAFETY: it lives.
            match unsafe { sys::cuEventQuery(self.event) } {
                CUresult::CUDA_ERROR_NOT_READY => Ok(false),
                other => check("asking for an event", other).map(|()| true),
            }
        })
    }

    /// Waits until what it marks is done.
    ///
    /// # Errors
    ///
    /// Where it failed.
    pub fn synchronize(&self) -> Result<(), TransferError> {
        self.device.within(|| {
            // SAFETY: it lives.
            check("waiting for an event", unsafe { sys::cuEventSynchronize(self.event) })
        })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it lives, and is nobody's after this; the driver keeps what streams still need.
        let _ = self
            .device
            .within(|| check("ending an event", unsafe { sys::cuEventDestroy_v2(self.event) }));
    }
}

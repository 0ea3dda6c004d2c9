//! A peer's device memory, opened here.
#![allow(unsafe_code)]

use super::driver::check;
use super::handle::{Handle, this_process};
use super::memory::Allocation;
use super::{Device, Event};
use crate::transfer::TransferError;
use cudarc::driver::sys;
use std::sync::Arc;

/// Device memory of a region, as this process reaches it.
#[derive(Debug)]
pub(super) enum RemoteMemory {
    /// Of this very process.
    Own {
        /// The allocation.
        allocation: Arc<Allocation>,
    },
    /// Of another, mapped for `device`.
    Opened {
        /// Where the driver mapped the allocation.
        base: u64,
        /// Where the region begins in it.
        offset: u64,
        /// The event behind its last writes.
        ready: Event,
        /// Whose context it is mapped for.
        device: Arc<Device>,
    },
}

impl RemoteMemory {
    /// Opens a region of `bytes` for copies by `device`.
    pub fn open(handle: &Handle, bytes: u64, device: &Arc<Device>) -> Result<Self, TransferError> {
        if handle.process == this_process()? {
            // By number and not by address: a peer may have made this up.
            let allocation = Allocation::of_this_process(handle.allocation)
                .filter(|allocation| allocation.bytes as u64 == bytes);
            return allocation.map(|allocation| Self::Own { allocation }).ok_or_else(|| {
                let what = format!("allocation {} of {bytes} bytes is gone", handle.allocation);
                TransferError::Device { device: "this process".into(), what }
            });
        }
        let ready = Event::open(device, handle.ready)?;
        let (mut base, mut start, mut length) = (0, 0, 0);
        device.within(|| {
            let memory = sys::CUipcMemHandle { reserved: handle.memory.map(|byte| byte as _) };
            let peers = sys::CUipcMem_flags::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as u32;
            // SAFETY: a context is current; the driver checks handles.
            unsafe {
                let opened = sys::cuIpcOpenMemHandle_v2(&mut base, memory, peers);
                check("opening a peer's memory", opened)
            }
        })?;
        let opened = Self::Opened { base, offset: handle.offset, ready, device: device.clone() };
        // The descriptor's length is a peer's word; the driver knows the mapping's.
        device.within(|| {
            // SAFETY: the call writes to places of its types.
            check("measuring a peer's memory", unsafe {
                sys::cuMemGetAddressRange_v2(&mut start, &mut length, base)
            })
        })?;
        match handle.offset.checked_add(bytes) {
            Some(end) if end <= length as u64 => Ok(opened),
            _ => Err(TransferError::Protocol {
                peer: "a region".into(),
                what: format!("{bytes} bytes at {} of {length} of a device", handle.offset),
            }),
        }
    }

    /// The region's address for copies by the device that it was opened for.
    pub fn start(&self) -> u64 {
        match self {
            Self::Own { allocation } => allocation.start,
            Self::Opened { base, offset, .. } => base + offset,
        }
    }

    /// The event behind the region's last writes.
    pub fn ready(&self) -> &Event {
        match self {
            Self::Own { allocation } => &allocation.ready,
            Self::Opened { ready, .. } => ready,
        }
    }
}

impl Drop for RemoteMemory {
    fn drop(&mut self) {
        if let Self::Opened { base, device, .. } = self {
            // SAFETY: opened by `open`; copies that use it keep the value.
            let _ = device.within(|| {
                check("closing a peer's memory", unsafe { sys::cuIpcCloseMemHandle(*base) })
            });
        }
    }
}

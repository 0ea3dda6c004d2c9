//! Device memory that can be registered.
#![allow(unsafe_code)]

use super::driver::check;
use super::handle::{Handle, this_process};
use super::stream::Copy;
use super::{Device, Event, Stream};
use crate::transfer::{Memory, Place, TransferError};
use cudarc::driver::sys;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Weak};

/// A range of device memory and the event behind its last writes.
#[derive(Debug)]
pub(super) struct Allocation {
    pub start: u64,
    pub bytes: usize,
    pub device: Arc<Device>,
    pub ready: Event,
    number: u64,
    is_owned: bool,
}

/// What this process may reach of itself, by number.
static ALLOCATIONS: LazyLock<Mutex<HashMap<u64, Weak<Allocation>>>> = LazyLock::new(Mutex::default);

/// A range of a device's memory, made here or somebody else's in this process.
#[derive(Debug)]
pub struct DeviceMemory {
    allocation: Arc<Allocation>,
    handle: Vec<u8>,
}

impl DeviceMemory {
    /// New memory, whose content is not defined.
    ///
    /// # Errors
    ///
    /// Where the device has not as much left.
    pub fn allocate(device: &Arc<Device>, bytes: usize) -> Result<Self, TransferError> {
        let mut start = 0;
        device.within(|| {
            // SAFETY: a context is current.
            check("allocating", unsafe { sys::cuMemAlloc_v2(&mut start, bytes) })
        })?;
        Self::new(device, start, bytes, true)
    }

    /// Memory that somebody else in this process allocated, an engine's KV cache.
    ///
    /// # Errors
    ///
    /// Where the driver knows no allocation there, or it cannot be shared: memory of
    /// `cudaMallocAsync` and of virtual memory management cannot.
    ///
    /// # Safety
    ///
    /// The range is one allocation of this device, and stays until the value is dropped.
    pub unsafe fn adopt(
        device: &Arc<Device>,
        address: u64,
        bytes: usize,
    ) -> Result<Self, TransferError> {
        Self::new(device, address, bytes, false)
    }

    fn new(
        device: &Arc<Device>,
        start: u64,
        bytes: usize,
        is_owned: bool,
    ) -> Result<Self, TransferError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (ready, device) = (Event::new(device)?, device.clone());
        let allocation = Arc::new(Allocation { start, bytes, device, ready, number, is_owned });
        let (mut base, mut length) = (0, 0);
        let mut memory = sys::CUipcMemHandle { reserved: [0; 64] };
        allocation.device.within(|| {
            // SAFETY: each call writes to places of its types, and checks the address.
            unsafe {
                let found = sys::cuMemGetAddressRange_v2(&mut base, &mut length, start);
                check("finding an allocation", found)?;
                check("asking for a handle", sys::cuIpcGetMemHandle(&mut memory, start))
            }
        })?;
        let handle = Handle {
            process: this_process()?,
            allocation: number,
            device: allocation.device.uuid(),
            memory: memory.reserved.map(|byte| byte as u8),
            ready: allocation.ready.handle()?,
            offset: start - base,
        };
        ALLOCATIONS.lock().insert(number, Arc::downgrade(&allocation));
        Ok(Self { allocation, handle: handle.encode() })
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.allocation.device
    }

    /// Its address on the device.
    pub fn address(&self) -> u64 {
        self.allocation.start
    }

    /// Says that what was asked of `stream` so far writes here: whoever reads waits for that.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub fn written_on(&self, stream: &Stream) -> Result<(), TransferError> {
        self.allocation.ready.record(stream)
    }

    /// Asks a stream to copy bytes of the host to `offset`, and marks them as
    /// [`DeviceMemory::written_on`] does.
    ///
    /// # Errors
    ///
    /// Where they do not fit, and what the driver says.
    ///
    /// # Safety
    ///
    /// The bytes stay as they are until the stream is done.
    pub unsafe fn write_on(
        &self,
        stream: &Stream,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), TransferError> {
        let to = self.range(offset, bytes.len())?;
        let copy = Copy { to, from: bytes.as_ptr() as u64, bytes: bytes.len() };
        // SAFETY: the range is this memory's; the bytes stay by the caller's word.
        unsafe { stream.copy(&[copy])? };
        self.written_on(stream)
    }

    /// Copies bytes of the host to `offset`, and waits for it.
    ///
    /// # Errors
    ///
    /// Where they do not fit, and what the driver says.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), TransferError> {
        let stream = Stream::new(self.device())?;
        // SAFETY: it is waited for.
        unsafe { self.write_on(&stream, offset, bytes)? };
        stream.synchronize()
    }

    /// Copies bytes at `offset` to the host, and waits for it.
    ///
    /// # Errors
    ///
    /// Where there are not so many, and what the driver says.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), TransferError> {
        let from = self.range(offset, bytes.len())?;
        let stream = Stream::new(self.device())?;
        stream.wait_for(&self.allocation.ready)?;
        let copy = Copy { to: bytes.as_mut_ptr() as u64, from, bytes: bytes.len() };
        // SAFETY: the range is this memory's, the bytes are borrowed, and it is waited for.
        unsafe { stream.copy(&[copy])? };
        stream.synchronize()
    }

    fn range(&self, offset: usize, bytes: usize) -> Result<u64, TransferError> {
        let length = self.allocation.bytes;
        match offset.checked_add(bytes) {
            Some(end) if end <= length => Ok(self.allocation.start + offset as u64),
            _ => Err(TransferError::OutOfRange {
                end: crate::transfer::End::Local,
                offset: offset as u64,
                bytes: bytes as u64,
                length: length as u64,
            }),
        }
    }
}

// SAFETY: an allocation of the device, which stays as long as the value; only the driver reaches it.
unsafe impl Memory for DeviceMemory {
    fn start(&self) -> NonNull<u8> {
        // The driver gives no allocation at address 0.
        NonNull::new(self.allocation.start as *mut u8).unwrap_or(NonNull::dangling())
    }

    fn length_bytes(&self) -> usize {
        self.allocation.bytes
    }

    fn place(&self) -> Place<'_> {
        Place::Device { device: self.allocation.device.ordinal(), handle: &self.handle }
    }
}

impl Allocation {
    /// This process' allocation of a number.
    pub fn of_this_process(number: u64) -> Option<Arc<Self>> {
        ALLOCATIONS.lock().get(&number).and_then(Weak::upgrade)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        ALLOCATIONS.lock().remove(&self.number);
        if self.is_owned {
            // SAFETY: allocated by `DeviceMemory::allocate`, and nobody's after this. The driver
            // waits for what is under way.
            let _ =
                self.device.within(|| check("freeing", unsafe { sys::cuMemFree_v2(self.start) }));
        }
    }
}

/// Memory of the host that the driver keeps where it is, so that a device copies it by itself.
#[derive(Debug)]
pub(super) struct Pinned {
    start: usize,
    device: Arc<Device>,
}

impl Pinned {
    pub fn new(device: &Arc<Device>, memory: &dyn Memory) -> Result<Self, TransferError> {
        let start = memory.start().as_ptr();
        // For every context of this process.
        const PORTABLE: u32 = 1;
        device.within(|| {
            // SAFETY: the memory is the region's, which drops this before it goes.
            check("pinning host memory", unsafe {
                sys::cuMemHostRegister_v2(start.cast(), memory.length_bytes(), PORTABLE)
            })
        })?;
        Ok(Self { start: start as usize, device: device.clone() })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: pinned by `new`.
        let _ = self.device.within(|| {
            check("letting host memory go", unsafe {
                sys::cuMemHostUnregister(self.start as *mut _)
            })
        });
    }
}

//! The path: what is posted gets a grant of its owner, and then goes to the thread that copies.

use super::handle::Handle;
use super::memory::{Allocation, Pinned};
use super::remote::RemoteMemory;
use super::worker::{Job, Remote, Worker};
use super::{Device, driver};
use crate::transfer::path::{Path, PathKind};
use crate::transfer::region::{Registered, RemotePlace};
use crate::transfer::shm::link::Link;
use crate::transfer::wire::dial::Dialed;
use crate::transfer::wire::request::Request;
use crate::transfer::work::Work;
use crate::transfer::{End, Op, Place, RemoteRegion, TransferError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Device memory with one peer of this host.
pub struct CudaIpcPath {
    link: Arc<Link>,
    worker: Arc<Worker>,
    /// Peers' device memory, by region and the device that it was opened for.
    opened: Mutex<HashMap<(u64, u32), Arc<RemoteMemory>>>,
}

impl CudaIpcPath {
    pub(in crate::transfer) fn open(
        dial: impl FnOnce() -> Result<Dialed, String>,
        stall_timeout: Duration,
    ) -> Result<Self, String> {
        let open = || -> Result<Self, TransferError> {
            driver::driver()?;
            let device = || "the CUDA path".to_owned();
            let dialed = dial().map_err(|what| TransferError::Device { device: device(), what })?;
            let link = Link::start(dialed, stall_timeout)?;
            let worker = Arc::new(Worker::start(link.clone(), stall_timeout)?);
            Ok(Self { link, worker, opened: Mutex::default() })
        };
        open().map_err(|error| error.to_string())
    }

    /// The device that copies: the local memory's, else the remote's, if this process sees it.
    fn copying_device(
        local: &Registered,
        remote: &RemoteRegion,
    ) -> Result<Arc<Device>, TransferError> {
        if let Place::Device { handle, .. } = local.memory().place() {
            return allocation(handle)?.map(|local| local.device.clone()).ok_or_else(|| {
                let what = "the local region's memory is not of CUDA".into();
                TransferError::Device { device: "the CUDA path".into(), what }
            });
        }
        let handle = Handle::decode(&remote.handle)?;
        match Device::of_uuid(handle.device)? {
            Some(device) => Ok(device),
            None => Device::open(0),
        }
    }

    /// A peer's memory, opened once for each device that copies.
    fn remote(&self, region: &RemoteRegion, device: &Arc<Device>) -> Result<Remote, TransferError> {
        match region.place {
            RemotePlace::Shared => return Ok(Remote::Host),
            RemotePlace::Device(_) => {}
            RemotePlace::Private => {
                let why = "the peer's region is private memory of its process".into();
                return Err(TransferError::Device { device: "the CUDA path".into(), what: why });
            }
        }
        let mut opened = self.opened.lock();
        // What peers dropped is closed here; jobs under way keep theirs.
        opened.retain(|(region, _), _| self.link.attached(*region).is_ok());
        let key = (region.id, device.ordinal());
        if let Some(remote) = opened.get(&key) {
            return Ok(Remote::Device(remote.clone()));
        }
        let handle = Handle::decode(&region.handle)?;
        let remote = Arc::new(RemoteMemory::open(&handle, region.shape.length, device)?);
        opened.insert(key, remote.clone());
        Ok(Remote::Device(remote))
    }

    fn check(&self, local: &Registered, remote: &RemoteRegion) -> Result<(), TransferError> {
        self.link.attach(remote)?;
        let device = Self::copying_device(local, remote)?;
        self.remote(remote, &device)?;
        Self::pin(local, &device)
    }

    /// Host memory is pinned, once, so that the device copies by itself.
    fn pin(local: &Registered, device: &Arc<Device>) -> Result<(), TransferError> {
        if let Place::Device { .. } = local.memory().place() {
            return Ok(());
        }
        local.registration(PathKind::CudaIpc, |memory| Pinned::new(device, memory)).map(drop)
    }
}

fn allocation(handle: &[u8]) -> Result<Option<Arc<Allocation>>, TransferError> {
    Ok(Allocation::of_this_process(Handle::decode(handle)?.allocation))
}

impl Path for CudaIpcPath {
    fn kind(&self) -> PathKind {
        PathKind::CudaIpc
    }

    fn carries(&self, _: Op, local: &Registered, remote: &RemoteRegion) -> Result<(), String> {
        let is_local = matches!(local.memory().place(), Place::Device { .. });
        if !is_local && !matches!(remote.place, RemotePlace::Device(_)) {
            return Err("neither region is a device's memory".into());
        }
        self.check(local, remote).map_err(|error| error.to_string())
    }

    fn post(&self, work: &Arc<Work>, part: usize) -> Result<(), TransferError> {
        let remote_region = work.remote();
        let attached = self.link.attached(remote_region.id)?;
        let device = Self::copying_device(work.local(), remote_region)?;
        let remote = self.remote(remote_region, &device)?;
        let local_ready = match work.local().memory().place() {
            Place::Device { handle, .. } => allocation(handle)?,
            _ => None,
        };
        let (hold, worker) = (work.hold(), self.worker.clone());
        let checks = &work.part(part).remote;
        if let Some(stale) = attached.epochs.stale(checks) {
            let (region, slot, expected) = (remote_region.id, stale.slot, stale.epoch);
            return Err(TransferError::Stale { end: End::Remote, region, slot, expected });
        }
        // A read holds no blocks, but has a grant too: it keeps the owner from freeing the memory
        // under a device that copies.
        let held = if work.op() == Op::Write { checks.as_slice() } else { &[] };
        self.link.grant(remote_region.id, held, move |grant| {
            Box::new(move |granted| match granted {
                Ok(()) => {
                    worker.post(Job { hold, part, attached, remote, device, grant, local_ready });
                }
                Err(error) => hold.work().fail(error),
            })
        })
    }

    fn attached_bytes(&self) -> u64 {
        self.link.attached_bytes()
    }

    fn notify(&self, work: &Work, part: usize) -> Result<(), TransferError> {
        let Some(tag) = work.tag() else { return Ok(()) };
        let (op, bytes) = (work.op(), work.part(part).bytes);
        self.link.notify(&Request::Notify { op, tag, part: part as u32, bytes })
    }
}

impl Drop for CudaIpcPath {
    fn drop(&mut self) {
        self.link.close();
    }
}

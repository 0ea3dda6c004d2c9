//! The path: what is posted becomes jobs for the copiers.

use super::copiers::{Copiers, Job};
use super::link::Link;
use crate::transfer::path::{Path, PathKind};
use crate::transfer::region::{Registered, RemotePlace};
use crate::transfer::wire::dial::Dialed;
use crate::transfer::wire::request::Request;
use crate::transfer::work::Work;
use crate::transfer::{End, Op, Place, RemoteRegion, TransferError};
use std::sync::Arc;
use std::time::Duration;

/// Shared memory with one peer.
pub struct ShmPath {
    link: Arc<Link>,
    copiers: Arc<Copiers>,
}

impl ShmPath {
    pub(in crate::transfer) fn open(
        dialed: Dialed,
        stall_timeout: Duration,
        copiers: Arc<Copiers>,
    ) -> Result<Self, TransferError> {
        Ok(Self { link: Link::start(dialed, stall_timeout)?, copiers })
    }
}

impl Path for ShmPath {
    fn kind(&self) -> PathKind {
        PathKind::Shm
    }

    fn carries(&self, _: Op, local: &Registered, remote: &RemoteRegion) -> Result<(), String> {
        if let Place::Device { .. } = local.memory().place() {
            return Err("the local region is a device's memory".into());
        }
        if remote.place != RemotePlace::Shared {
            return Err("the peer's region is not in a segment that can be mapped".into());
        }
        self.link.attach(remote).map(drop).map_err(|error| error.to_string())
    }

    fn post(&self, work: &Arc<Work>, part: usize) -> Result<(), TransferError> {
        let region = work.remote().id;
        let attached = self.link.attached(region)?;
        let checks = &work.part(part).remote;
        if let Some(stale) = attached.epochs.stale(checks) {
            let (slot, expected) = (stale.slot, stale.epoch);
            return Err(TransferError::Stale { end: End::Remote, region, slot, expected });
        }
        let hold = work.hold();
        let link = self.link.clone();
        match work.op() {
            Op::Read => self.copiers.post(Job::new(hold, part, attached, link, None)),
            Op::Write => {
                let copiers = self.copiers.clone();
                self.link.grant(region, checks, move |grant| {
                    Box::new(move |granted| match granted {
                        Ok(()) => copiers.post(Job::new(hold, part, attached, link, Some(grant))),
                        Err(error) => hold.work().fail(error),
                    })
                })?;
            }
        }
        Ok(())
    }

    fn attached_bytes(&self) -> u64 {
        self.link.attached_bytes()
    }

    fn lend(&self, work: &Work) {
        self.copiers.lend(work);
    }

    fn notify(&self, work: &Work, part: usize) -> Result<(), TransferError> {
        let Some(tag) = work.tag() else { return Ok(()) };
        let (op, bytes) = (work.op(), work.part(part).bytes);
        self.link.notify(&Request::Notify { op, tag, part: part as u32, bytes })
    }
}

impl Drop for ShmPath {
    fn drop(&mut self) {
        self.link.close();
    }
}

//! The owner's side of a queue pair. Its card serves reads and writes without it.

use super::address::Address;
use super::device::{Device, Registration};
use super::queue_pair::Connection;
use crate::transfer::path::PathKind;
use crate::transfer::region::Registered;
use crate::transfer::{RemoteRegion, TransferError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A peer's queue pair. Once it is dropped, the peer's card reaches nothing here any more.
pub(in crate::transfer) struct Responder {
    connection: Connection,
}

impl Responder {
    /// Answers a peer's address with one's own.
    pub fn open(device: &Arc<Device>, peer: &[u8]) -> Result<(Self, Vec<u8>), TransferError> {
        let peer = Address::decode(peer).ok_or_else(|| TransferError::Protocol {
            peer: "a peer".into(),
            what: format!("{} bytes are no queue pair's address", peer.len()),
        })?;
        let connection = Connection::new(device.clone())?;
        connection.expect_all()?;
        connection.connect(&peer)?;
        let own = connection.address().encode();
        Ok((Self { connection }, own))
    }

    /// Waits until everything that was written under a grant is there.
    pub fn await_written(&self, grant: u64, timeout: Duration) -> Result<(), TransferError> {
        let start = Instant::now();
        while !self.connection.immediate(grant as u32)? {
            if start.elapsed() > timeout {
                let waited_ms = timeout.as_millis() as u64;
                return Err(TransferError::Stalled { peer: "a writing card".into(), waited_ms });
            }
            std::thread::yield_now();
        }
        Ok(())
    }
}

/// The region's registration with the card, made at the first call.
pub(super) fn registration(
    device: &Arc<Device>,
    region: &Registered,
) -> Result<Arc<Registration>, TransferError> {
    region.registration(PathKind::Rdma, |memory| Registration::new(device, memory))
}

/// Address and key of a region for peers.
pub(in crate::transfer) fn remote_key(
    device: &Arc<Device>,
    region: &Registered,
) -> Result<(u64, u32), TransferError> {
    let registration = registration(device, region)?;
    Ok((registration.address(), registration.remote_key()))
}

/// Where a peer's region is for this side's card.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteKey {
    pub address: u64,
    pub key: u32,
}

impl RemoteKey {
    /// As error, for who has none.
    pub fn missing(region: &RemoteRegion) -> TransferError {
        TransferError::UnknownRegion { region: region.id }
    }
}

//! The path: what is posted becomes chains of requests for the card.

use super::address::Address;
use super::chain::Chain;
use super::device::Device;
use super::lane::Lane;
use super::queue_pair::Connection;
use super::responder::registration;
use crate::transfer::path::{Path, PathKind};
use crate::transfer::region::{Registered, RemotePlace};
use crate::transfer::wire::dial::{Dialed, Identity};
use crate::transfer::wire::reply::Reply;
use crate::transfer::wire::request::Request;
use crate::transfer::work::Work;
use crate::transfer::{Op, Place, RemoteRegion, TransferError};
use std::sync::Arc;

/// RDMA with one peer.
pub struct RdmaPath {
    device: Arc<Device>,
    lane: Arc<Lane>,
}

impl RdmaPath {
    /// Exchanges queue pairs over a new connection to the peer.
    pub(in crate::transfer) fn open(
        device: Arc<Device>,
        mut dialed: Dialed,
        identity: &Identity,
    ) -> Result<Self, TransferError> {
        let connection = Connection::new(device.clone())?;
        let ask = Request::QueuePair { address: connection.address().encode() };
        let lost = |lost: crate::transfer::wire::socket::Lost, name: &str| {
            lost.error(name, identity.stall_ms())
        };
        dialed
            .writer
            .send(&dialed.socket, &[], None, |body| ask.encode(body))
            .map_err(|error| lost(error, &dialed.name))?;
        let header =
            dialed.reader.next(&dialed.socket).map_err(|error| lost(error, &dialed.name))?;
        let address = match Reply::decode(header.kind, dialed.reader.body()) {
            Some(Reply::QueuePair { address }) => Address::decode(&address),
            _ => None,
        };
        let address = address.ok_or_else(|| TransferError::Refused {
            peer: dialed.name.clone(),
            why: "it has no queue pair to offer".into(),
        })?;
        connection.connect(&address)?;
        let name = device.name.clone();
        let lane = Lane::start(connection, name, dialed, identity.stall_timeout)?;
        Ok(Self { device, lane })
    }
}

impl Path for RdmaPath {
    fn kind(&self) -> PathKind {
        PathKind::Rdma
    }

    fn carries(&self, _: Op, local: &Registered, remote: &RemoteRegion) -> Result<(), String> {
        if let Place::Device { .. } = local.memory().place() {
            return Err("the local region is a device's memory".into());
        }
        if let RemotePlace::Device(_) = remote.place {
            return Err("the peer's region is a device's memory".into());
        }
        let registered = registration(&self.device, local).map(drop);
        let reached = registered.and_then(|()| self.lane.key(remote).map(drop));
        reached.map_err(|error| error.to_string())
    }

    fn post(&self, work: &Arc<Work>, part: usize) -> Result<(), TransferError> {
        if let Some(lost) = self.lane.lost() {
            return Err(lost);
        }
        let local = registration(&self.device, work.local())?;
        let local = (local.address(), local.local_key());
        let remote = self.lane.key(work.remote())?;
        let hold = work.hold();
        if work.part(part).runs.is_empty() {
            work.part_done(part);
            return Ok(());
        }
        match work.op() {
            Op::Read => self.lane.post(Chain::cut(hold, part, None, local, remote)),
            Op::Write => {
                let region = work.remote().id;
                let checks = work.part(part).remote.clone();
                let lane = Arc::downgrade(&self.lane);
                self.lane.ask(
                    region,
                    |id| Request::Grant { id, region, checks },
                    |grant| {
                        Box::new(move |granted| match (granted, lane.upgrade()) {
                            (Ok(()), Some(lane)) => {
                                lane.post(Chain::cut(hold, part, Some(grant), local, remote));
                            }
                            (Ok(()), None) => hold.work().fail(TransferError::Cancelled),
                            (Err(error), _) => hold.work().fail(error),
                        })
                    },
                )?;
            }
        }
        Ok(())
    }

    fn notify(&self, work: &Work, part: usize) -> Result<(), TransferError> {
        let Some(tag) = work.tag() else { return Ok(()) };
        let (op, bytes) = (work.op(), work.part(part).bytes);
        self.lane.tell(&Request::Notify { op, tag, part: part as u32, bytes })
    }
}

impl Drop for RdmaPath {
    fn drop(&mut self) {
        let peer = self.lane.peer.clone();
        self.lane.lose(&TransferError::PeerGone { peer, why: "this end closed".into() });
    }
}

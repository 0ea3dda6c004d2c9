//! The path: parts are cut, and connections opened when they are first needed.

use super::chunk::Chunk;
use super::stream::{Lane, Stream};
use crate::transfer::path::{Path, PathKind};
use crate::transfer::region::{Registered, RemotePlace};
use crate::transfer::wire::dial::{Dialed, Identity, dial};
use crate::transfer::wire::request::Request;
use crate::transfer::work::Work;
use crate::transfer::{Op, Place, RemoteRegion, TransferError};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;

/// Connections to one peer.
pub struct TcpPath {
    lane: Arc<Lane>,
    address: SocketAddr,
    identity: Arc<Identity>,
    incarnation: u64,
    streams: usize,
    open: Mutex<Open>,
}

enum Open {
    /// The connection that the peer was asked by.
    First(Option<Box<Dialed>>),
    All,
}

impl TcpPath {
    pub(in crate::transfer) fn new(
        first: Dialed,
        address: SocketAddr,
        identity: Arc<Identity>,
        streams: usize,
    ) -> Self {
        let lane = Arc::new(Lane::new(first.name.clone(), identity.stall_timeout));
        let incarnation = first.introduction.incarnation;
        let open = Mutex::new(Open::First(Some(Box::new(first))));
        Self { lane, address, identity, incarnation, streams, open }
    }

    fn open(&self) -> Result<(), TransferError> {
        let mut open = self.open.lock();
        let Open::First(first) = &mut *open else { return Ok(()) };
        let mut started = 0;
        if let Some(first) = first.take() {
            Stream::start(self.lane.clone(), *first)?;
            started += 1;
        }
        while started < self.streams {
            let socket = super::connect(self.address, &self.identity)?;
            let dialed = dial(socket, &self.identity, &self.lane.peer)?;
            let found = dialed.introduction.incarnation;
            if found != self.incarnation {
                let error = TransferError::Restarted { expected: self.incarnation, found };
                self.lane.lose(&error);
                return Err(error);
            }
            Stream::start(self.lane.clone(), dialed)?;
            started += 1;
        }
        *open = Open::All;
        Ok(())
    }
}

impl Path for TcpPath {
    fn kind(&self) -> PathKind {
        PathKind::Tcp
    }

    fn carries(&self, _: Op, local: &Registered, remote: &RemoteRegion) -> Result<(), String> {
        if let Place::Device { .. } = local.memory().place() {
            return Err("the local region is a device's memory".into());
        }
        if let RemotePlace::Device(_) = remote.place {
            return Err("the peer's region is a device's memory".into());
        }
        let lost = self.lane.lost().map_or(Ok(()), Err);
        lost.and_then(|()| self.open()).map_err(|error| error.to_string())
    }

    fn post(&self, work: &Arc<Work>, part: usize) -> Result<(), TransferError> {
        self.lane.post(Chunk::cut(work.hold(), part))
    }

    fn notify(&self, work: &Work, part: usize) -> Result<(), TransferError> {
        let Some(tag) = work.tag() else { return Ok(()) };
        let (op, bytes) = (work.op(), work.part(part).bytes);
        self.lane.tell(Request::Notify { op, tag, part: part as u32, bytes })
    }
}

impl Drop for TcpPath {
    fn drop(&mut self) {
        self.lane.flush();
        let peer = self.lane.peer.clone();
        self.lane.lose(&TransferError::PeerGone { peer, why: "this end closed".into() });
    }
}

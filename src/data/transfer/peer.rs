//! A peer that an agent is connected to, and which ways there are to it.

use super::agent::AgentConfig;
use super::cuda_ipc::path::CudaIpcPath;
use super::descriptor::Part;
use super::owner::Owner;
use super::path::{Path, PathKind};
use super::rdma::{self, RdmaPath};
use super::region::Registered;
use super::shm::{copiers::Copiers, path::ShmPath};
use super::tcp::{self, TcpPath};
use super::wire::auth::Introduction;
use super::wire::dial::{Dialed, Identity, dial};
use super::wire::socket::Socket;
use super::{Descriptor, Op, Prepared, Region, RemoteRegion, TransferError};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// A connected peer. When the connection is lost its transfers fail; connect again then.
pub struct Peer {
    name: String,
    incarnation: u64,
    paths: Vec<Arc<dyn Path>>,
    /// Ways that there are not, and why.
    absent: Vec<(PathKind, String)>,
}

impl Peer {
    pub(super) fn connect(
        config: &AgentConfig,
        owner: &Owner,
        copiers: &Arc<Copiers>,
        address: SocketAddr,
    ) -> Result<Self, TransferError> {
        let identity = &owner.identity;
        let name = address.to_string();
        let first = dial(tcp::connect(address, identity)?, identity, &name)?;
        let theirs = first.introduction.clone();
        let (paths, absent) = (Vec::new(), Vec::new());
        let mut peer = Self { name, incarnation: theirs.incarnation, paths, absent };
        peer.open(PathKind::CudaIpc, config, |name| {
            let dial = || unix_socket(identity, &theirs, name);
            Ok(Arc::new(CudaIpcPath::open(dial, identity.stall_timeout)?))
        });
        peer.open(PathKind::Shm, config, |name| shm_path(identity, copiers, &theirs, name));
        peer.open(PathKind::Rdma, config, |name| rdma_path(owner, &theirs, address, name));
        peer.open(PathKind::Tcp, config, |_| {
            let streams = config.tcp_streams.max(1);
            Ok(Arc::new(TcpPath::new(first, address, identity.clone(), streams)))
        });
        Ok(peer)
    }

    fn open(
        &mut self,
        kind: PathKind,
        config: &AgentConfig,
        open: impl FnOnce(&str) -> Result<Arc<dyn Path>, String>,
    ) {
        let opened = if config.paths.contains(&kind) {
            open(&self.name)
        } else {
            Err("it is not among this agent's paths".into())
        };
        match opened {
            Ok(path) => self.paths.push(path),
            Err(why) => self.absent.push((kind, why)),
        }
    }

    /// The peer's incarnation.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The ways there are, best first.
    pub fn paths(&self) -> Vec<PathKind> {
        self.paths.iter().map(|path| path.kind()).collect()
    }

    /// The ways there are not, each with the reason.
    pub fn absent(&self) -> &[(PathKind, String)] {
        &self.absent
    }

    /// Bytes of the peer's regions that are mapped here. Those of a region go when its owner drops
    /// it and the last transfer that uses it has ended.
    pub fn attached_bytes(&self) -> u64 {
        self.paths.iter().map(|path| path.attached_bytes()).sum()
    }

    /// Plans a transfer: checks every descriptor, merges adjacent ones, and picks the path, which
    /// `require` narrows to one. Each list of descriptors is a part that can be posted by itself.
    pub fn prepare(
        &self,
        op: Op,
        local: &Region,
        remote: &RemoteRegion,
        parts: &[&[Descriptor]],
        require: Option<PathKind>,
    ) -> Result<Prepared, TransferError> {
        if remote.incarnation != self.incarnation {
            let (expected, found) = (remote.incarnation, self.incarnation);
            return Err(TransferError::Restarted { expected, found });
        }
        let local = local.inner.clone();
        let planned = parts.iter().map(|part| Part::plan(&local.shape, &remote.shape, part));
        let parts: Arc<[Part]> = planned.collect::<Result<_, _>>()?;
        let path = self.path(op, &local, remote, require)?;
        Ok(Prepared { op, local, remote: remote.clone(), parts, path })
    }

    fn path(
        &self,
        op: Op,
        local: &Registered,
        remote: &RemoteRegion,
        require: Option<PathKind>,
    ) -> Result<Arc<dyn Path>, TransferError> {
        let mut reasons = self.absent.clone();
        for path in &self.paths {
            if require.is_none_or(|required| required == path.kind()) {
                match path.carries(op, local, remote) {
                    Ok(()) => return Ok(path.clone()),
                    Err(why) => reasons.push((path.kind(), why)),
                }
            }
        }
        let peer = self.name.clone();
        let Some(required) = require else {
            let reasons: Vec<_> =
                reasons.iter().map(|(kind, why)| format!("{kind}: {why}")).collect();
            return Err(TransferError::NoPath { op, peer, why: reasons.join("; ") });
        };
        let why = reasons.into_iter().find(|(kind, _)| *kind == required);
        let why = why.map_or_else(|| "there is no such path".into(), |(_, why)| why);
        Err(TransferError::Required { required, peer, why })
    }
}

fn shm_path(
    identity: &Identity,
    copiers: &Arc<Copiers>,
    theirs: &Introduction,
    name: &str,
) -> Result<Arc<dyn Path>, String> {
    let dialed = unix_socket(identity, theirs, name)?;
    let path = ShmPath::open(dialed, identity.stall_timeout, copiers.clone());
    Ok(Arc::new(path.map_err(|error| error.to_string())?))
}

/// A connection to a peer of this host, over which it hands files.
fn unix_socket(identity: &Identity, theirs: &Introduction, name: &str) -> Result<Dialed, String> {
    if theirs.boot != identity.introduction.boot || theirs.boot.is_empty() {
        return Err("the peer runs on another host".into());
    }
    let stream = std::os::unix::net::SocketAddr::from_abstract_name(&theirs.unix_name)
        .and_then(|name| UnixStream::connect_addr(&name))
        .map_err(|e| format!("its Unix socket cannot be reached (another container?): {e}"))?;
    let dialed = dial(Socket::Unix(stream), identity, name).map_err(|error| error.to_string())?;
    if dialed.introduction.incarnation != theirs.incarnation {
        return Err("another agent answers on its Unix socket".into());
    }
    Ok(dialed)
}

fn rdma_path(
    owner: &Owner,
    theirs: &Introduction,
    address: SocketAddr,
    name: &str,
) -> Result<Arc<dyn Path>, String> {
    let Some(card) = &owner.card else {
        return Err(rdma::absent().unwrap_or_else(|| "its device came too late".into()));
    };
    if !theirs.rdma {
        return Err("the peer has no RDMA device".into());
    }
    let identity = &owner.identity;
    let socket = tcp::connect(address, identity).map_err(|error| error.to_string())?;
    let dialed = dial(socket, identity, name).map_err(|error| error.to_string())?;
    if dialed.introduction.incarnation != theirs.incarnation {
        return Err("the peer restarted".into());
    }
    let path = RdmaPath::open(card.clone(), dialed, identity);
    Ok(Arc::new(path.map_err(|error| error.to_string())?))
}

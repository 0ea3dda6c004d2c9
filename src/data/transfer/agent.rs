//! A process's end of transfers: what it registered, and peers that it connects to.

use super::owner::{Listener, Owner};
use super::path::PathKind;
use super::peer::Peer;
use super::rdma::Device;
use super::registry::Registry;
use super::shm::copiers::{Copiers, CopyThreads};
use super::wire::auth::Introduction;
use super::wire::dial::Identity;
use super::{Layout, Memory, Op, Region, TransferError};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where peers connect. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What both ends must know. Without one, only the host itself is listened to.
    pub key: Option<Vec<u8>>,
    /// The paths that may be taken.
    pub paths: Vec<PathKind>,
    /// How long a silent peer is waited for.
    pub stall_timeout: Duration,
    /// Threads that copy between segments, beside those that wait for transfers. With none, the
    /// thread that posts a read copies, and for a write the one that hears the owner's consent.
    pub copy_threads: usize,
    /// TCP connections to a peer.
    pub tcp_streams: usize,
}

impl Default for AgentConfig {
    /// A free port of the loopback, no key, all paths, ten seconds, a quarter of the processors but
    /// at most four to copy, two connections.
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            key: None,
            paths: vec![PathKind::CudaIpc, PathKind::Shm, PathKind::Rdma, PathKind::Tcp],
            stall_timeout: Duration::from_secs(10),
            copy_threads: (processors / 4).clamp(1, 4),
            tcp_streams: 2,
        }
    }
}

/// What a peer said of a part of a tagged transfer that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    /// The incarnation of the peer that posted it.
    pub peer: u64,
    /// Whether it read from here or wrote to here.
    pub op: Op,
    /// The tag that it gave.
    pub tag: u64,
    /// The part.
    pub part: u32,
    /// The part's bytes.
    pub bytes: u64,
}

/// A process's end of transfers. Dropping it ends its peers' connections.
pub struct Agent {
    config: AgentConfig,
    owner: Arc<Owner>,
    copy_threads: CopyThreads,
    address: SocketAddr,
    _listener: Listener,
}

impl Agent {
    /// Starts to listen.
    pub fn new(config: AgentConfig) -> Result<Self, TransferError> {
        if config.key.is_none() && !config.listen.ip().is_loopback() {
            return Err(TransferError::KeyRequired { address: config.listen.to_string() });
        }
        let registry = Arc::new(Registry::new()?);
        let tcp = TcpListener::bind(config.listen)
            .map_err(|e| TransferError::os("listening for peers", e))?;
        let address = tcp.local_addr().map_err(|e| TransferError::os("asking for a port", e))?;
        let unix_name = format!("llmd-transfer-{:016x}", registry.incarnation).into_bytes();
        let unix = std::os::unix::net::SocketAddr::from_abstract_name(&unix_name)
            .and_then(|name| UnixListener::bind_addr(&name))
            .map_err(|e| TransferError::os("listening for peers of this host", e))?;
        let card = config.paths.contains(&PathKind::Rdma).then(Device::open).and_then(Result::ok);
        let introduction = Introduction {
            incarnation: registry.incarnation,
            boot: boot(),
            unix_name,
            rdma: card.is_some(),
        };
        let key = config.key.clone().unwrap_or_default();
        let stall_timeout = config.stall_timeout;
        let identity = Arc::new(Identity { key, introduction, stall_timeout });
        let owner = Arc::new(Owner::new(registry, identity, card));
        let listener = Listener::start(owner.clone(), tcp, unix)?;
        let copy_threads = Copiers::start(config.copy_threads)?;
        Ok(Self { config, owner, copy_threads, address, _listener: listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number that tells this agent from every other, and from itself before a restart.
    pub fn incarnation(&self) -> u64 {
        self.owner.registry.incarnation
    }

    /// Makes memory reachable for peers and for this agent's own transfers.
    pub fn register(
        &self,
        memory: impl Memory + 'static,
        layout: Layout,
    ) -> Result<Region, TransferError> {
        let owner = self.owner.clone();
        let on_drop = move |region| owner.detach(region);
        self.owner.registry.register(Box::new(memory), layout, on_drop)
    }

    /// Bytes of regions that are registered, or still in use after they were dropped.
    pub fn registered_bytes(&self) -> u64 {
        self.owner.registry.registered_bytes()
    }

    /// Connects to the agent that listens at `address`.
    pub fn connect(&self, address: SocketAddr) -> Result<Peer, TransferError> {
        Peer::connect(&self.config, &self.owner, self.copy_threads.copiers(), address)
    }

    /// The oldest notification that was not taken yet, if there is one.
    pub fn poll_notification(&self) -> Option<Notification> {
        self.owner.notification(Instant::now())
    }

    /// The same; waits for one.
    pub fn wait_notification(&self, timeout: Duration) -> Option<Notification> {
        self.owner.notification(Instant::now() + timeout)
    }
}

/// Names the running kernel; empty where it does not say.
fn boot() -> Vec<u8> {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim_ascii().to_vec()
}

//! The ROUTER socket.

use super::server::{PeerSide, Queued, ServerConfig, accept, listen};
use super::session::{Event, PeerInfo, SocketType};
use super::{Message, ZmtpError};
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Requests of all peers together that wait to be received; one more is dropped and counted.
/// (Whoever asks for a replay asks again.)
const INBOUND_MESSAGES: usize = 1024;
/// Replies to one peer that wait to be sent before [`RouterSender::send`] waits.
const OUTBOUND_MESSAGES: usize = 64;

/// Name of a connected peer: its own, or nine bytes that the router invented.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity(Bytes);

impl Identity {
    /// The bytes of the name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A bound ROUTER socket. Dropping it closes every connection.
#[derive(Debug)]
pub struct RouterServer {
    peers: Arc<Peers>,
    requests: mpsc::Receiver<(Identity, Message)>,
    address: SocketAddr,
    _stop: DropGuard,
}

/// Sends replies; cheap to clone.
#[derive(Debug, Clone)]
pub struct RouterSender {
    peers: Arc<Peers>,
}

#[derive(Debug)]
struct Peers {
    queues: Mutex<HashMap<Identity, mpsc::Sender<Queued>>>,
    invented: AtomicU64,
    dropped: AtomicU64,
}

impl RouterServer {
    /// Binds `tcp://host:port` (host `*`: every interface, port 0 or `*`: any free one) with
    /// default bounds. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ZmtpError::Endpoint`], [`ZmtpError::Io`].
    pub async fn bind(endpoint: &str) -> Result<Self, ZmtpError> {
        Self::bind_with(endpoint, ServerConfig::default()).await
    }

    /// [`bind`](Self::bind) with other bounds.
    ///
    /// # Errors
    /// [`ZmtpError::Endpoint`], [`ZmtpError::Io`].
    pub async fn bind_with(endpoint: &str, config: ServerConfig) -> Result<Self, ZmtpError> {
        let (listener, address) = listen(endpoint).await?;
        let (inbound, requests) = mpsc::channel(INBOUND_MESSAGES);
        let peers = Arc::new(Peers {
            queues: Mutex::default(),
            invented: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let join = {
            let peers = Arc::clone(&peers);
            move |peer| RouterSide::join(&peers, &peer, &inbound)
        };
        tokio::spawn(accept(listener, SocketType::Router, config, stop.clone(), join));
        Ok(Self { peers, requests, address, _stop: stop.drop_guard() })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next message and who sent it. Cancel-safe. The frames are the peer's, so a DEALER that
    /// imitates a REQ opens with an empty one.
    pub async fn recv(&mut self) -> (Identity, Message) {
        match self.requests.recv().await {
            Some(request) => request,
            // The accepting task holds a sender until this server is dropped.
            None => std::future::pending().await,
        }
    }

    /// For replying from elsewhere than where requests are received.
    #[must_use]
    pub fn sender(&self) -> RouterSender {
        RouterSender { peers: Arc::clone(&self.peers) }
    }

    /// Requests dropped because nobody received them in time.
    #[must_use]
    pub fn dropped_requests(&self) -> u64 {
        self.peers.dropped.load(Ordering::Relaxed)
    }
}

impl RouterSender {
    /// Sends a message, waiting while the peer is slow; a peer that takes nothing for
    /// [`super::LinkConfig::stall_timeout`] is disconnected.
    ///
    /// # Errors
    /// [`ZmtpError::UnknownPeer`]: it is gone.
    pub async fn send(&self, to: &Identity, frames: &[Bytes]) -> Result<(), ZmtpError> {
        let queue = self.peers.queues.lock().get(to).cloned().ok_or(ZmtpError::UnknownPeer)?;
        queue.send(frames.iter().cloned().collect()).await.map_err(|_| ZmtpError::UnknownPeer)
    }
}

struct RouterSide {
    identity: Identity,
    peers: Arc<Peers>,
    inbound: mpsc::Sender<(Identity, Message)>,
}

impl RouterSide {
    fn join(
        peers: &Arc<Peers>,
        peer: &PeerInfo,
        inbound: &mpsc::Sender<(Identity, Message)>,
    ) -> (Self, mpsc::Receiver<Queued>) {
        let (queue, messages) = mpsc::channel(OUTBOUND_MESSAGES);
        let mut queues = peers.queues.lock();
        let mut identity = Identity(Bytes::copy_from_slice(&peer.identity));
        // A name that is taken, or that could be one of ours, is replaced.
        if identity.0.first().is_none_or(|&byte| byte == 0) || queues.contains_key(&identity) {
            identity = peers.invent();
        }
        queues.insert(identity.clone(), queue);
        drop(queues);
        (Self { identity, peers: Arc::clone(peers), inbound: inbound.clone() }, messages)
    }
}

impl Peers {
    fn invent(&self) -> Identity {
        let mut name = BytesMut::with_capacity(9);
        name.put_u8(0);
        name.put_u64(self.invented.fetch_add(1, Ordering::Relaxed));
        Identity(name.freeze())
    }
}

impl PeerSide for RouterSide {
    fn event(&mut self, event: Event) -> Result<(), ZmtpError> {
        if let Event::Message(message) = event
            && self.inbound.try_send((self.identity.clone(), message)).is_err()
        {
            self.peers.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for RouterSide {
    fn drop(&mut self) {
        self.peers.queues.lock().remove(&self.identity);
    }
}

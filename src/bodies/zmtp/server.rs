//! What the two servers share: accepting peers, and serving one.

use super::link::{Link, LinkConfig};
use super::session::{Event, PeerInfo, SessionConfig, SocketType};
use super::{Endpoint, ZmtpError};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Bounds of a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Patience and limits towards each peer. A server's peers say little: the default limits
    /// are 64 KiB a message.
    pub link: LinkConfig,
    /// Most peers at once; one more is closed as soon as it connects.
    pub max_peers: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let mut link = LinkConfig::default();
        link.limits.max_message_bytes = 64 << 10;
        Self { link, max_peers: 1024 }
    }
}

/// A message on its way to one or many peers.
pub(super) type Queued = Arc<[Bytes]>;

/// What a server does with one of its peers.
pub(super) trait PeerSide: Send {
    /// The peer did something; an error closes the connection.
    fn event(&mut self, event: Event) -> Result<(), ZmtpError>;
    /// A queued message has left the queue.
    fn dequeued(&mut self, _message: &Queued) {}
}

/// Bytes handed to a connection before the next message is taken from its queue.
const OUTPUT_HIGH_BYTES: usize = 256 << 10;

pub(super) async fn listen(endpoint: &str) -> Result<(TcpListener, SocketAddr), ZmtpError> {
    let endpoint: Endpoint = endpoint.parse()?;
    let refused = |e| ZmtpError::io(format!("cannot bind {endpoint}"), e);
    let listener = TcpListener::bind(endpoint.bind_address()).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Accepts until `stop`. `join` is asked for each peer that shook hands, and says how to serve it.
pub(super) async fn accept<S: PeerSide + 'static>(
    listener: TcpListener,
    socket_type: SocketType,
    config: ServerConfig,
    stop: CancellationToken,
    join: impl Fn(PeerInfo) -> (S, mpsc::Receiver<Queued>) + Send + Sync + 'static,
) {
    let room = Arc::new(Semaphore::new(config.max_peers));
    let join = Arc::new(join);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: waiting lets some come back.
                tracing::warn!(%error, "cannot accept a ZMTP peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%address, limit = config.max_peers, "ZMTP peer refused: too many");
            continue;
        };
        let (stop, join, link) = (stop.clone(), Arc::clone(&join), config.link.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                outcome = serve(stream, socket_type, link, &*join) => {
                    if let Err(error) = outcome {
                        tracing::debug!(%address, %error, "ZMTP peer gone");
                    }
                }
            }
            drop(permit);
        });
    }
}

async fn serve<S: PeerSide>(
    stream: TcpStream,
    socket_type: SocketType,
    config: LinkConfig,
    join: &(impl Fn(PeerInfo) -> (S, mpsc::Receiver<Queued>) + ?Sized),
) -> Result<(), ZmtpError> {
    let mut session = SessionConfig::new(socket_type);
    session.limits = config.limits;
    let (mut link, peer) = Link::accept(stream, session, config).await?;
    let (mut side, mut queue) = join(peer);
    loop {
        while let Some(event) = link.session().poll()? {
            side.event(event)?;
        }
        let has_room = link.output_bytes() < OUTPUT_HIGH_BYTES;
        tokio::select! {
            turned = link.turn() => turned?,
            message = queue.recv(), if has_room => {
                let Some(message) = message else { return Ok(()) };
                side.dequeued(&message);
                link.send(&message);
            }
        }
    }
}

//! Threads, listeners, and an end that loses nothing.

use super::Gateway;
use super::config::ms;
use super::connection::serve;
use super::worker::Worker;
use hyper_util::server::graceful::GracefulShutdown;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// After the gateway is told to stop, connections are still answered for so long, each answer with
/// `Connection: close`: a client that sends on an old connection just then loses nothing.
const LAME_DUCK: Duration = Duration::from_millis(500);
const BACKLOG: i32 = 4_096;

/// A running gateway. Dropping it stops it at once.
pub struct GatewayServer {
    gateway: Arc<Gateway>,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl GatewayServer {
    /// Binds and starts to serve.
    ///
    /// # Errors
    /// [`super::GatewayError`]; nothing is left running.
    pub fn start(config: super::GatewayConfig) -> Result<Self, super::GatewayError> {
        Self::start_from(config, None)
    }

    /// The same, with settings that can be read again.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_from(
        config: super::GatewayConfig,
        source: Option<super::ConfigSource>,
    ) -> Result<Self, super::GatewayError> {
        let listener = bind(&config.listen).map_err(|source| super::GatewayError::Listen {
            address: config.listen.clone(),
            source,
        })?;
        let address = listener.local_addr().map_err(super::GatewayError::Threads)?;
        let threads = match config.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        };
        let connections = Arc::new(Semaphore::new(config.limits.max_connections));
        let (gateway, admin) = begin(config, source)?;
        let stop = CancellationToken::new();
        let mut server = Self { gateway, address, admin, stop, threads: Vec::new() };
        for number in 0..threads {
            let (listener, gateway) = (listener.try_clone(), Arc::clone(&server.gateway));
            let listener = listener.map_err(super::GatewayError::Threads)?;
            let (stop, connections) = (server.stop.clone(), Arc::clone(&connections));
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(super::GatewayError::Threads)?;
            let thread = std::thread::Builder::new()
                .name(format!("llmd-gateway-{number}"))
                .spawn(move || runtime.block_on(run(gateway, listener, connections, stop)))
                .map_err(super::GatewayError::Threads)?;
            server.threads.push(thread);
        }
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where its admin API listens, if it has one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.gateway.settings().tls.is_some(), self.address)
    }

    /// The base URL of its admin API, if it has one.
    #[must_use]
    pub fn admin_url(&self) -> Option<String> {
        let is_secure = self.gateway.settings().admin_tls.is_some();
        self.admin.map(|address| url(is_secure, address))
    }

    /// What it serves with.
    #[must_use]
    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Takes no new requests, and waits for the answers under way, for as long as the configuration
    /// says; blocks this thread.
    pub fn drain(mut self) {
        self.gateway.drain();
        self.stop.cancel();
        for thread in std::mem::take(&mut self.threads) {
            let _ = thread.join();
        }
        self.gateway.spans.flush();
        self.gateway.live.close();
    }
}

impl Drop for GatewayServer {
    fn drop(&mut self) {
        self.gateway.abandon();
        self.stop.cancel();
        for thread in std::mem::take(&mut self.threads) {
            let _ = thread.join();
        }
        self.gateway.live.close();
    }
}

/// A gateway that serves nobody yet, and where its admin API listens.
pub(super) fn begin(
    config: super::GatewayConfig,
    source: Option<super::ConfigSource>,
) -> Result<(Arc<Gateway>, Option<SocketAddr>), super::GatewayError> {
    let gateway = Gateway::new(config, source)?;
    match super::admin::serve(&gateway) {
        Ok(admin) => Ok((gateway, admin)),
        Err(error) => {
            // Who looks after engines keeps the router alive until it is closed.
            gateway.live.close();
            Err(error)
        }
    }
}

pub(super) fn url(is_secure: bool, address: SocketAddr) -> String {
    format!("{}://{address}", if is_secure { "https" } else { "http" })
}

fn bind(address: &str) -> std::io::Result<std::net::TcpListener> {
    use std::net::ToSocketAddrs;
    let mut last = std::io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        match socket.bind(&address.into()).and_then(|()| socket.listen(BACKLOG)) {
            Ok(()) => return Ok(socket.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Serves on this thread until it is told to stop and all is answered.
async fn run(
    gateway: Arc<Gateway>,
    listener: std::net::TcpListener,
    connections: Arc<Semaphore>,
    stop: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a thread cannot listen"),
    };
    let worker = Worker::new(Arc::clone(&gateway));
    let graceful = GracefulShutdown::new();
    let accept = async {
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        loop {
            let permit = Arc::clone(&connections).acquire_owned();
            tokio::select! {
                (permit, accepted) = async { (permit.await, listener.accept().await) } => {
                    match accepted {
                        Ok((stream, _)) => serve(stream, &worker, &graceful, permit.ok()),
                        Err(error) => {
                            // Out of file descriptors, most likely: others have to end first.
                            tracing::warn!(%error, "a connection cannot be accepted");
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
                _ = sweep.tick() => worker.pool.sweep(),
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = async {
            stop.cancelled().await;
            if !gateway.is_abandoned() {
                tokio::time::sleep(LAME_DUCK).await;
            }
        } => {}
    }
    // Who has connected by now is served; then the port is closed. By the socket itself: tokio would
    // look only where its poller has been told of somebody.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                serve(stream, &worker, &graceful, None);
            }
        }
    }
    if gateway.is_abandoned() {
        return;
    }
    // Who came last has hardly been read: what closes idle connections would close theirs, with a
    // request in it.
    tokio::time::sleep(LAME_DUCK).await;
    let drained = tokio::time::timeout(ms(gateway.settings().config.drain_ms), graceful.shutdown());
    if drained.await.is_err() {
        tracing::warn!("answers were still under way after drain_ms and are broken off");
    }
}

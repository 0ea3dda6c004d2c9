//! Connections to engines that are kept between requests, of one thread.
//!
//! Last in, first out, so that those which are not needed grow old; one that is older than what
//! servers keep (uvicorn: 5 s) is never used. What a server closed meanwhile is seen before a
//! request is sent; where both happen at once the request is sent again on a new connection.

use super::settings::Settings;
use super::upstream::Upstream;
use crate::tls::Wire;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Longest that an idle connection is kept.
const IDLE: Duration = Duration::from_secs(3);
/// Most that are kept for one engine; what is above is closed when it falls idle.
const MAX_IDLE: usize = 256;

type Sender = SendRequest<Full<Bytes>>;

struct Idle {
    sender: Sender,
    since: Instant,
}

/// Idle connections by engine.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<u64, Vec<Idle>>>,
}

/// A connection in use; [`give_back`](Self::give_back) where its answer was read to the end.
pub(super) struct Lease {
    sender: Sender,
    upstream: u64,
    pool: Arc<Pool>,
    /// Whether it served a request before.
    is_reused: bool,
}

/// Why an engine gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("cannot be connected to: {0}")]
    Connect(String),
    #[error("made no TLS connection: {0}")]
    Tls(String),
    #[error("took no connection within {0} ms")]
    ConnectTimeout(u64),
    #[error("closed the connection without an answer: {0}")]
    Broken(String),
    #[error("gave no answer within {0} ms")]
    Silent(u64),
}

impl Pool {
    /// A connection to an engine: an idle one where there is one that still stands.
    pub(super) async fn lease(
        self: &Arc<Self>,
        upstream: &Upstream,
        settings: &Settings,
    ) -> Result<Lease, Unanswered> {
        match self.take(upstream.number) {
            Some(sender) => Ok(self.leased(sender, upstream, true)),
            None => self.connect(upstream, settings).await,
        }
    }

    /// A new connection to an engine.
    pub(super) async fn connect(
        self: &Arc<Self>,
        upstream: &Upstream,
        settings: &Settings,
    ) -> Result<Lease, Unanswered> {
        let connect_ms = settings.config.timeouts.connect_ms;
        let failed = |error: std::io::Error| Unanswered::Connect(error.to_string());
        let connecting = async {
            let to = (upstream.host.as_str(), upstream.port);
            let stream = TcpStream::connect(to).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            if !upstream.is_secure {
                return Ok(Wire::Plain(stream));
            }
            let secured = settings.upstream_tls.connect(stream, &upstream.host).await;
            secured.map_err(|error| Unanswered::Tls(error.to_string()))
        };
        let stream = tokio::time::timeout(Duration::from_millis(connect_ms), connecting)
            .await
            .map_err(|_| Unanswered::ConnectTimeout(connect_ms))??;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Unanswered::Connect(error.to_string()))?;
        upstream.counts.connections.fetch_add(1, Relaxed);
        // It ends when its last lease is dropped, or the engine closes it.
        tokio::spawn(async move { drop(connection.await) });
        Ok(self.leased(sender, upstream, false))
    }

    fn leased(self: &Arc<Self>, sender: Sender, upstream: &Upstream, is_reused: bool) -> Lease {
        Lease { sender, upstream: upstream.number, pool: Arc::clone(self), is_reused }
    }

    fn take(&self, upstream: u64) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(&upstream)?;
        kept.retain(|it| !it.sender.is_closed() && it.since.elapsed() < IDLE);
        // One whose answer has just ended may need another moment.
        let at = kept.iter().rposition(|it| it.sender.is_ready())?;
        Some(kept.remove(at).sender)
    }

    /// Closes what has been idle for too long. Whoever owns the pool calls this every second or so.
    pub(super) fn sweep(&self) {
        let mut idle = self.idle.lock();
        idle.retain(|_, kept| {
            kept.retain(|it| it.since.elapsed() < IDLE && !it.sender.is_closed());
            !kept.is_empty()
        });
    }
}

impl Lease {
    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let broken = |error: hyper::Error| Unanswered::Broken(error.to_string());
        self.sender.ready().await.map_err(broken)?;
        self.sender.send_request(request).await.map_err(broken)
    }

    /// Whether it served a request before: then an engine may have closed it as it was used again.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// For the next request.
    pub(super) fn give_back(self) {
        if self.sender.is_closed() {
            return;
        }
        let mut idle = self.pool.idle.lock();
        let kept = idle.entry(self.upstream).or_default();
        if kept.len() < MAX_IDLE {
            kept.push(Idle { sender: self.sender, since: Instant::now() });
        }
    }
}

//! Connections to engines that are kept between requests, of one thread.
//!
//! Last in, first out, so that those which are not needed grow old; one that is older than what
//! servers keep (uvicorn: 5 s) is never used. What a server closed meanwhile is seen before a
//! request is sent; where both happen at once the request is sent again on a new connection.

use super::http1::{Connection, WireError};
use super::settings::Settings;
use super::upstream::Upstream;
use crate::tls::Wire;
use bytes::Bytes;
use hyper::Response;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Longest that an idle connection is kept.
const IDLE: Duration = Duration::from_secs(3);
/// Most that are kept for one engine; what is above is closed when it falls idle.
const MAX_IDLE: usize = 256;

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Idle connections by engine.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<u64, Vec<Idle>>>,
}

/// A connection in use; [`give_back`](Self::give_back) where its answer was read to the end.
pub(super) struct Lease {
    connection: Connection,
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
            Some(connection) => Ok(self.leased(connection, upstream, true)),
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
        upstream.counts.connections.fetch_add(1, Relaxed);
        Ok(self.leased(Connection::new(stream), upstream, false))
    }

    fn leased(
        self: &Arc<Self>,
        connection: Connection,
        upstream: &Upstream,
        is_reused: bool,
    ) -> Lease {
        Lease { connection, upstream: upstream.number, pool: Arc::clone(self), is_reused }
    }

    fn take(&self, upstream: u64) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(&upstream)?;
        while let Some(Idle { mut connection, since }) = kept.pop() {
            // Those that are left are older.
            if since.elapsed() >= IDLE {
                kept.clear();
                return None;
            }
            if connection.is_idle() {
                return Some(connection);
            }
        }
        None
    }

    /// Closes what has been idle for too long, or was closed by its engine. Whoever owns the pool
    /// calls this every second or so.
    pub(super) fn sweep(&self) {
        let mut idle = self.idle.lock();
        idle.retain(|_, kept| {
            kept.retain_mut(|it| it.since.elapsed() < IDLE && it.connection.is_idle());
            !kept.is_empty()
        });
    }
}

impl Lease {
    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(
        &mut self,
        head: Bytes,
        body: Bytes,
    ) -> Result<Response<()>, Unanswered> {
        let answer = self.connection.exchange(head, body).await;
        answer.map(|it| it.head).map_err(|error| Unanswered::Broken(error.to_string()))
    }

    /// The next piece of the answer; `None` at its end.
    pub(super) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, WireError>>> {
        self.connection.poll_piece(context)
    }

    /// Whether the answer was read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.connection.is_over()
    }

    /// Bytes of the answer that are left, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.connection.left()
    }

    /// Whether it served a request before: then an engine may have closed it as it was used again.
    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// For the next request, if there may be one.
    pub(super) fn give_back(mut self) {
        if !self.connection.is_idle() {
            return;
        }
        let mut idle = self.pool.idle.lock();
        let kept = idle.entry(self.upstream).or_default();
        if kept.len() < MAX_IDLE {
            self.connection.shrink();
            kept.push(Idle { connection: self.connection, since: Instant::now() });
        }
    }
}

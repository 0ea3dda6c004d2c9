//! A client's connection, from its handshake to its end.
//!
//! It has `timeouts.client_head_ms` for the handshake and as long again for the first request, in
//! whichever version of HTTP: what has said nothing by then is closed. That is looked at here, since
//! what tells HTTP/2 from HTTP/1 waits without end for a byte that would.

use super::config::{GatewayConfig, ms};
use super::worker::Worker;
use crate::tls::{ServerTls, Wire};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// A client of HTTP/2 that says nothing is asked whether it is still there: HTTP/1 has the timeout of
/// its next head for that.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Serves a connection in a task of its own.
pub(super) fn serve(
    stream: TcpStream,
    worker: &Arc<Worker>,
    graceful: &GracefulShutdown,
    permit: Option<OwnedSemaphorePermit>,
) {
    // Events are small and each is waited for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it was served");
        return;
    }
    let settings = worker.gateway.settings();
    let worker = Arc::clone(worker);
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        let patience = ms(settings.config.timeouts.client_head_ms);
        let counts = &worker.gateway.counts;
        let Some(stream) = shaken(stream, settings.tls.as_ref(), patience).await else {
            counts.failed_handshakes.fetch_add(1, Relaxed);
            return;
        };
        let builder = builder(&settings.config);
        // Connections live long, and others may have taken their place.
        drop(settings);
        let asked = Arc::new(Notify::new());
        let service = hyper::service::service_fn({
            let (worker, asked) = (Arc::clone(&worker), Arc::clone(&asked));
            move |request| {
                asked.notify_one();
                let worker = Arc::clone(&worker);
                async move { Ok::<_, Infallible>(worker.serve(request).await) }
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let mut connection = pin!(watcher.watch(connection));
        // In this order, so that what is asked for the first time is not mistaken for silence; and
        // after it no event pays for the timer.
        let ended = tokio::select! {
            biased;
            ended = &mut connection => ended,
            () = asked.notified() => connection.await,
            () = tokio::time::sleep(patience) => {
                counts.silent_connections.fetch_add(1, Relaxed);
                return tracing::debug!("a connection on which no request came is closed");
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a client's connection ended badly");
        }
        drop(permit);
    });
}

/// The connection after its handshake, where there is to be one; `None` where that came to nothing.
pub(super) async fn shaken(
    stream: TcpStream,
    tls: Option<&ServerTls>,
    patience: Duration,
) -> Option<Wire> {
    let Some(tls) = tls else { return Some(Wire::Plain(stream)) };
    match tokio::time::timeout(patience, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "a client's TLS handshake failed"),
        Err(_) => tracing::debug!("a client's TLS handshake took longer than client_head_ms"),
    }
    None
}

/// How requests are read, with what is allowed them.
pub(super) fn builder(config: &GatewayConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(ms(config.timeouts.client_head_ms))
        .max_buf_size(config.limits.max_head_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_header_list_size(u32::try_from(config.limits.max_head_bytes).unwrap_or(u32::MAX));
    builder
}

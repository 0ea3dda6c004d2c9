//! A gateway in a server of somebody else's: that one has the port, and hands its requests in.
//!
//! They are served as those of a port are, by a thread of the gateway's own, which never waits for who
//! hands them in. Connections, TLS to clients and the limits of both are the server's: `listen`,
//! `threads`, `timeouts.client_head_ms` and `limits.max_connections` say nothing here, and `tls` is
//! refused, since one who gives it relies on it.

use super::config::ms;
use super::exchange::{Exchange, HandedIn, Telling};
use super::refusal::Refusal;
use super::server::{begin, url};
use super::worker::Worker;
use super::{ConfigSource, Gateway, GatewayConfig, GatewayError};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The head of a request, as a server has it.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a, H> {
    /// `GET`, `POST` and so on.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Headers: names, of any case, and values.
    pub headers: H,
}

/// A running gateway without a port. Dropping it stops it at once.
pub struct MountedGateway {
    gateway: Arc<Gateway>,
    admin: Option<SocketAddr>,
    worker: Arc<Worker>,
    tasks: TaskTracker,
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl MountedGateway {
    /// Starts to serve what is handed in.
    ///
    /// # Errors
    /// [`GatewayError`]; nothing is left running.
    pub fn start(
        config: GatewayConfig,
        source: Option<ConfigSource>,
    ) -> Result<Self, GatewayError> {
        if config.tls.is_some() {
            return Err(GatewayError::MountedTls);
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(GatewayError::Threads)?;
        let (gateway, admin) = begin(config, source)?;
        let mut mounted = Self {
            worker: Worker::new(Arc::clone(&gateway)),
            gateway,
            admin,
            tasks: TaskTracker::new(),
            handle: runtime.handle().clone(),
            stop: CancellationToken::new(),
            thread: None,
        };
        let run = mounted.run(runtime);
        let thread = std::thread::Builder::new().name("llmd-gateway".to_owned()).spawn(run);
        mounted.thread = Some(thread.map_err(GatewayError::Threads)?);
        Ok(mounted)
    }

    /// What its thread does until it is told to stop and all is answered.
    fn run(&self, runtime: Runtime) -> impl FnOnce() + Send + 'static {
        let (gateway, worker) = (Arc::clone(&self.gateway), Arc::clone(&self.worker));
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        let serving = async move {
            let mut sweep = tokio::time::interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    _ = sweep.tick() => worker.pool.sweep(),
                    () = stop.cancelled() => break,
                }
            }
            if gateway.is_abandoned() {
                return;
            }
            let drain = ms(gateway.settings().config.drain_ms);
            if tokio::time::timeout(drain, tasks.wait()).await.is_err() {
                tracing::warn!("answers were still under way after drain_ms and are broken off");
            }
        };
        move || runtime.block_on(serving)
    }

    /// Serves a request, whose body is still to be fed. `wake` is called, by another thread, when
    /// something of the answer has come for one who found nothing.
    pub fn ask<'a>(
        &self,
        head: Head<'_, impl Iterator<Item = (&'a [u8], &'a [u8])>>,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Exchange {
        let head = read(head);
        Exchange::new(wake, |body: HandedIn, telling: Telling| match head {
            Ok(head) => {
                let (parts, ()) = head.into_parts();
                let request = Request::from_parts(parts, body);
                self.spawn(telling.run(Arc::clone(&self.worker), request))
            }
            Err(why) => {
                let refusal = Refusal::invalid("invalid_request", why);
                self.gateway.counts.refused(refusal.status);
                self.spawn(telling.relay(refusal.into_response()))
            }
        })
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
        self.tasks.spawn_on(task, &self.handle).abort_handle()
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

    /// Waits for the answers under way, for as long as the configuration says, and ends; blocks this
    /// thread.
    pub fn drain(mut self) {
        self.gateway.drain();
        self.tasks.close();
        self.stop.cancel();
        self.join();
        self.gateway.spans.flush();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for MountedGateway {
    fn drop(&mut self) {
        self.gateway.abandon();
        self.stop.cancel();
        self.join();
        self.gateway.live.close();
    }
}

/// A server lets through what it can read, which need not be what this one can.
fn read<'a>(
    head: Head<'_, impl Iterator<Item = (&'a [u8], &'a [u8])>>,
) -> Result<Request<()>, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in head.headers {
        let shown = || String::from_utf8_lossy(name).into_owned();
        let named = HeaderName::from_bytes(name)
            .map_err(|_| format!("{:?} is no name of a header", shown()))?;
        let value = HeaderValue::from_bytes(value)
            .map_err(|_| format!("the value of the header {:?} cannot be", shown()))?;
        headers.append(named, value);
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method.as_bytes())
        .map_err(|_| format!("{:?} is no method", head.method))?;
    *request.uri_mut() = Uri::try_from(head.target)
        .map_err(|why| format!("{:?} cannot be asked for: {why}", head.target))?;
    *request.headers_mut() = headers;
    Ok(request)
}

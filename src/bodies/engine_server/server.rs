//! Starting and stopping.

use super::http::{Service, router};
use super::kv_events::{BoundSockets, KvEventPublisher};
use super::rank::{Rank, RankHandle, RankSetup};
use super::{EngineServerConfig, HashForm, ServerConfigError};
use crate::zmtp::{Endpoint, ZmtpError};
use axum::serve::ListenerExt;
use bytes::Bytes;
use llmd_brain::engine::EngineModel;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where a rank publishes its KV events.
#[derive(Debug, Clone, PartialEq)]
pub struct KvEventSource {
    /// Whose.
    pub dp_rank: u32,
    /// PUB socket.
    pub endpoint: Endpoint,
    /// ROUTER socket.
    pub replay_endpoint: Option<Endpoint>,
    /// First frame of every message.
    pub topic: String,
    /// Batches kept for replay.
    pub buffer_steps: usize,
}

/// A running embedded engine. Dropping it stops it at once.
#[derive(Debug)]
pub struct EngineServer {
    address: SocketAddr,
    config: EngineServerConfig,
    kv_event_sources: Vec<KvEventSource>,
    http: JoinHandle<std::io::Result<()>>,
    ranks: JoinSet<()>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineServerError {
    /// It cannot be.
    #[error(transparent)]
    Config(#[from] ServerConfigError),
    /// The HTTP port is not to be had.
    #[error("cannot listen on {host}:{port}: {source}; choose another port, or 0 for a free one")]
    Bind {
        /// Address asked for.
        host: String,
        /// Port asked for.
        port: u16,
        /// What the system says.
        source: std::io::Error,
    },
    /// A KV event port is not to be had.
    #[error(
        "cannot publish KV events on {endpoint}: {source}; choose another port, or 0 for free ones"
    )]
    KvEvents {
        /// Endpoint of rank 0.
        endpoint: String,
        /// What the socket says.
        source: ZmtpError,
    },
}

impl EngineServer {
    /// Binds everything and starts to serve, on the tokio runtime that it is called in.
    ///
    /// # Errors
    /// [`EngineServerError`]; nothing is left running.
    pub async fn start(config: EngineServerConfig) -> Result<Self, EngineServerError> {
        config.validate()?;
        let (host, port) = (config.host.clone(), config.port);
        let bind = async {
            let listener = TcpListener::bind((&*config.host, config.port)).await?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let (listener, address) =
            bind.await.map_err(|source| EngineServerError::Bind { host, port, source })?;
        let mut sockets = Vec::new();
        if let Some(kv_events) = &config.kv_events {
            let bound = BoundSockets::bind(kv_events, config.data_parallel_size).await;
            sockets = bound.map_err(|source| EngineServerError::KvEvents {
                endpoint: kv_events.endpoint.to_string(),
                source,
            })?;
        }
        let kv_event_sources = kv_event_sources(&config, address, &sockets);
        let (ranks, handles) = start_ranks(&config, sockets, &kv_event_sources)?;
        let service = Service::new(config.clone(), handles, kv_event_sources.clone());
        let stop = CancellationToken::new();
        // Server-sent events are small and each is waited for.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let serve = axum::serve(listener, router(Arc::new(service)))
            .with_graceful_shutdown(stop.clone().cancelled_owned());
        let http = tokio::spawn(serve.into_future());
        let _stop_on_drop = stop.clone().drop_guard();
        Ok(Self { address, config, kv_event_sources, http, ranks, stop, _stop_on_drop })
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was started with.
    #[must_use]
    pub fn config(&self) -> &EngineServerConfig {
        &self.config
    }

    /// Where its ranks publish KV events; empty where they do not.
    #[must_use]
    pub fn kv_event_sources(&self) -> &[KvEventSource] {
        &self.kv_event_sources
    }

    /// What whoever started the process needs to know, as one JSON object: `url`, `host`, `port`,
    /// `model`, `block_size`, `kv_blocks`, `max_model_len` and, for each rank, `kv_events`.
    #[must_use]
    pub fn ready_message(&self) -> Value {
        let sources = self.kv_event_sources.iter().map(|source| {
            json!({
                "dp_rank": source.dp_rank,
                "endpoint": source.endpoint.to_string(),
                "replay_endpoint": source.replay_endpoint.as_ref().map(ToString::to_string),
                "topic": source.topic,
            })
        });
        json!({
            "url": self.url(),
            "host": self.address.ip().to_string(),
            "port": self.address.port(),
            "model": self.config.model,
            "block_size": self.config.engine.block_size,
            "kv_blocks": self.config.engine.kv_blocks,
            "max_model_len": self.config.max_model_len,
            "data_parallel_size": self.config.data_parallel_size,
            "kv_events": sources.collect::<Vec<Value>>(),
        })
    }

    /// Stops to listen, lets what is in flight finish for at most `grace`, and ends the rest.
    pub async fn shutdown(mut self, grace: Duration) {
        self.stop.cancel();
        if tokio::time::timeout(grace, &mut self.http).await.is_err() {
            self.http.abort();
        }
        // Streams that are still open break off when their rank is gone.
        self.ranks.shutdown().await;
    }
}

/// The topic that llm-d's routers expect: `kv@<address>@<model>`.
fn default_topic(config: &EngineServerConfig, address: SocketAddr) -> String {
    format!("kv@{}:{}@{}", config.host, address.port(), config.model)
}

fn kv_event_sources(
    config: &EngineServerConfig,
    address: SocketAddr,
    sockets: &[BoundSockets],
) -> Vec<KvEventSource> {
    let Some(kv_events) = &config.kv_events else { return Vec::new() };
    let topic = kv_events.topic.clone().unwrap_or_else(|| default_topic(config, address));
    let source = |(dp_rank, bound): (u32, &BoundSockets)| KvEventSource {
        dp_rank,
        endpoint: bound.endpoint(kv_events),
        replay_endpoint: bound.replay_endpoint(kv_events),
        topic: topic.clone(),
        buffer_steps: kv_events.buffer_steps,
    };
    (0..).zip(sockets).map(source).collect()
}

fn start_ranks(
    config: &EngineServerConfig,
    sockets: Vec<BoundSockets>,
    sources: &[KvEventSource],
) -> Result<(JoinSet<()>, Vec<RankHandle>), ServerConfigError> {
    let mut publishers = sockets.into_iter().zip(sources).map(|(bound, source)| {
        let topic = Bytes::from(source.topic.clone());
        KvEventPublisher::start(bound, topic, source.dp_rank, source.buffer_steps)
    });
    let mut tasks = JoinSet::new();
    let mut handles = Vec::new();
    for _ in 0..config.data_parallel_size {
        let (rank, handle) = Rank::new(RankSetup {
            engine: EngineModel::new(config.engine.clone())?,
            speed: config.speed,
            max_model_len: config.max_model_len,
            events: publishers.next(),
            hash_form: config.kv_events.as_ref().map_or(HashForm::default(), |to| to.hash_form),
            has_loras: !config.loras.is_empty(),
        });
        tasks.spawn(rank.run());
        handles.push(handle);
    }
    Ok((tasks, handles))
}

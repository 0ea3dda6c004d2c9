//! The gateway: OpenAI's API in front of engines, placed by the brain.
//!
//! Each thread accepts, reads, asks the brain and relays by itself: a request crosses no thread. Or another
//! server accepts, and hands requests to one thread (`mounted`), which does the rest. Of
//! a body only what routing needs is read, and it is passed on as it came. An answer is passed on
//! piece by piece, byte for byte.
//!
//! Guaranteed: a request is sent to another engine only before the first byte of its answer; a
//! client that goes away aborts its request at the engine; memory is bounded by the limits and the
//! number of connections; told to stop, it answers what came.
//!
//! Not here: any decision (see [`llmd_brain`]).

mod admin;
mod allowance;
mod asked;
mod attempt;
mod body;
mod booking;
mod budget;
mod client_body;
mod config;
mod connection;
mod counts;
mod discovery;
mod edit;
mod exchange;
mod fleet;
mod generate;
mod guard;
mod headers;
mod hedge;
mod history;
mod http1;
mod keys;
mod live;
mod metrics_page;
mod models;
mod mounted;
mod peers;
mod pool;
mod recent;
mod refusal;
mod relay;
mod reload;
mod server;
mod settings;
mod spans;
mod tally;
mod tokens;
mod ui;
mod upstream;
mod vigil;
mod worker;

pub use config::{
    AdminConfig, AuthConfig, DiscoveryConfig, EndpointConfig, GatewayConfig, HealthConfig,
    KeyConfig, Limits, Retries, Timeouts,
};
pub use exchange::{End, Exchange, News};
pub use fleet::FleetError;
pub use hedge::HedgeConfig;
pub use history::HistoryDocument;
#[doc(hidden)]
pub use http1::{DecodedAnswer, decode_answer};
pub use keys::BadKey;
pub use live::{
    EndpointState, GatewayDocument, GivenScore, LiveDocument, LiveEndpoint, RecentDecision,
};
pub use mounted::{Head, MountedGateway};
pub use peers::PeersConfig;
pub use recent::Fate;
pub use reload::{ConfigSource, ReloadError};
pub use server::GatewayServer;
pub use spans::TracingConfig;
pub use upstream::BadAddress;

use crate::router::{LiveRouter, RouterError};
use crate::tls::TlsError;
use body::AnswerBody;
use counts::Counts;
use fleet::Fleet;
use history::History;
use hyper::{Response, StatusCode};
use llmd_brain::fleet::Health;
use parking_lot::{Mutex, RwLock};
use recent::Recent;
use settings::Settings;
use spans::Spans;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

/// What all threads of a gateway share.
pub struct Gateway {
    settings: RwLock<Arc<Settings>>,
    live: Arc<LiveRouter>,
    fleet: Arc<Fleet>,
    counts: Arc<Counts>,
    recent: Recent,
    history: History,
    spans: Spans,
    started: Instant,
    /// The same, as people count.
    started_at: SystemTime,
    /// Where the settings come from, when they are read again.
    source: Option<ConfigSource>,
    /// Reloads, one at a time, and the engines that were found besides those of the settings.
    found: Mutex<Vec<EndpointConfig>>,
    is_draining: AtomicBool,
    is_abandoned: AtomicBool,
}

impl Gateway {
    fn new(config: GatewayConfig, source: Option<ConfigSource>) -> Result<Arc<Self>, GatewayError> {
        let settings = Settings::new(config, None)?;
        let live = LiveRouter::new(peers::named(&settings.config))?;
        live.http_client().set_tls(settings.upstream_tls.clone());
        // Before anybody looks after engines, who would keep the router alive where this fails.
        peers::start(&live, &settings.config.peers)?;
        let fleet = Fleet::new(Arc::clone(&live), settings.config.health.clone());
        fleet.set(&settings.config.endpoints)?;
        let (spans, waiting) = Spans::new();
        let gateway = Arc::new(Self {
            settings: RwLock::new(Arc::new(settings)),
            live,
            fleet,
            counts: Arc::default(),
            recent: Recent::default(),
            history: History::default(),
            spans,
            started: Instant::now(),
            started_at: SystemTime::now(),
            source,
            found: Mutex::default(),
            is_draining: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
        });
        let runtime = gateway.live.runtime()?;
        runtime.spawn(discovery::look(Arc::downgrade(&gateway)));
        runtime.spawn(peers::follow(Arc::downgrade(&gateway)));
        runtime.spawn(spans::export(Arc::downgrade(&gateway), waiting));
        Ok(gateway)
    }

    /// The settings now; a request keeps to those that it began with.
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Nanoseconds since it started.
    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The router that places its requests.
    #[must_use]
    pub fn router(&self) -> &Arc<LiveRouter> {
        &self.live
    }

    fn drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    /// Nobody waits for what is under way.
    fn abandon(&self) {
        self.is_abandoned.store(true, Relaxed);
    }

    fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Relaxed)
    }

    /// Whether requests should be sent here: somebody is there to answer them, and it is not about
    /// to stop.
    fn readiness(&self) -> Response<AnswerBody> {
        let is_anybody_there =
            self.live.endpoints().iter().any(|view| view.health == Health::Ready);
        match (self.is_draining(), is_anybody_there) {
            (true, _) => worker::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            (false, false) => worker::text(StatusCode::SERVICE_UNAVAILABLE, "no engine is ready\n"),
            (false, true) => worker::text(StatusCode::OK, "ready\n"),
        }
    }
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The port is not to be had.
    #[error(
        "cannot listen on {address}: {source}; give another address as host:port, with port 0 for a free one"
    )]
    Listen {
        /// Where.
        address: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The router cannot be.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The engines cannot be.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The admin API cannot be as it is asked for.
    #[error("{0}")]
    Admin(String),
    /// A gateway that is mounted in a server of somebody else's is given what only that server can have.
    #[error(
        "tls: a mounted gateway has no port of its own: give the certificate to the server that it is mounted in"
    )]
    MountedTls,
    /// A tokenizer cannot be read.
    #[error("tokenizers.{model}: {reason}")]
    Tokenizer {
        /// Whose.
        model: String,
        /// Why, and what would be right.
        reason: String,
    },
    /// A certificate, a key or an authority cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key cannot be.
    #[error(transparent)]
    Key(#[from] BadKey),
    /// No threads can be started.
    #[error("the gateway's threads cannot be started: {0}")]
    Threads(std::io::Error),
}

//! The settings of a gateway: one tree, from a file, from Python or from the command line.

use super::hedge::HedgeConfig;
use super::peers::PeersConfig;
use super::spans::TracingConfig;
use crate::router::{ConfigError, RouterConfig, from_value};
use crate::tls::{ClientTlsConfig, ServerTlsConfig};
use crate::zmtp::Endpoint;
use llmd_brain::fleet::{Capacity, EndpointSpec, Role, Topology};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a gateway. Unknown keys are errors; every key has a default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayConfig {
    /// Address and port to listen on; port 0 for a free one.
    pub listen: String,
    /// Threads that serve connections; 0 for one a core.
    pub threads: usize,
    /// The certificate that clients are shown; without one no TLS is spoken to them.
    pub tls: Option<ServerTlsConfig>,
    /// How engines at `https://` are believed.
    pub upstream_tls: ClientTlsConfig,
    /// The engines. They may come up later than the gateway.
    pub endpoints: Vec<EndpointConfig>,
    /// Where more engines are found.
    pub discovery: DiscoveryConfig,
    /// The brain and its observers.
    pub router: RouterConfig,
    /// Other gateways in front of the same engines.
    pub peers: PeersConfig,
    /// Bounds on what clients may send.
    pub limits: Limits,
    /// How long is waited for what.
    pub timeouts: Timeouts,
    /// Second tries before the first byte of an answer.
    pub retries: Retries,
    /// Second engines for streams whose first is slow.
    pub hedge: HedgeConfig,
    /// Which engines are left alone for a while.
    pub health: HealthConfig,
    /// Folders of tokenizers, by model: prompts that come as text are then known by the engine's own
    /// tokens. Without one they are matched as text.
    pub tokenizers: BTreeMap<String, PathBuf>,
    /// Who may ask.
    pub auth: AuthConfig,
    /// Where the gateway is looked after.
    pub admin: AdminConfig,
    /// Where it is told what became of requests.
    pub tracing: TracingConfig,
    /// How long a request may be held that does not say so itself, in milliseconds.
    pub hold_ms: u64,
    /// How long answers under way may take to end once the gateway is told to stop, in milliseconds.
    pub drain_ms: u64,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            threads: 0,
            tls: None,
            upstream_tls: ClientTlsConfig::default(),
            endpoints: Vec::new(),
            discovery: DiscoveryConfig::default(),
            router: RouterConfig::default(),
            peers: PeersConfig::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            hedge: HedgeConfig::default(),
            health: HealthConfig::default(),
            tokenizers: BTreeMap::new(),
            auth: AuthConfig::default(),
            admin: AdminConfig::default(),
            tracing: TracingConfig::default(),
            hold_ms: 30_000,
            drain_ms: 600_000,
        }
    }
}

/// An engine behind the gateway; what it says of itself (model, adapters, ranks, KV events) is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Base URL, `http://host:port` or `https://host:port`.
    pub url: String,
    /// Phases that it serves.
    #[serde(default)]
    pub role: Role,
    /// Where it stands.
    #[serde(default)]
    pub topology: Topology,
    /// What it can hold, where it does not say.
    #[serde(default)]
    pub capacity: Capacity,
    /// Labels, for label filters.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl EndpointConfig {
    /// An engine of which nothing but its address is said.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        let EndpointSpec { address, role, topology, capacity, labels, .. } =
            EndpointSpec::new(url, "");
        Self { url: address, role, topology, capacity, labels }
    }

    /// What its owner says of it.
    pub(super) fn given(&self) -> EndpointSpec {
        EndpointSpec {
            role: self.role,
            topology: self.topology.clone(),
            capacity: self.capacity.clone(),
            labels: self.labels.clone(),
            ..EndpointSpec::new(self.url.trim_end_matches('/'), "")
        }
    }
}

/// Where more engines are found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// A file with `endpoints`, read again when it changes: TOML, YAML or JSON.
    pub file: Option<PathBuf>,
    /// Names that stand for engines, `host:port`: every address of the host is one. With `https://` in
    /// front they are spoken to by TLS, and `upstream_tls.server_name` says what they are called.
    pub dns: Vec<String>,
    /// How often both are looked at, in milliseconds.
    pub interval_ms: u64,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self { file: None, dns: Vec::new(), interval_ms: 1_000 }
    }
}

/// Bounds on what clients may send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Largest head of a request, in bytes.
    pub max_head_bytes: usize,
    /// Most connections of clients at once; more wait to be accepted.
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_body_bytes: 32 << 20, max_head_bytes: 64 << 10, max_connections: 16_384 }
    }
}

/// How long is waited for what, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For an engine to take a connection: a system whose queue is full answers a second or three later.
    pub connect_ms: u64,
    /// For the head of an answer: of one that is not streamed, all of its generation.
    pub first_byte_ms: u64,
    /// Between two pieces of an answer.
    pub idle_ms: u64,
    /// For a client to send the head of a request.
    pub client_head_ms: u64,
    /// Between two pieces of a client's body.
    pub client_body_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect_ms: 5_000,
            first_byte_ms: 600_000,
            idle_ms: 120_000,
            client_head_ms: 30_000,
            client_body_ms: 30_000,
        }
    }
}

/// Second tries, which end with the first byte of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// Most tries of one request, the first included.
    pub max_attempts: u32,
    /// Retries for each hundred requests, over time: a fleet that fails is not sent twice the load.
    pub budget_percent: u32,
    /// Retries that may be made at once however few requests there were.
    pub budget_burst: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self { max_attempts: 3, budget_percent: 20, budget_burst: 100 }
    }
}

/// When an engine is left alone, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// How often `/health` of each engine is asked, in milliseconds; 0 is never.
    pub interval_ms: u64,
    /// How long it may take to answer.
    pub timeout_ms: u64,
    /// Failures in a row, of requests or of probes, after which an engine is left alone.
    pub failures: u32,
    /// How long it is left alone the first time, in milliseconds; doubles each time in a row.
    pub ejection_ms: u64,
    /// The longest that it is left alone.
    pub max_ejection_ms: u64,
    /// Of a hundred engines, so many may be left alone at once; one more stays in use as it is, since
    /// an engine that may fail is better than none.
    pub max_ejected_percent: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval_ms: 5_000,
            timeout_ms: 2_000,
            failures: 3,
            ejection_ms: 1_000,
            max_ejection_ms: 30_000,
            max_ejected_percent: 50,
        }
    }
}

/// Who may ask. Without keys, everybody.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// The keys.
    pub keys: Vec<KeyConfig>,
    /// Keeps the caches of tenants apart, by salts made of this secret: a tenant cannot find out
    /// another's prompts by how fast answers come. Two gateways of one fleet need the same.
    pub salt_secret: Option<String>,
}

/// An API key, and what it is good for.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyConfig {
    /// What it is called, in messages and logs.
    pub name: String,
    /// SHA-256 of the key, in hex: `printf %s KEY | sha256sum`.
    pub sha256: String,
    /// Who pays; without it the key is a tenant of its own. What a header says does not count.
    pub tenant: Option<String>,
    /// Models that it may ask for; none listed means all.
    pub models: Vec<String>,
    /// The most important that its requests may be.
    pub max_priority: i32,
    /// Tokens a minute, of prompts and answers; a minute's worth may be had at once.
    pub tokens_per_minute: Option<u64>,
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
}

/// Where the gateway is looked after.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Address and port of the admin API; none without.
    pub listen: Option<String>,
    /// SHA-256 of its token, in hex; without one only a loopback address may be listened on.
    pub token_sha256: Option<String>,
    /// The certificate that it shows; without one it speaks no TLS.
    pub tls: Option<ServerTlsConfig>,
}

impl GatewayConfig {
    /// The settings in a tree of values, such as a parsed file.
    ///
    /// # Errors
    /// [`ConfigError::Value`], naming the key.
    pub fn from_value(value: Value) -> Result<Self, ConfigError> {
        let config: Self = from_value(value)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |place: &str, reason: &str| {
            Err(ConfigError::Value { place: format!("{place}: "), reason: reason.to_owned() })
        };
        if self.retries.max_attempts == 0 {
            return wrong("retries.max_attempts", "0: the first try counts, give 1 or more");
        }
        if self.health.max_ejected_percent > 100 {
            return wrong("health.max_ejected_percent", "give at most 100");
        }
        if let Err((key, remedy)) = self.tracing.check() {
            return wrong(&format!("tracing.{key}"), remedy);
        }
        if self.discovery.interval_ms == 0 {
            return wrong("discovery.interval_ms", "0: give 1 or more");
        }
        for (key, address) in (self.peers.listen.iter().map(|it| ("peers.listen", it)))
            .chain(self.peers.addresses.iter().map(|it| ("peers.addresses", it)))
        {
            if let Err(error) = address.parse::<Endpoint>() {
                return wrong(key, &error.to_string());
            }
        }
        if self.limits.max_head_bytes < 8_192 {
            return wrong("limits.max_head_bytes", "give at least 8192");
        }
        Ok(())
    }
}

/// A setting in milliseconds.
pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

//! Bounds and times of the fleet.

use super::FleetError;
use serde::{Deserialize, Serialize};

/// How a router learns that a prefill is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstTokens {
    /// It is told of first tokens; a request without one has its prefill before it.
    #[default]
    Told,
    /// Nobody tells: it goes by the latency model. What it is told counts all the same.
    Guessed,
}

/// Bounds and times of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FleetConfig {
    /// Name under which this router tells peers its loads; totals that come back under it are an
    /// echo. Empty for a router without peers.
    pub router: String,
    /// Most endpoints at a time.
    pub max_endpoints: usize,
    /// Most requests in flight at a time.
    pub max_reservations: usize,
    /// Most peer routers known at a time.
    pub max_peers: usize,
    /// How long a reported metric counts, in milliseconds; an older one is unknown.
    pub metrics_max_age_ms: u64,
    /// How long a request stays booked without a token, in milliseconds. Longer than the longest
    /// wait for a first token, or a long queue loses its load.
    pub lease_ms: u64,
    /// How this router learns that a prefill is done. A guess renews a lease as a token does.
    pub first_tokens: FirstTokens,
    /// How long a silent peer's load counts, in milliseconds; several times its interval.
    pub peer_ttl_ms: u64,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            router: String::new(),
            max_endpoints: 1_024,
            max_reservations: 1 << 20,
            max_peers: 64,
            metrics_max_age_ms: 2_000,
            lease_ms: 600_000,
            first_tokens: FirstTokens::Told,
            peer_ttl_ms: 3_000,
        }
    }
}

impl FleetConfig {
    /// Whether the values can work; the error names the first that cannot.
    ///
    /// # Errors
    /// [`FleetError::Config`].
    pub fn validate(&self) -> Result<(), FleetError> {
        let within = |field, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(FleetError::Config { field, value, low, high })
            }
        };
        const DAY_MS: u64 = 24 * 3_600_000;
        within("max_endpoints", self.max_endpoints as u64, 1, crate::index::MAX_ENDPOINTS as u64)?;
        within("max_reservations", self.max_reservations as u64, 1, 1 << 20)?;
        within("max_peers", self.max_peers as u64, 1, 1_024)?;
        within("metrics_max_age_ms", self.metrics_max_age_ms, 1, DAY_MS)?;
        within("lease_ms", self.lease_ms, 1, DAY_MS)?;
        within("peer_ttl_ms", self.peer_ttl_ms, 1, DAY_MS)
    }
}

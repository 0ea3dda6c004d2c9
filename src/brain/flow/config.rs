//! Settings of holding.

use super::{SessionConfig, TurnConfig};
use serde::{Deserialize, Serialize};

/// Who is held, and how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowConfig {
    /// Most requests held at a time; 0 holds none.
    pub max_held_requests: usize,
    /// What becomes of a request that was held as long as it may be.
    pub when_held_too_long: WhenHeldTooLong,
    /// Sessions that wait for room in the KV caches.
    pub sessions: SessionConfig,
    /// Requests that wait for their turn.
    pub turns: TurnConfig,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            max_held_requests: 16_384,
            when_held_too_long: WhenHeldTooLong::default(),
            sessions: SessionConfig::default(),
            turns: TurnConfig::default(),
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("flow.{field} = {value} cannot work: use {low} to {high}")]
pub struct FlowError {
    field: String,
    value: f64,
    low: f64,
    high: f64,
}

impl FlowConfig {
    /// # Errors
    /// [`FlowError`] names the setting.
    pub fn validate(&self) -> Result<(), FlowError> {
        let (it, turns) = (&self.sessions, &self.turns);
        let (day_s, weights) = (86_400.0, self.turns.tenant_weights.iter());
        let of_tenants = weights
            .map(|(name, weight)| (format!("turns.tenant_weights.{name}"), *weight, 1e-3, 1e3));
        let of_all = [
            ("sessions.tight_share", it.tight_share, 0.01, 100.0),
            ("sessions.demand_window_s", it.demand_window_s, 0.001, day_s),
            ("sessions.loose_share", it.loose_share, 0.0, it.tight_share),
            ("sessions.fill_share", it.fill_share, 0.01, 100.0),
            ("sessions.overflow_share", it.overflow_share, 0.01, 100.0),
            ("sessions.short_first", it.short_first, 0.0, 8.0),
            ("sessions.age_s", it.age_s, 0.0, day_s),
            ("sessions.patience_s", it.patience_s, it.age_s, day_s),
            ("sessions.quantum_s", it.quantum_s, 0.001, day_s),
            ("sessions.crowd_share", it.crowd_share, 1.0, 1e6),
            ("turns.contended_s", turns.contended_s, 0.0, day_s),
            ("turns.queue_ms", turns.queue_ms, 0.0, 1e3 * day_s),
            ("turns.kv_share", turns.kv_share, 0.01, 100.0),
            ("turns.short_first_ms_per_token", turns.short_first_ms_per_token, 0.0, 1e6),
            ("turns.age_s", turns.age_s, 0.0, day_s),
            ("turns.aged_every", turns.aged_every.into(), 2.0, 1e6),
        ];
        let of_all = of_all.map(|(field, value, low, high)| (field.to_owned(), value, low, high));
        for (field, value, low, high) in of_all.into_iter().chain(of_tenants) {
            if !(low..=high).contains(&value) {
                return Err(FlowError { field, value, low, high });
            }
        }
        Ok(())
    }
}

/// What becomes of a request at the end of its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenHeldTooLong {
    /// It is rejected: the client may come again.
    #[default]
    Reject,
    /// It is sent wherever it costs the least, if anybody can take it at all.
    Dispatch,
}

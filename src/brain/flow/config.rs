//! Settings of holding.

use super::SessionConfig;
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
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            max_held_requests: 4_096,
            when_held_too_long: WhenHeldTooLong::default(),
            sessions: SessionConfig::default(),
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("flow.sessions.{field} = {value} cannot work: use {low} to {high}")]
pub struct FlowError {
    field: &'static str,
    value: f64,
    low: f64,
    high: f64,
}

impl FlowConfig {
    /// # Errors
    /// [`FlowError`] names the setting.
    pub fn validate(&self) -> Result<(), FlowError> {
        let it = &self.sessions;
        let day_s = 86_400.0;
        for (field, value, low, high) in [
            ("tight_share", it.tight_share, 0.01, 100.0),
            ("demand_window_s", it.demand_window_s, 0.001, day_s),
            ("loose_share", it.loose_share, 0.0, it.tight_share),
            ("fill_share", it.fill_share, 0.01, 100.0),
            ("overflow_share", it.overflow_share, 0.01, 100.0),
            ("short_first", it.short_first, 0.0, 8.0),
            ("age_s", it.age_s, 0.0, day_s),
            ("patience_s", it.patience_s, it.age_s, day_s),
            ("quantum_s", it.quantum_s, 0.001, day_s),
        ] {
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

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

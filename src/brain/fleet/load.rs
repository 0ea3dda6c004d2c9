//! What is in flight on an endpoint, in the units in which it costs.

use crate::Time;
use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign, SubAssign};

/// Most token pairs that one prefill counts for (a prompt of 4 M tokens): what keeps every sum of
/// a full ledger inside 64 bits.
pub const MAX_PREFILL_PAIRS: u64 = 1 << 43;

/// The (query, key) token pairs that attention visits to prefill `uncached_tokens` after
/// `cached_tokens`: `new * (cached + new/2)`, the quadratic part of a prefill's cost.
#[must_use]
pub fn prefill_pairs(uncached_tokens: u32, cached_tokens: u32) -> u64 {
    let (new, cached) = (u128::from(uncached_tokens), u128::from(cached_tokens));
    u64::try_from(new * (2 * cached + new) / 2).unwrap_or(u64::MAX).min(MAX_PREFILL_PAIRS)
}

/// Load in flight on one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Requests sent and not finished.
    pub inflight_requests: u32,
    /// Those of them whose first token has come.
    pub decoding_requests: u32,
    /// Prompt tokens that were not cached and whose request has had no token yet.
    pub pending_prefill_tokens: u64,
    /// Token pairs ([`prefill_pairs`]) of the same requests.
    pub pending_prefill_pairs: u64,
    /// Context tokens (prompt and output so far) of the requests that are being decoded.
    pub active_decode_tokens: u64,
    /// Context tokens of everything in flight, cached or not: the KV that it holds or will hold.
    pub inflight_context_tokens: u64,
}

impl Load {
    /// Whether nothing is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.inflight_requests == 0
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.inflight_requests += other.inflight_requests;
        self.decoding_requests += other.decoding_requests;
        self.pending_prefill_tokens += other.pending_prefill_tokens;
        self.pending_prefill_pairs += other.pending_prefill_pairs;
        self.active_decode_tokens += other.active_decode_tokens;
        self.inflight_context_tokens += other.inflight_context_tokens;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        self.inflight_requests -= other.inflight_requests;
        self.decoding_requests -= other.decoding_requests;
        self.pending_prefill_tokens -= other.pending_prefill_tokens;
        self.pending_prefill_pairs -= other.pending_prefill_pairs;
        self.active_decode_tokens -= other.active_decode_tokens;
        self.inflight_context_tokens -= other.inflight_context_tokens;
    }
}

impl Add for Load {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// The prefill that an endpoint works on now, as far as this router can tell: engines prefill in
/// the order of arrival, so it is the oldest request without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefillHead {
    /// Since when: its booking on an endpoint without pending prefills, or the first token (or the
    /// end) of the request before it.
    pub since: Time,
    /// Its uncached tokens.
    pub uncached_tokens: u32,
    /// Its token pairs.
    pub pairs: u64,
}

/// What a request finds before itself on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Ahead {
    /// Load of the others.
    pub load: Load,
    /// The prefill in progress.
    pub head: Option<PrefillHead>,
    /// When a step of the engine is known to have ended, milliseconds since the origin.
    #[serde(default)]
    pub step_ended_ms: Option<f64>,
}

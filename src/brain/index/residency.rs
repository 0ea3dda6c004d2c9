//! The facade: who holds what, behind `&self`.

use super::{ApplyOutcome, IndexConfig, IndexError, KvEventBatch, Matches};
use crate::{BlockKey, EndpointId, Tier, Time};
use serde::{Deserialize, Serialize};

/// How the residency of an endpoint is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// From its events; our bookings bridge the time until they arrive.
    Events,
    /// From our bookings only.
    Approximate {
        /// Blocks of the router's size that it can hold; 0 where unknown
        /// ([`IndexConfig::approximate_blocks`] then).
        capacity_blocks: u64,
    },
}

/// Why a block counts as held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// The engine's events say so; the fastest tier on which it lies.
    Exact(Tier),
    /// We booked it and the events have not spoken yet, or never will.
    Believed,
}

/// Blocks of one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockCounts {
    /// Distinct blocks that events say are held, by the fastest tier of each.
    pub exact: [u64; Tier::COUNT],
    /// Distinct blocks that only bookings vouch for.
    pub believed: u64,
}

/// What the index did and holds, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexStats {
    /// Distinct block keys held anywhere.
    pub keys: u64,
    /// What applying events did since the start, endpoints that left included.
    pub applied: ApplyOutcome,
    /// One row an endpoint, in slot order.
    pub endpoints: Vec<EndpointStats>,
}

/// What one endpoint's events did, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStats {
    /// Which.
    pub endpoint: EndpointId,
    /// How its residency is known.
    pub source: Source,
    /// What applying its events did since it joined.
    pub applied: ApplyOutcome,
    /// What it holds.
    pub blocks: BlockCounts,
}

/// Who holds which block.
#[derive(Debug)]
pub struct Residency {
    config: IndexConfig,
}

impl Residency {
    /// An empty index for blocks of `block_size` tokens.
    ///
    /// # Errors
    /// A bound of the config, or the block size, that cannot be.
    pub fn new(config: IndexConfig, _block_size: u32) -> Result<Self, IndexError> {
        Ok(Self { config })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &IndexConfig {
        &self.config
    }

    /// The endpoint starts with nothing. `model` roots its key chain.
    pub fn join(&self, _endpoint: EndpointId, _model: &str, _source: Source) {}

    /// Forgets everything about the endpoint. Idempotent; a stale id is ignored.
    pub fn leave(&self, _endpoint: EndpointId) {}

    /// Applies an engine's events.
    pub fn apply(&self, _now: Time, _endpoint: EndpointId, _batch: &KvEventBatch) -> ApplyOutcome {
        ApplyOutcome::default()
    }

    /// What the endpoint holds is no longer known.
    pub fn clear(&self, _endpoint: EndpointId) {}

    /// The residency of the endpoint is known otherwise from now on.
    pub fn set_source(&self, _now: Time, _endpoint: EndpointId, _source: Source) {}

    /// The capacity of an endpoint without events became known, in blocks of the router's size.
    pub fn set_capacity(&self, _endpoint: EndpointId, _capacity_blocks: u64) {}

    /// A request with these blocks was sent to the endpoint.
    pub fn book(&self, _now: Time, _endpoint: EndpointId, _keys: &[BlockKey]) {}

    /// For each endpoint the longest run of `keys` from the first that it holds.
    pub fn matches(&self, _now: Time, keys: &[BlockKey], out: &mut Matches) {
        out.reset(0, u32::try_from(keys.len()).unwrap_or(u32::MAX));
    }

    /// Forgets bookings that are past their time to live.
    pub fn expire(&self, _now: Time) {}

    /// When `expire` has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Time> {
        None
    }

    /// Whether, and why, the endpoint counts as holding the block.
    #[must_use]
    pub fn holds(&self, _endpoint: EndpointId, _key: BlockKey) -> Option<Held> {
        None
    }

    /// How many blocks the endpoint holds; `None` for a stale id.
    #[must_use]
    pub fn blocks(&self, _endpoint: EndpointId) -> Option<BlockCounts> {
        None
    }

    /// Bytes that the index keeps allocated, estimated.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        0
    }

    /// Totals for metrics.
    #[must_use]
    pub fn stats(&self) -> IndexStats {
        IndexStats::default()
    }
}

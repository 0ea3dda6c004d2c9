//! What can be asked of the index besides a match.

use super::ApplyOutcome;
use crate::{EndpointId, Tier};
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

impl Source {
    pub(super) fn is_approximate(self) -> bool {
        matches!(self, Self::Approximate { .. })
    }
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

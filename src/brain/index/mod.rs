//! Who holds which KV block, on which tier.
//!
//! Two sources behind one match contract ([`Residency::matches`]):
//! - *exact*: engine events ([`KvEvent`]) tell what was stored, removed and cleared; and
//! - *believed*: our own decisions. For an endpoint without events this is all there is
//!   (approximate: a bounded LRU with a time to live); for one with events it bridges the time
//!   until the events arrive (speculative: seconds).
//!
//! A match is the longest run of blocks from the first that an endpoint holds on any tier, and is
//! never over-credited by the exact source: [`oracle`] says what is true, and the shared suite
//! holds every structure to it under churn, mid-sequence removal and concurrency.
//!
//! An engine may keep several physical copies of one block: it says "stored" for each and
//! "removed" for each, so residency counts copies. What was never stored is ignored when removed.
//!
//! Concurrent: events of different endpoints may be applied from different threads while others
//! match; a match sees each block either before or after an event, never torn.
//! Bounded: per endpoint by [`IndexConfig::max_blocks_per_endpoint`]; the oldest stored block goes
//! first, and is counted.
//!
//! Not here: wire formats (bodies decode), and any judgement of what a match is worth.

mod beliefs;
mod blocks;
mod endpoint;
mod event;
mod expiry;
mod hash;
mod holders;
mod inspect;
mod matches;
pub mod oracle;
mod publisher;
mod residency;
mod slots;
mod span;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
mod view;

pub use event::{
    ApplyOutcome, BlockRemoved, BlockStored, ExtraKey, GroupSpec, KvEvent, KvEventBatch, SpecKind,
};
pub use inspect::{BlockCounts, EndpointStats, Held, IndexStats, Source};
pub use matches::{MatchSource, Matches};
pub use residency::Residency;

use serde::{Deserialize, Serialize};

/// Bounds of the index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexConfig {
    /// Most blocks remembered for one endpoint from its events.
    pub max_blocks_per_endpoint: usize,
    /// How long a booked prompt counts as resident on an endpoint that sends events, until the
    /// events confirm it, in milliseconds (llm-d: 2000).
    pub speculative_ttl_ms: u64,
    /// How long a booked prompt counts as resident on an endpoint without events, in milliseconds.
    pub approximate_ttl_ms: u64,
    /// Blocks remembered for an endpoint without events whose capacity is unknown (llm-d: 31,250).
    pub approximate_blocks: usize,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            max_blocks_per_endpoint: 4 << 20,
            speculative_ttl_ms: 2_000,
            approximate_ttl_ms: 600_000,
            approximate_blocks: 31_250,
        }
    }
}

impl IndexConfig {
    fn check(&self) -> Result<(), IndexError> {
        let bounds = [
            ("max_blocks_per_endpoint", self.max_blocks_per_endpoint),
            ("approximate_blocks", self.approximate_blocks),
        ];
        for (field, value) in bounds {
            if value == 0 || value > MAX_BLOCKS {
                let remedy = "use 1 to 1073741824 blocks, best what the engine's KV cache holds";
                return Err(IndexError::Config { field, value: value as u64, remedy });
            }
        }
        Ok(())
    }
}

/// Most blocks of one endpoint: their positions are 32-bit.
const MAX_BLOCKS: usize = 1 << 30;

/// Why an index cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// A bound that would remember nothing.
    #[error("index.{field} is {value}: {remedy}")]
    Config {
        /// Which field of [`IndexConfig`].
        field: &'static str,
        /// What it was.
        value: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// The router's block size cannot be.
    #[error(transparent)]
    BlockSize(#[from] crate::prompt::PromptError),
}

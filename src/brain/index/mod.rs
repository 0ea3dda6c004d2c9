//! Who holds which KV block, on which tier.
//!
//! Two sources behind one match contract ([`Residency::matches`]):
//! - *exact*: engine events ([`KvEvent`]) tell what was stored, removed and cleared; and
//! - *believed*: our own decisions. For an endpoint without events this is all there is
//!   (approximate: a bounded LRU with a time to live); for one with events it bridges the time
//!   until the events arrive (speculative: seconds). Keys of text are approximate everywhere.
//!
//! A match is the longest run of blocks from the first that an endpoint holds on any tier, and is
//! never over-credited by the exact source: [`oracle`] says what is true, and the shared suite
//! holds every structure to it under churn, mid-sequence removal and concurrency.
//!
//! What an engine's events mean here, each as vLLM 0.32 was seen to mean it:
//! - It keeps several physical copies of one block and says "stored" for each and "removed" for
//!   each, so copies are counted. What was never stored is ignored when removed. (A request with
//!   vLLM's `kv_cache_report_mode: full` has its hits reported as if stored again, which nothing
//!   in the event tells apart from a new copy: such blocks are credited until the next clear. Do
//!   not pass that option on.)
//! - Of a hybrid model only the KV cache groups that keep the whole prefix are matched, and a block
//!   counts where all of them hold it. Where there are other groups too (sliding window, recurrent
//!   state) the match is an upper bound and says so ([`MatchSource::UpperBound`]).
//! - Its block size may be a multiple or a divisor of the router's. A router block of several
//!   engine blocks is held while all of them are. Where neither divides the other, or where it
//!   cannot be told which of several router blocks an image covers, blocks are left out and counted
//!   ([`ApplyOutcome::block_size_mismatch_blocks`]).
//!
//! Concurrent: events of different endpoints may be applied from different threads while others
//! match; a match sees each block either before or after an event, never torn, and waits for no
//! writer.
//! Bounded by [`IndexConfig::max_bytes`]: an endpoint whose events make the index larger than that
//! pays with what it stored the longest ago, ends of prompts first, and that is counted.
//!
//! Not here: wire formats (bodies decode), and any judgement of what a match is worth.

mod beliefs;
mod blocks;
mod copies;
mod endpoint;
mod event;
mod expiry;
mod extra;
mod groups;
mod hash;
mod inspect;
mod matches;
pub mod oracle;
mod plain;
mod publisher;
mod residency;
pub mod snapshot;
mod span;
#[cfg(test)]
mod suite;
mod sync;
#[cfg(test)]
mod tests;
mod tree;
mod view;

pub use event::{
    ApplyOutcome, BlockRemoved, BlockStored, ExtraKey, GroupSpec, KvEvent, KvEventBatch, SpecKind,
};
pub use inspect::{BlockCounts, EndpointStats, Held, IndexStats, Source};
pub use matches::{Depths, MatchSource, Matches};
pub use residency::Residency;

use serde::{Deserialize, Serialize};

/// Bounds of the index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IndexConfig {
    /// Most memory that what engines hold may take here, in bytes: 34 for a block, and a little for
    /// each further endpoint that holds it. Past that, whoever stores gives up what it stored the
    /// longest ago.
    pub max_bytes: usize,
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
            max_bytes: 4 << 30,
            speculative_ttl_ms: 2_000,
            approximate_ttl_ms: 600_000,
            approximate_blocks: 31_250,
        }
    }
}

impl IndexConfig {
    fn check(&self) -> Result<(), IndexError> {
        let refuse = |field, value: usize, remedy| {
            Err(IndexError::Config { field, value: value as u64, remedy })
        };
        if self.max_bytes < MIN_BYTES {
            let remedy = "use at least 8388608 bytes, best 34 for each block of all engines' KV \
                          caches";
            return refuse("max_bytes", self.max_bytes, remedy);
        }
        if self.approximate_blocks == 0 || self.approximate_blocks > MAX_BLOCKS {
            let remedy = "use 1 to 1073741824 blocks, best what the engine's KV cache holds";
            return refuse("approximate_blocks", self.approximate_blocks, remedy);
        }
        Ok(())
    }
}

/// Least memory that an index works with, in bytes.
const MIN_BYTES: usize = 8 << 20;
/// Endpoints that the index can tell apart: 32,767.
pub const MAX_ENDPOINTS: usize = tree::set::MAX_ENDPOINTS;

/// Most blocks that one endpoint is believed to hold.
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

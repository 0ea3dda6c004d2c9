//! What decoding a KV event payload yields, within which bounds, and why it may fail.

use super::msgpack::MsgpackError;
use llmd_brain::index::KvEventBatch;

/// Bounds on one payload, so that a few bytes cannot ask for much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most events in a batch.
    pub max_events: usize,
    /// Most blocks in an event.
    pub max_blocks: usize,
    /// Most tokens in an event.
    pub max_tokens: usize,
    /// Longest name, salt or identifier, in bytes.
    pub max_text_bytes: usize,
}

impl Default for DecodeLimits {
    /// 65,536 events, 1,048,576 blocks, 16,777,216 tokens (a long context holds a million), 4 KiB.
    fn default() -> Self {
        Self {
            max_events: 1 << 16,
            max_blocks: 1 << 20,
            max_tokens: 1 << 24,
            max_text_bytes: 4 << 10,
        }
    }
}

/// Why a payload was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not msgpack, or not of the shape of an event batch.
    #[error("KV event payload: {context}: {source}")]
    Msgpack {
        /// What was being read.
        context: &'static str,
        /// What was wrong.
        source: MsgpackError,
    },
    /// A value that the format does not allow, in a place that cannot be skipped.
    #[error("KV event payload: {field} is {value}")]
    Value {
        /// Of which field.
        field: &'static str,
        /// What it was.
        value: String,
    },
    /// The batch has fewer fields than any release sends.
    #[error("KV event payload: {0} is missing")]
    Missing(&'static str),
}

/// What was left out of a batch, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Events of a type that this version does not know.
    pub unknown_events: u64,
    /// Fields that this version does not know.
    pub unknown_fields: u64,
    /// Events about a medium that this version does not know.
    pub unknown_mediums: u64,
    /// Stores whose values cannot be (token ids beyond 32 bits, say): the blocks go unknown.
    pub malformed_stores: u64,
    /// Stores of blocks named by pairs of tokens, as SGLang sends under EAGLE speculative
    /// decoding: such a block also depends on the token after it, which no block key expresses.
    pub paired_token_stores: u64,
}

impl std::ops::AddAssign for Skipped {
    fn add_assign(&mut self, rhs: Self) {
        self.unknown_events += rhs.unknown_events;
        self.unknown_fields += rhs.unknown_fields;
        self.unknown_mediums += rhs.unknown_mediums;
        self.malformed_stores += rhs.malformed_stores;
        self.paired_token_stores += rhs.paired_token_stores;
    }
}

/// A batch and what was left out of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The events that were understood, in order.
    pub batch: KvEventBatch,
    /// What was not.
    pub skipped: Skipped,
}

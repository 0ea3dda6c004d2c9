//! What an engine says about its KV cache, free of any wire format.

use crate::{EngineHash, Tier};
use serde::{Deserialize, Serialize};

/// One message of an engine's event stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KvEventBatch {
    /// The engine's clock when it sent the batch, in seconds since the Unix epoch.
    pub timestamp_s: f64,
    /// Which data-parallel rank it speaks for, where it says.
    pub dp_rank: Option<u32>,
    /// In the order in which they happened.
    pub events: Vec<KvEvent>,
}

/// A change of what an engine holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum KvEvent {
    /// A run of blocks is now held.
    Stored(BlockStored),
    /// Blocks are no longer held (one copy of each).
    Removed(BlockRemoved),
    /// Nothing is held any more.
    Cleared,
}

/// A run of blocks, each the child of the one before it.
///
/// On one endpoint and group a name stands for one content at one position for good, as chained
/// hashes do. So a name that is held already needs neither parent nor tokens: storing it again adds
/// a copy. Offload tiers rely on that: they announce blocks with no tokens at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockStored {
    /// The engine's names of the blocks, in order.
    pub block_hashes: Vec<EngineHash>,
    /// The block before the first one; `None` where the run starts a prompt.
    pub parent: Option<EngineHash>,
    /// `block_size` ids for each block; empty where the engine names blocks only.
    pub token_ids: Vec<u32>,
    /// Tokens a block, as the engine counts.
    pub block_size: u32,
    /// Where the blocks lie.
    pub tier: Tier,
    /// LoRA adapter name.
    pub lora: Option<String>,
    /// For each block, what it depends on besides its tokens; empty where nothing does.
    pub extra_keys: Vec<Vec<ExtraKey>>,
    /// Which KV cache group of a hybrid model this is; `None` where there is one.
    pub group: Option<GroupSpec>,
}

/// Blocks that go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BlockRemoved {
    /// The engine's names of the blocks.
    pub block_hashes: Vec<EngineHash>,
    /// From which tier.
    pub tier: Tier,
    /// From which KV cache group; `None` where the engine does not say: from each that has it.
    pub group: Option<u32>,
}

/// A dependency of a block besides its tokens, untagged as vLLM's events carry it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExtraKey {
    /// A LoRA name (equal to [`BlockStored::lora`]), a cache salt or a digest of prompt embeddings.
    Text(String),
    /// A multimodal item and its offset relative to the block's first token.
    Multimodal {
        /// The engine's identifier of the content.
        identifier: String,
        /// Offset of its first placeholder from the block's first token; negative where it began
        /// in an earlier block.
        offset: i64,
    },
}

/// A KV cache group of a hybrid model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Group number.
    pub index: u32,
    /// What the group's layers keep.
    pub kind: SpecKind,
    /// Tokens kept by a sliding window.
    pub sliding_window_tokens: Option<u32>,
}

/// What the attention layers of a group keep. Only groups that keep every token of a prefix can
/// be matched from the first block on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecKind {
    /// Every token.
    FullAttention,
    /// Every token, latent (MLA).
    Mla,
    /// Every token from a sink on.
    SinkFullAttention,
    /// The last tokens only.
    SlidingWindow,
    /// The current chunk only.
    ChunkedLocal,
    /// A recurrent state.
    Mamba,
    /// Something that this version does not know.
    Other,
    /// The event names a group but not its kind (removals, some offload tiers, older engines):
    /// what the group's other events said, else every token.
    Unstated,
}

impl SpecKind {
    /// Whether a block of this group stays useful for every longer prompt with the same prefix.
    #[must_use]
    pub fn keeps_whole_prefix(self) -> bool {
        matches!(self, Self::FullAttention | Self::Mla | Self::SinkFullAttention)
    }
}

/// What applying events did, for metrics: nothing that an engine says is dropped in silence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyOutcome {
    /// Blocks recorded as held (copies counted).
    pub stored_blocks: u64,
    /// Copies dropped.
    pub removed_blocks: u64,
    /// Times an endpoint was cleared.
    pub cleared: u64,
    /// Removed by name from a tier where no copy is known (a gap).
    pub unknown_removed_blocks: u64,
    /// Stored after a parent that is unknown: their position cannot be known.
    pub orphan_blocks: u64,
    /// Stored in, or removed from, a group that cannot be matched from the first block (sliding
    /// window, recurrent).
    pub unindexed_group_blocks: u64,
    /// The event contradicted itself (token count, block size), or named more KV cache groups than
    /// any engine has, and was skipped.
    pub malformed_events: u64,
    /// Could not be re-chunked to the router's block size.
    pub block_size_mismatch_blocks: u64,
    /// Forgotten because the endpoint's bound was reached.
    pub evicted_blocks: u64,
    /// Events of an endpoint that is not, or no longer, in the index.
    pub stale_events: u64,
}

impl std::ops::AddAssign for ApplyOutcome {
    fn add_assign(&mut self, rhs: Self) {
        self.stored_blocks += rhs.stored_blocks;
        self.removed_blocks += rhs.removed_blocks;
        self.cleared += rhs.cleared;
        self.unknown_removed_blocks += rhs.unknown_removed_blocks;
        self.orphan_blocks += rhs.orphan_blocks;
        self.unindexed_group_blocks += rhs.unindexed_group_blocks;
        self.malformed_events += rhs.malformed_events;
        self.block_size_mismatch_blocks += rhs.block_size_mismatch_blocks;
        self.evicted_blocks += rhs.evicted_blocks;
        self.stale_events += rhs.stale_events;
    }
}

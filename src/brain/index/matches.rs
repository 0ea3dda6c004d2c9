//! The answer of a match, in a buffer that the caller keeps between requests.

use super::tree::Walk;
use crate::{Slot, Tier};
use serde::{Deserialize, Serialize};

/// Which source a match rests on.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum MatchSource {
    /// Nothing is known to be held.
    #[default]
    None,
    /// The engine's events say so.
    Exact,
    /// Events, plus our own decisions that the events have not confirmed yet.
    Speculative,
    /// Our own decisions only: the endpoint sends no events, or the prompt is text.
    Approximate,
    /// Events (and maybe our own decisions), but of only some of a hybrid model's groups: an upper
    /// bound.
    UpperBound,
}

impl MatchSource {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Exact => "exact",
            Self::Speculative => "speculative",
            Self::Approximate => "approximate",
            Self::UpperBound => "upperbound",
        }
    }
}

/// Matched blocks per endpoint, as columns indexed by [`Slot`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matches {
    /// Blocks of the query.
    pub query_blocks: u32,
    /// Longest run of blocks from the first that the endpoint holds on any tier.
    pub depth_blocks: Vec<u32>,
    /// How many of those lie on a tier below the GPU, by tier (`[cpu, storage, remote]`); a block
    /// held on several tiers counts for the fastest, one that is only believed for the GPU.
    pub lower_tier_blocks: Vec<[u32; Tier::COUNT - 1]>,
    /// What the depth rests on.
    pub source: Vec<MatchSource>,
    /// Tenant of the slot when it was matched: a match is void for any other.
    pub generation: Vec<u32>,
    #[serde(skip)]
    pub(super) walk: Scratch,
}

/// Room that a look-up needs, kept between look-ups; no part of the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Scratch(Walk);

impl PartialEq for Scratch {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Scratch {}

impl std::ops::Deref for Scratch {
    type Target = Walk;
    fn deref(&self) -> &Walk {
        &self.0
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut Walk {
        &mut self.0
    }
}

/// The answer of [`Residency::depths`](super::Residency::depths), in a buffer that the caller keeps.
#[derive(Debug, Clone, Default)]
pub struct Depths {
    pub(super) walk: Walk,
}

impl Depths {
    /// An empty answer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Matched blocks, by slot.
    #[must_use]
    pub fn blocks(&self) -> &[u32] {
        &self.walk.depths
    }
}

impl Matches {
    /// An empty answer; grows to the number of slots at the first match.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for `slots` endpoints and forgets the previous answer.
    pub fn reset(&mut self, slots: usize, query_blocks: u32) {
        self.query_blocks = query_blocks;
        self.depth_blocks.clear();
        self.depth_blocks.resize(slots, 0);
        self.lower_tier_blocks.clear();
        self.lower_tier_blocks.resize(slots, [0; Tier::COUNT - 1]);
        self.source.clear();
        self.source.resize(slots, MatchSource::None);
        self.generation.clear();
        self.generation.resize(slots, 0);
    }

    /// Matched blocks of one endpoint, 0 where the slot has another tenant than it was matched for.
    #[must_use]
    pub fn depth_of(&self, slot: Slot, generation: u32) -> u32 {
        match self.generation.get(slot.index()) {
            Some(&matched) if matched == generation => self.depth_blocks[slot.index()],
            _ => 0,
        }
    }
}

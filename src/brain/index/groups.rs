//! The KV cache groups of an engine: which are indexed.

use super::{ApplyOutcome, BlockStored, GroupSpec, SpecKind};
use std::collections::BTreeSet;

/// Most KV cache groups of one engine, of either sort; the largest hybrid models have a dozen.
const MAX_GROUPS: usize = 64;

/// Which groups an engine's events have named.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Those that keep a whole prefix, in the order in which they came.
    indexed: Vec<u32>,
    unindexed: BTreeSet<u32>,
}

impl Groups {
    /// One indexed group, and no other.
    pub(super) fn of(index: u32) -> Self {
        Self { indexed: vec![index], unindexed: BTreeSet::new() }
    }

    /// The one group there is, if one is known; `None` where there are others.
    pub(super) fn only(&self) -> Option<Option<u32>> {
        let is_one = self.indexed.len() <= 1 && self.unindexed.is_empty();
        is_one.then(|| self.indexed.first().copied())
    }

    /// Whether there are groups that are not indexed, so that a match is an upper bound.
    pub(super) fn has_unindexed(&self) -> bool {
        !self.unindexed.is_empty()
    }

    /// Position of the group of a stored event among the indexed ones; a new one joins. Counts
    /// what cannot be indexed, and is `None` then.
    pub(super) fn of_stored(
        &mut self,
        event: &BlockStored,
        tally: &mut ApplyOutcome,
    ) -> Option<usize> {
        let index = event.group.as_ref().map_or(0, |group| group.index);
        if self.is_unindexed(event.group.as_ref()) {
            if self.unindexed.len() < MAX_GROUPS {
                self.unindexed.insert(index);
            }
            tally.unindexed_group_blocks += event.block_hashes.len() as u64;
            return None;
        }
        if !is_consistent(event) {
            tally.malformed_events += 1;
            return None;
        }
        let known = self.indexed.iter().position(|&group| group == index);
        if known.is_none() {
            if self.indexed.len() >= MAX_GROUPS {
                tally.malformed_events += 1;
                return None;
            }
            self.indexed.push(index);
        }
        known.or(Some(self.indexed.len() - 1))
    }

    /// Positions of the groups that a removal of `blocks` speaks of: of all where it names none,
    /// which can only under-credit. `None` where the group is known not to be indexed.
    pub(super) fn of_removed(
        &self,
        index: Option<u32>,
        blocks: usize,
        tally: &mut ApplyOutcome,
    ) -> Option<std::ops::Range<usize>> {
        let Some(index) = index else { return Some(0..self.indexed.len()) };
        match self.indexed.iter().position(|&group| group == index) {
            Some(position) => Some(position..position + 1),
            None if self.unindexed.contains(&index) => {
                tally.unindexed_group_blocks += blocks as u64;
                None
            }
            None => Some(0..0),
        }
    }

    fn is_unindexed(&self, group: Option<&GroupSpec>) -> bool {
        group.is_some_and(|group| match group.kind {
            SpecKind::Unstated => {
                self.unindexed.contains(&group.index) && !self.indexed.contains(&group.index)
            }
            kind => !kind.keeps_whole_prefix(),
        })
    }
}

/// Whether tokens and extra keys are as many as the blocks want, or left out.
fn is_consistent(event: &BlockStored) -> bool {
    let (count, block_tokens) = (event.block_hashes.len(), event.block_size as usize);
    let tokens = event.token_ids.len();
    (tokens == 0 || block_tokens > 0 && count.checked_mul(block_tokens) == Some(tokens))
        && [0, count].contains(&event.extra_keys.len())
}

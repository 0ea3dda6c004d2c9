//! What one engine holds, as its events tell it.
//!
//! Events name blocks by the engine's hashes, parents too, so each name is kept with the router's
//! keys that the block completes. Residency is counted twice over: physical copies of a name, and
//! names behind a key (two names may stand for one key, as under two cache salts that the router
//! was not told of). A key is held on a tier or a faster one where, in every indexed KV cache
//! group, some name of it is.
//!
//! Memory: 110 to 190 bytes a block (tables double as they grow), and at most
//! `IndexConfig::max_blocks_per_endpoint` blocks.

use super::blocks::{Block, BlockId, Blocks, Copies, Keys};
use super::hash::BuildNameHasher;
use super::publisher::Publisher;
use super::span::{Cursor, Piece, Span, cut};
use super::{ApplyOutcome, BlockRemoved, BlockStored, GroupSpec, KvEvent, SpecKind};
use crate::prompt::Chain;
use crate::{BlockKey, EngineHash, Tier};
use std::collections::{BTreeSet, HashMap};

/// Most KV cache groups of one engine, of either sort; the largest hybrid models have a dozen.
const MAX_GROUPS: usize = 64;

/// What the endpoint's keys are rooted in.
#[derive(Debug)]
pub(super) struct KeySpace {
    pub(super) model: String,
    pub(super) block_size: u32,
}

/// One indexed KV cache group.
#[derive(Debug)]
struct Group {
    index: u32,
    by_name: HashMap<EngineHash, BlockId, BuildNameHasher>,
    /// For each key, how many names stand for it on each tier.
    support: HashMap<BlockKey, [u32; Tier::COUNT], BuildNameHasher>,
}

impl Group {
    fn fastest(&self, key: BlockKey) -> Option<Tier> {
        let names = self.support.get(&key)?;
        Tier::ALL.into_iter().find(|tier| names[tier.index()] > 0)
    }

    fn recount(&mut self, key: BlockKey, from: Option<Tier>, to: Option<Tier>) {
        let names = self.support.entry(key).or_default();
        if let Some(tier) = to {
            names[tier.index()] += 1;
        }
        if let Some(tier) = from {
            names[tier.index()] -= 1;
        }
        if *names == [0; Tier::COUNT] {
            self.support.remove(&key);
        }
    }
}

/// Why a run of blocks has no position.
#[derive(Debug, Clone, Copy)]
enum Lost {
    /// Its parent is unknown.
    Orphan,
    /// It cannot be cut to the router's block size.
    Mismatch,
}

impl Lost {
    fn count(self, tally: &mut ApplyOutcome) {
        match self {
            Self::Orphan => tally.orphan_blocks += 1,
            Self::Mismatch => tally.block_size_mismatch_blocks += 1,
        }
    }
}

/// What one engine holds.
#[derive(Debug)]
pub(super) struct EngineView {
    space: KeySpace,
    groups: Vec<Group>,
    unindexed: BTreeSet<u32>,
    blocks: Blocks,
    /// Weight of the blocks held, and the most it may be.
    weight: usize,
    max_weight: usize,
    held: [u64; Tier::COUNT],
}

impl EngineView {
    pub(super) fn new(space: KeySpace, max_blocks: usize) -> Self {
        Self {
            space,
            groups: Vec::new(),
            unindexed: BTreeSet::new(),
            blocks: Blocks::new(),
            weight: 0,
            max_weight: max_blocks,
            held: [0; Tier::COUNT],
        }
    }

    /// Distinct keys held, by fastest tier.
    pub(super) fn held(&self) -> [u64; Tier::COUNT] {
        self.held
    }

    /// Whether the engine has groups that are not indexed, so that a match is an upper bound.
    pub(super) fn has_unindexed_groups(&self) -> bool {
        !self.unindexed.is_empty()
    }

    /// The fastest tier on which the key is held: in every group there is a copy there or on a
    /// faster one.
    pub(super) fn fastest(&self, key: BlockKey) -> Option<Tier> {
        let mut slowest = self.groups.first()?.fastest(key)?;
        for group in &self.groups[1..] {
            slowest = slowest.max(group.fastest(key)?);
        }
        Some(slowest)
    }

    pub(super) fn apply(
        &mut self,
        event: &KvEvent,
        out: &mut Publisher<'_>,
        tally: &mut ApplyOutcome,
    ) {
        match event {
            KvEvent::Stored(stored) => self.stored(stored, out, tally),
            KvEvent::Removed(removed) => self.removed(removed, out, tally),
            KvEvent::Cleared => {
                tally.cleared += 1;
                self.clear(out);
                out.disbelieve_all();
            }
        }
    }

    /// Nothing is held any more; which groups there are stays known.
    pub(super) fn clear(&mut self, out: &mut Publisher<'_>) {
        // In whatever order the map yields: each key is unpublished on its own.
        if let Some(group) = self.groups.first() {
            for &key in group.support.keys().filter(|&&key| self.fastest(key).is_some()) {
                out.set_tier(key, None);
            }
        }
        for group in &mut self.groups {
            group.by_name = HashMap::default();
            group.support = HashMap::default();
        }
        self.blocks = Blocks::new();
        self.weight = 0;
        self.held = [0; Tier::COUNT];
    }

    /// Nothing is known any more.
    pub(super) fn reset(&mut self, out: &mut Publisher<'_>) {
        self.clear(out);
        self.groups.clear();
        self.unindexed.clear();
    }

    /// Bytes allocated, one tag byte a bucket as hashbrown lays it out.
    pub(super) fn memory_bytes(&self) -> usize {
        let maps = self.groups.iter().map(|group| {
            let names = group.by_name.capacity() * (std::mem::size_of::<(u64, BlockId)>() + 1);
            let keys = group.support.capacity() * (std::mem::size_of::<(u64, [u32; 4])>() + 1);
            (names + keys) * 8 / 7
        });
        self.blocks.memory_bytes() + maps.sum::<usize>()
    }

    /// Entries of all tables, those included that only others keep known.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let tables = self.groups.iter().map(|group| group.by_name.len() + group.support.len());
        tables.sum::<usize>() + self.blocks.len()
    }

    fn stored(&mut self, event: &BlockStored, out: &mut Publisher<'_>, tally: &mut ApplyOutcome) {
        let count = event.block_hashes.len();
        let index = event.group.as_ref().map_or(0, |group| group.index);
        if self.is_unindexed(event.group.as_ref()) {
            if self.unindexed.len() < MAX_GROUPS {
                self.unindexed.insert(index);
            }
            tally.unindexed_group_blocks += count as u64;
            return;
        }
        let chain = Chain::new(&self.space.model, event.lora.as_deref(), self.space.block_size);
        let (true, Ok(chain)) = (is_consistent(event), chain) else {
            tally.malformed_events += 1;
            return;
        };
        let Some(group) = self.join_group(index, out) else {
            tally.malformed_events += 1;
            return;
        };
        let block_tokens = event.block_size as usize;

        let mut end = match event.parent {
            None => Ok(Cursor { base: chain.root(), tail: None }),
            Some(parent) => match self.held_block(group, parent) {
                Some(id) => Ok(self.end_of(id, &chain)),
                None => Err(Lost::Orphan),
            },
        };
        for (i, &name) in event.block_hashes.iter().enumerate() {
            let known = self.held_block(group, name);
            let placed = match (known, end) {
                (Some(id), _) => Ok(id),
                (None, Err(lost)) => Err(lost),
                (None, Ok(_)) if event.token_ids.is_empty() => Err(Lost::Orphan),
                (None, Ok(cursor)) => {
                    let piece = Piece {
                        tokens: &event.token_ids[i * block_tokens..(i + 1) * block_tokens],
                        extra_keys: event.extra_keys.get(i).map_or(&[], Vec::as_slice),
                        lora: event.lora.as_deref(),
                    };
                    self.place(group, name, &chain, cursor, &piece).ok_or(Lost::Mismatch)
                }
            };
            end = match placed {
                Ok(id) => {
                    tally.stored_blocks += 1;
                    let end = self.end_of(id, &chain);
                    self.add_copy(id, event.tier, out);
                    self.evict_excess(out, tally);
                    Ok(end)
                }
                Err(lost) => {
                    lost.count(tally);
                    Err(lost)
                }
            };
        }
    }

    fn removed(&mut self, event: &BlockRemoved, out: &mut Publisher<'_>, tally: &mut ApplyOutcome) {
        let groups = match event.group {
            // An event that names no group speaks of all, which can only under-credit.
            None => 0..self.groups.len(),
            Some(index) => match self.groups.iter().position(|group| group.index == index) {
                Some(position) => position..position + 1,
                None if self.unindexed.contains(&index) => {
                    tally.unindexed_group_blocks += event.block_hashes.len() as u64;
                    return;
                }
                None => 0..0,
            },
        };
        for &name in &event.block_hashes {
            let mut known = false;
            for group in groups.clone() {
                if let Some(id) = self.held_block(group, name)
                    && self.remove_copy(id, event.tier, out)
                {
                    known = true;
                    tally.removed_blocks += 1;
                }
            }
            if !known {
                tally.unknown_removed_blocks += 1;
            }
        }
    }

    fn is_unindexed(&self, group: Option<&GroupSpec>) -> bool {
        group.is_some_and(|group| match group.kind {
            SpecKind::Unstated => {
                self.unindexed.contains(&group.index)
                    && self.groups.iter().all(|known| known.index != group.index)
            }
            kind => !kind.keeps_whole_prefix(),
        })
    }

    /// Position of the group; `None` where there are too many. A new group holds nothing yet, so
    /// from now on nothing is held by all.
    fn join_group(&mut self, index: u32, out: &mut Publisher<'_>) -> Option<usize> {
        if let Some(position) = self.groups.iter().position(|group| group.index == index) {
            return Some(position);
        }
        if self.groups.len() >= MAX_GROUPS {
            return None;
        }
        // In whatever order the map yields: each key is unpublished on its own.
        if let Some(group) = self.groups.first() {
            for &key in group.support.keys().filter(|&&key| self.fastest(key).is_some()) {
                out.set_tier(key, None);
            }
            self.held = [0; Tier::COUNT];
        }
        let (by_name, support) = (HashMap::default(), HashMap::default());
        self.groups.push(Group { index, by_name, support });
        Some(self.groups.len() - 1)
    }

    /// The block of that name, if a copy of it is held.
    fn held_block(&self, group: usize, name: EngineHash) -> Option<BlockId> {
        let &id = self.groups[group].by_name.get(&name)?;
        self.blocks.get(id)?.copies.any().then_some(id)
    }

    /// Where a run goes on behind the block.
    fn end_of(&self, id: BlockId, chain: &Chain) -> Cursor {
        let block = self.blocks.get(id);
        match block.and_then(|block| block.keys.as_slice().last()) {
            Some(&base) => Cursor { base, tail: None },
            None => block
                .and_then(|block| block.span.as_ref())
                .map_or(Cursor { base: chain.root(), tail: None }, |span| span.end(id)),
        }
    }

    /// Names a block that is not held behind the cursor.
    fn place(
        &mut self,
        group: usize,
        name: EngineHash,
        chain: &Chain,
        cursor: Cursor,
        piece: &Piece<'_>,
    ) -> Option<BlockId> {
        if let Some(&id) = self.groups[group].by_name.get(&name) {
            return Some(id); // Gone, but known still by the blocks behind it.
        }
        let tail = cursor.tail.and_then(|id| self.blocks.get(id)?.span.as_deref());
        let (keys, span) = cut(chain, cursor, tail, piece)?;
        let id = self.blocks.insert(Block::new(name, group as u16, keys, span));
        self.groups[group].by_name.insert(name, id);
        if let Some(span) = self.span_mut(cursor.tail) {
            span.next.insert(id);
        }
        Some(id)
    }

    fn add_copy(&mut self, id: BlockId, tier: Tier, out: &mut Publisher<'_>) {
        let Some(block) = self.blocks.get_mut(id) else { return };
        let before = block.copies;
        block.copies.add(tier);
        let after = block.copies;
        if before.any() {
            self.blocks.unlink(id);
        } else {
            self.weight += block.weight();
        }
        self.blocks.push_newest(id);
        if before.fastest() != after.fastest() {
            self.settle_from(id, out);
        }
    }

    /// False where there is no copy on that tier.
    fn remove_copy(&mut self, id: BlockId, tier: Tier, out: &mut Publisher<'_>) -> bool {
        let Some(block) = self.blocks.get_mut(id) else { return false };
        let before = block.copies;
        if !block.copies.remove(tier) {
            return false;
        }
        let after = block.copies;
        self.disbelieve_from(id, out);
        self.after_removal(id, before.fastest() != after.fastest(), out);
        true
    }

    fn evict_excess(&mut self, out: &mut Publisher<'_>, tally: &mut ApplyOutcome) {
        while self.weight > self.max_weight
            && let Some(id) = self.blocks.oldest()
            && let Some(block) = self.blocks.get_mut(id)
        {
            block.copies = Copies::default();
            tally.evicted_blocks += 1;
            self.after_removal(id, true, out);
        }
    }

    fn after_removal(&mut self, id: BlockId, tier_changed: bool, out: &mut Publisher<'_>) {
        if tier_changed {
            self.settle_from(id, out);
        }
        if let Some(block) = self.blocks.get(id)
            && !block.copies.any()
        {
            self.weight -= block.weight();
            self.blocks.unlink(id);
            self.forget_from(id);
        }
    }

    /// Forgets the block if it is neither held nor in front of one that is known, and then those
    /// that only it kept known.
    fn forget_from(&mut self, id: BlockId) {
        let mut last = Some(id);
        while let Some(id) = last
            && let Some(block) = self.blocks.get(id)
            && !block.copies.any()
            && block.span.as_ref().is_none_or(|span| span.next.is_empty())
            && let Some(block) = self.blocks.take(id)
        {
            self.groups[usize::from(block.group)].by_name.remove(&block.name);
            last = block.span.and_then(|span| span.previous);
            if let Some(span) = self.span_mut(last) {
                span.next.remove(&id);
            }
        }
    }

    fn span_mut(&mut self, id: Option<BlockId>) -> Option<&mut Span> {
        self.blocks.get_mut(id?)?.span.as_deref_mut()
    }

    /// The tier of the block changed: counts anew every key that rests on it.
    fn settle_from(&mut self, id: BlockId, out: &mut Publisher<'_>) {
        if self.blocks.get(id).is_none_or(|block| block.span.is_none()) {
            return self.settle(id, out);
        }
        for id in self.resting_on(id) {
            self.settle(id, out);
        }
    }

    fn disbelieve_from(&self, id: BlockId, out: &mut Publisher<'_>) {
        if out.beliefs.len() == 0 {
            return;
        }
        for id in self.resting_on(id) {
            for &key in self.blocks.get(id).map_or(&[][..], |block| block.keys.as_slice()) {
                out.disbelieve(key);
            }
        }
    }

    /// The block and, within its router block, those behind it.
    fn resting_on(&self, id: BlockId) -> Vec<BlockId> {
        let mut all = vec![id];
        let mut at = 0;
        while let Some(&id) = all.get(at) {
            if let Some(span) = self.blocks.get(id).and_then(|block| block.span.as_ref()) {
                all.extend(&span.next);
            }
            at += 1;
        }
        all
    }

    /// The slowest of the fastest tiers of the block and of those before it in its router block.
    fn unit_tier(&self, id: BlockId) -> Option<Tier> {
        let mut tier = Tier::Gpu;
        let mut at = Some(id);
        while let Some(id) = at {
            let block = self.blocks.get(id)?;
            tier = tier.max(block.copies.fastest()?);
            at = block.span.as_ref().and_then(|span| span.previous);
        }
        Some(tier)
    }

    fn settle(&mut self, id: BlockId, out: &mut Publisher<'_>) {
        let to = self.unit_tier(id);
        let Some(block) = self.blocks.get_mut(id) else { return };
        let from = std::mem::replace(&mut block.settled, to);
        if from == to {
            return;
        }
        let group = usize::from(block.group);
        let keys = std::mem::replace(&mut block.keys, Keys::none());
        for &key in keys.as_slice() {
            let before = self.fastest(key);
            self.groups[group].recount(key, from, to);
            let after = self.fastest(key);
            if before != after {
                if let Some(tier) = before {
                    self.held[tier.index()] -= 1;
                }
                if let Some(tier) = after {
                    self.held[tier.index()] += 1;
                }
                out.set_tier(key, after);
            }
        }
        if let Some(block) = self.blocks.get_mut(id) {
            block.keys = keys;
        }
    }
}

/// Whether tokens and extra keys are as many as the blocks want, or left out.
fn is_consistent(event: &BlockStored) -> bool {
    let (count, block_tokens) = (event.block_hashes.len(), event.block_size as usize);
    let tokens = event.token_ids.len();
    (tokens == 0 || block_tokens > 0 && count.checked_mul(block_tokens) == Some(tokens))
        && [0, count].contains(&event.extra_keys.len())
}

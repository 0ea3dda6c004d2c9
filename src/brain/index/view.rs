//! What an engine holds whose blocks are not simply the router's: of a hybrid model with several KV
//! cache groups, or of another block size. (All others are seen by [`PlainView`], which keeps
//! next to nothing of its own.)
//!
//! Events name blocks by the engine's hashes, parents too, so each name is kept with the router's
//! keys that the block completes. Residency is counted twice over: physical copies of a name, and
//! names behind a key (two names may stand for one key, as under two cache salts that the router
//! was not told of). A key is held on a tier or a faster one where, in every indexed KV cache
//! group, some name of it is; it is in the tree while it is held. A block stays known while others
//! descend from it: they are found in the tree by the keys on the way to them.
//!
//! Memory: 150 to 250 bytes a block (tables double as they grow).
//!
//! [`PlainView`]: super::plain::PlainView

use super::blocks::{Block, BlockId, Blocks, Keys};
use super::copies::Copies;
use super::hash::BuildNameHasher;
use super::publisher::Publisher;
use super::span::{Cursor, Piece, Span, cut};
use super::tree::{At, BlockRef, Hold, heap};
use super::{ApplyOutcome, BlockRemoved, BlockStored};
use crate::prompt::Chain;
use crate::{BlockKey, EngineHash, Tier};
use std::collections::HashMap;

/// One indexed KV cache group.
#[derive(Debug, Default)]
struct Group {
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
    groups: Vec<Group>,
    blocks: Blocks,
    /// Where in the tree the keys are that are held.
    published: HashMap<BlockKey, BlockRef, BuildNameHasher>,
    held: [u64; Tier::COUNT],
}

impl EngineView {
    /// Of an engine of which only the first group is known, and nothing that it holds.
    pub(super) fn new() -> Self {
        Self {
            groups: vec![Group::default()],
            blocks: Blocks::new(),
            published: HashMap::default(),
            held: [0; Tier::COUNT],
        }
    }

    /// Distinct keys held, by fastest tier.
    pub(super) fn held(&self) -> [u64; Tier::COUNT] {
        self.held
    }

    /// A block of the first group that was known before this view was made: who holds it is said
    /// by [`Self::settle_adopted`].
    pub(super) fn adopt(
        &mut self,
        names: &[(EngineHash, Copies)],
        key: BlockKey,
        parent: Option<BlockId>,
    ) -> BlockId {
        let mut place = |name: Option<EngineHash>, copies: Copies| {
            let mut block = Block::new(name, 0, Keys::One([key]), None, parent);
            block.copies = copies;
            let id = self.blocks.insert(block);
            if let Some(name) = name {
                self.groups[0].by_name.insert(name, id);
            }
            if let Some(parent) = parent.and_then(|parent| self.blocks.get_mut(parent)) {
                parent.children += 1;
            }
            if copies.any() {
                self.blocks.push_newest(id);
            }
            id
        };
        let Some(&(name, copies)) = names.first() else {
            return place(None, Copies::default());
        };
        let first = place(Some(name), copies);
        for &(name, copies) in &names[1..] {
            place(Some(name), copies);
        }
        first
    }

    /// Makes known what [`Self::adopt`] took over, in the order in which it was taken.
    pub(super) fn settle_adopted(&mut self, out: &mut Publisher<'_>) {
        for id in self.blocks.ids() {
            self.settle(id, out);
        }
    }

    /// Nothing is held any more; which groups there are stays known.
    pub(super) fn clear(&mut self, out: &mut Publisher<'_>) {
        self.unpublish_all(out);
        for group in &mut self.groups {
            *group = Group::default();
        }
        self.blocks = Blocks::new();
        self.held = [0; Tier::COUNT];
    }

    fn unpublish_all(&mut self, out: &mut Publisher<'_>) {
        out.tree.clear(out.who, Hold::EXACT);
        self.published = HashMap::default();
    }

    /// Bytes allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        let maps = self.groups.iter().map(|group| {
            heap::map::<EngineHash, BlockId>(group.by_name.capacity())
                + heap::map::<BlockKey, [u32; Tier::COUNT]>(group.support.capacity())
        });
        self.blocks.memory_bytes()
            + maps.sum::<usize>()
            + heap::map::<BlockKey, BlockRef>(self.published.capacity())
    }

    /// Entries of all tables, those included that only others keep known.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let tables = self.groups.iter().map(|group| group.by_name.len() + group.support.len());
        tables.sum::<usize>() + self.blocks.len() + self.published.len()
    }

    /// Blocks of group `group` are held; those of a group that is new are held by nobody until
    /// then, so nothing is held by all groups.
    pub(super) fn stored(
        &mut self,
        group: usize,
        event: &BlockStored,
        chain: &Chain,
        out: &mut Publisher<'_>,
        tally: &mut ApplyOutcome,
    ) {
        if group >= self.groups.len() {
            self.unpublish_all(out);
            self.held = [0; Tier::COUNT];
            self.groups.push(Group::default());
        }
        let block_tokens = event.block_size as usize;
        let mut end = match event.parent {
            None => Ok(Cursor { base: chain.root(), tail: None, last: None }),
            Some(parent) => match self.held_block(group, parent) {
                Some(id) => Ok(self.end_of(id, chain)),
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
                    self.place(group, name, chain, cursor, &piece).ok_or(Lost::Mismatch)
                }
            };
            end = match placed {
                Ok(id) => {
                    tally.stored_blocks += 1;
                    let end = self.end_of(id, chain);
                    self.add_copy(id, event.tier, out);
                    Ok(end)
                }
                Err(lost) => {
                    lost.count(tally);
                    Err(lost)
                }
            };
        }
    }

    /// Copies of blocks of these groups go.
    pub(super) fn removed(
        &mut self,
        groups: std::ops::Range<usize>,
        event: &BlockRemoved,
        out: &mut Publisher<'_>,
        tally: &mut ApplyOutcome,
    ) {
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

    /// Forgets the blocks that were stored the longest ago, so many of them. Returns how many.
    pub(super) fn evict(&mut self, blocks: u64, out: &mut Publisher<'_>) -> u64 {
        for evicted in 0..blocks {
            let Some(id) = self.blocks.oldest() else { return evicted };
            if let Some(block) = self.blocks.get_mut(id) {
                block.copies = Copies::default();
            }
            self.after_removal(id, true, out);
        }
        blocks
    }

    /// The fastest tier on which the key is held: in every group there is a copy there or on a
    /// faster one.
    fn fastest(&self, key: BlockKey) -> Option<Tier> {
        let mut slowest = self.groups.first()?.fastest(key)?;
        for group in &self.groups[1..] {
            slowest = slowest.max(group.fastest(key)?);
        }
        Some(slowest)
    }

    /// The block of that name, if a copy of it is held.
    fn held_block(&self, group: usize, name: EngineHash) -> Option<BlockId> {
        let &id = self.groups.get(group)?.by_name.get(&name)?;
        self.blocks.get(id)?.copies.any().then_some(id)
    }

    /// Where a run goes on behind the block.
    fn end_of(&self, id: BlockId, chain: &Chain) -> Cursor {
        let (block, last) = (self.blocks.get(id), Some(id));
        match block.and_then(|block| block.keys.as_slice().last()) {
            Some(&base) => Cursor { base, tail: None, last },
            None => block
                .and_then(|block| block.span.as_ref())
                .map_or(Cursor { base: chain.root(), tail: None, last }, |span| span.end(id)),
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
        let id = self.blocks.insert(Block::new(Some(name), group as u16, keys, span, cursor.last));
        self.groups[group].by_name.insert(name, id);
        if let Some(parent) = cursor.last.and_then(|parent| self.blocks.get_mut(parent)) {
            parent.children += 1;
        }
        if let Some(span) = self.span_mut(cursor.tail) {
            span.next.insert(id);
        }
        Some(id)
    }

    fn add_copy(&mut self, id: BlockId, tier: Tier, out: &mut Publisher<'_>) {
        let Some(block) = self.blocks.get_mut(id) else { return };
        let before = block.copies;
        block.copies.add(tier, 1);
        let after = block.copies;
        if before.any() {
            self.blocks.unlink(id);
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

    fn after_removal(&mut self, id: BlockId, tier_changed: bool, out: &mut Publisher<'_>) {
        if tier_changed {
            self.settle_from(id, out);
        }
        if let Some(block) = self.blocks.get(id)
            && !block.copies.any()
        {
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
            && block.children == 0
            && let Some(block) = self.blocks.take(id)
        {
            if let Some(name) = block.name {
                self.groups[usize::from(block.group)].by_name.remove(&name);
            }
            last = block.parent;
            if let Some(parent) = last.and_then(|parent| self.blocks.get_mut(parent)) {
                parent.children -= 1;
                if let Some(span) = &mut parent.span {
                    span.next.remove(&id);
                }
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
        for at in self.resting_on(id) {
            // What is here for the sake of those behind it only says nothing of what is to come.
            let is_known = |block: &&Block| at == id || block.copies.any();
            let block = self.blocks.get(at).filter(is_known);
            for i in 0..block.map_or(0, |block| block.keys.as_slice().len()) {
                let (place, path) = self.path(at, i);
                if let Some(block) = out.tree.locate(place, &path) {
                    out.disbelieve(block);
                }
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
        for i in 0..block.keys.as_slice().len() {
            let Some(&key) = self.blocks.get(id).and_then(|block| block.keys.as_slice().get(i))
            else {
                return;
            };
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
                self.publish(id, i, key, after, out);
            }
        }
    }

    /// The fastest tier of key `i` of a block is `to` now, in all groups.
    fn publish(
        &mut self,
        id: BlockId,
        i: usize,
        key: BlockKey,
        to: Option<Tier>,
        out: &mut Publisher<'_>,
    ) {
        match (self.published.get(&key).copied(), to) {
            (Some(block), Some(tier)) => out.change(block, Hold::on(tier)),
            (Some(block), None) => {
                self.published.remove(&key);
                out.change(block, Hold::NONE);
            }
            (None, Some(tier)) => {
                let (at, path) = self.path(id, i);
                let (block, _) = out.hold(at, &path, &[], Hold::on(tier), path.len() - 1);
                if let Some(block) = block {
                    self.published.insert(key, block);
                }
            }
            (None, None) => {}
        }
    }

    /// The keys on the way to key `i` of a block and that key itself, from the start of the prompt
    /// or from the last one before it that is in the tree.
    fn path(&self, id: BlockId, i: usize) -> (At, Vec<BlockKey>) {
        let (mut path, mut end) = (vec![], i + 1);
        let mut at = Some(id);
        while let Some(block) = at.and_then(|id| self.blocks.get(id)) {
            let keys = block.keys.as_slice();
            for &key in keys[..end.min(keys.len())].iter().rev() {
                if let Some(&published) = self.published.get(&key)
                    && !path.is_empty()
                {
                    path.reverse();
                    return (At::After(published), path);
                }
                path.push(key);
            }
            (at, end) = (block.parent, usize::MAX);
        }
        path.reverse();
        (At::Start, path)
    }
}

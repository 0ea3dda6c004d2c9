//! What an engine holds whose blocks are the router's: one KV cache group, the same block size.
//!
//! Nearly everything is in the tree. A block is *plain* where the engine has one copy of it on each
//! tier that holds it, under the name that all engines share; then nothing is kept here. Otherwise:
//! - the engine's own name of it, where its hashes have another seed than those of the engine that
//!   first named the block ([`Hold::ALIASED`] says so in the tree), and
//! - how many copies there are more, where all of them are in GPU memory under that one name, and
//! - all copies by name and tier, where it is none of that.

use super::copies::Copies;
use super::extra::ExtraCopies;
use super::hash::BuildNameHasher;
use super::publisher::Publisher;
use super::span::whole_block;
use super::tree::{At, BlockRef, Hold, Placed, Seen, heap};
use super::view::EngineView;
use super::{ApplyOutcome, BlockRemoved, BlockStored};
use crate::prompt::Chain;
use crate::{BlockKey, EngineHash, Tier};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// All copies of one block: for each of its names, or for `None`, which is the name under which it
/// was plain.
type Odd = Vec<(Option<EngineHash>, Copies)>;

#[derive(Debug, Default)]
pub(super) struct PlainView {
    /// Names of held blocks that are not the ones that all share.
    aliases: HashMap<EngineHash, BlockRef, BuildNameHasher>,
    /// Copies of blocks that would be plain with one, and have more in GPU memory.
    extra: ExtraCopies,
    /// Copies of the blocks that are not plain otherwise.
    odd: HashMap<BlockRef, Odd, BuildHasherDefault<super::hash::NameHasher>>,
    held: [u64; Tier::COUNT],
    /// Keys of the event that is being applied; kept for its memory.
    keys: Vec<BlockKey>,
}

impl PlainView {
    /// Distinct keys held, by fastest tier.
    pub(super) fn held(&self) -> [u64; Tier::COUNT] {
        self.held
    }

    /// A run of blocks is held.
    pub(super) fn stored(
        &mut self,
        event: &BlockStored,
        chain: &Chain,
        out: &mut Publisher<'_>,
        tally: &mut ApplyOutcome,
    ) {
        let size = event.block_size as usize;
        if let ([name], [_, ..]) = (&event.block_hashes[..], &event.token_ids[..])
            && let Some((parent, block)) = self.claim(event.parent, *name, out)
        {
            let extra_keys = event.extra_keys.first().map_or(&[][..], Vec::as_slice);
            let base = out.tree.key(block);
            let key = whole_block(chain, base, &event.token_ids, extra_keys, event.lora.as_deref());
            if self.grow((block, parent), (key, *name), event.tier, out) {
                tally.stored_blocks += 1;
                return;
            }
        }
        let mut end = self.end_of(event.parent, out);
        let mut at = 0;
        while let Some(&name) = event.block_hashes.get(at) {
            if let Some(place) = end
                && !event.token_ids.is_empty()
            {
                let mut base = match place {
                    At::Start => chain.root(),
                    At::After(block) | At::Claimed(block, _) => out.tree.key(block),
                };
                let mut keys = std::mem::take(&mut self.keys);
                keys.clear();
                keys.extend((at..event.block_hashes.len()).map(|i| {
                    let tokens = &event.token_ids[i * size..(i + 1) * size];
                    let extra_keys = event.extra_keys.get(i).map_or(&[][..], Vec::as_slice);
                    base = whole_block(chain, base, tokens, extra_keys, event.lora.as_deref());
                    base
                }));
                let stored = self.store(place, &event.block_hashes[at..], &keys, event.tier, out);
                tally.stored_blocks += stored;
                // The index has no room for the rest.
                tally.evicted_blocks += keys.len() as u64 - stored;
                self.keys = keys;
                return;
            }
            // No position, but a name that is held needs none.
            end = self.resolve(name, out).map(|block| {
                self.add_copy(block, name, event.tier, out);
                At::After(block)
            });
            match end {
                Some(_) => tally.stored_blocks += 1,
                None => tally.orphan_blocks += 1,
            }
            at += 1;
        }
    }

    /// Where a run goes on behind a block of that name; `None` where it is not held.
    fn end_of(&self, parent: Option<EngineHash>, out: &Publisher<'_>) -> Option<At> {
        match parent {
            None => Some(At::Start),
            Some(parent) => self.resolve(parent, out).map(At::After),
        }
    }

    /// As a stored event, with keys in place of tokens: see [`Self::store`].
    pub(super) fn store_behind(
        &mut self,
        parent: Option<EngineHash>,
        names: &[EngineHash],
        keys: &[BlockKey],
        tier: Tier,
        out: &mut Publisher<'_>,
    ) -> u64 {
        if let (Some(&name), Some(&key)) = (names.first(), keys.first())
            && let Some((parent, block)) = self.claim(parent, name, out)
        {
            if names.len() == 1 && self.grow((block, parent), (key, name), tier, out) {
                return 1;
            }
            // Nearly always true, and found out under the lock that the store takes anyway.
            let stored = self.store(At::Claimed(block, parent), names, keys, tier, out);
            if stored > 0 {
                return stored;
            }
        }
        self.end_of(parent, out).map_or(0, |at| self.store(at, names, keys, tier, out))
    }

    /// The block that a run most probably goes on behind, of an engine whose blocks are all plain,
    /// and whose next is named so.
    fn claim(
        &self,
        parent: Option<EngineHash>,
        name: EngineHash,
        out: &Publisher<'_>,
    ) -> Option<(EngineHash, BlockRef)> {
        let parent = parent.filter(|_| self.aliases.is_empty() && self.odd.is_empty())?;
        out.tree.prefetch(&[name]);
        Some((parent, out.tree.claim(parent)?))
    }

    /// One block more of a run that only this engine holds: see [`Tree::grow`](super::tree::Tree).
    fn grow(
        &mut self,
        last: (BlockRef, EngineHash),
        next: (BlockKey, EngineHash),
        tier: Tier,
        out: &Publisher<'_>,
    ) -> bool {
        let grown = out.tree.grow(out.who, last, next, Hold::on(tier), out.stamp);
        self.held[tier.index()] += u64::from(grown);
        grown
    }

    /// A run of blocks with these names and keys is held. Returns how many there was room for.
    pub(super) fn store(
        &mut self,
        at: At,
        names: &[EngineHash],
        keys: &[BlockKey],
        tier: Tier,
        out: &mut Publisher<'_>,
    ) -> u64 {
        self.store_past(at, names, keys, 0, tier, out)
    }

    /// As [`Self::store`], where `skip` blocks at the start are only on the way.
    pub(super) fn store_past(
        &mut self,
        at: At,
        names: &[EngineHash],
        keys: &[BlockKey],
        skip: usize,
        tier: Tier,
        out: &mut Publisher<'_>,
    ) -> u64 {
        let hold = Hold::on(tier);
        let (_, pieces) = out.hold(at, keys, names, hold, skip);
        let (mut stored, mut held_already) = (0, vec![]);
        for piece in pieces {
            stored += u64::from(piece.len);
            if piece.before.meets(Hold::EXACT) {
                let plain = piece.is_shared && piece.before == Hold::GPU && self.odd.is_empty();
                if plain && tier == Tier::Gpu {
                    self.extra.add(piece.first, piece.len, 1);
                } else {
                    held_already.push(*piece);
                }
                continue;
            }
            self.held[tier.index()] += u64::from(piece.len);
            if piece.after.meets(Hold::ALIASED) {
                let aliases = (0..piece.len)
                    .map(|i| (names[piece.position + i as usize], piece.first.plus(i)));
                self.aliases.extend(aliases);
            }
        }
        for Placed { position, first, len, .. } in held_already {
            for i in 0..len {
                self.add_copy(first.plus(i), names[position + i as usize], tier, out);
            }
        }
        stored
    }

    /// Copies of blocks go.
    pub(super) fn removed(
        &mut self,
        event: &BlockRemoved,
        out: &mut Publisher<'_>,
        tally: &mut ApplyOutcome,
    ) {
        let removed = self.remove(&event.block_hashes, event.tier, out);
        tally.removed_blocks += removed;
        tally.unknown_removed_blocks += event.block_hashes.len() as u64 - removed;
    }

    /// A copy of each of these blocks goes. Returns how many there were.
    pub(super) fn remove(
        &mut self,
        names: &[EngineHash],
        tier: Tier,
        out: &mut Publisher<'_>,
    ) -> u64 {
        if !self.aliases.is_empty() || !self.odd.is_empty() {
            return names.iter().filter(|&&name| self.remove_copy(name, tier, out)).count() as u64;
        }
        let (held, extra) = (&mut self.held, &mut self.extra);
        let spare = |first, len| match tier {
            Tier::Gpu if !extra.is_empty() => extra.take_end(first, len),
            _ => (len, false),
        };
        out.tree.remove_named(out.who, names, Hold::on(tier), spare, |placed| {
            recount(held, placed.before, placed.after, placed.len);
        })
    }

    /// Nothing is held any more.
    pub(super) fn clear(&mut self, out: &mut Publisher<'_>) {
        out.tree.clear(out.who, Hold::EXACT | Hold::ALIASED);
        *self = Self::default();
    }

    /// Forgets the blocks at the ends of prompts that were stored the longest ago, at least so
    /// many where there are. Returns how many.
    pub(super) fn evict(&mut self, blocks: u64, out: &mut Publisher<'_>) -> u64 {
        let mut ends: Vec<Seen> = vec![];
        out.tree.visit(out.who, |_, seen| {
            if seen.is_leaf && seen.hold.meets(Hold::EXACT) {
                ends.push(seen);
            }
        });
        ends.sort_unstable_by_key(|seen| (seen.stored_at, seen.first));
        let mut evicted = 0;
        let mut gone = vec![];
        for &Seen { first, len, .. } in &ends {
            let few = u32::try_from(blocks - evicted).unwrap_or(u32::MAX).min(len);
            let first = first.plus(len - few);
            let held = &mut self.held;
            let to_none = |hold: Hold| hold.without(Hold::EXACT | Hold::ALIASED);
            out.tree.alter(out.who, first, few, to_none, |placed| {
                recount(held, placed.before, placed.after, placed.len);
            });
            self.extra.forget(first, few);
            gone.push((first, few));
            evicted += u64::from(few);
            if evicted >= blocks {
                break;
            }
        }
        gone.sort_unstable();
        let is_gone = |block: BlockRef| {
            let after = gone.partition_point(|&(first, _)| first <= block);
            after > 0 && block.within(gone[after - 1].0, gone[after - 1].1).is_some()
        };
        self.aliases.retain(|_, block| !is_gone(*block));
        self.odd.retain(|block, _| !is_gone(*block));
        evicted
    }

    /// As the view of an engine that turned out not to be a plain one.
    pub(super) fn into_engine_view(self, out: &mut Publisher<'_>) -> EngineView {
        let names = self.names_of_aliased();
        let mut runs = vec![];
        out.tree.visit(out.who, |before, seen| runs.push((before, seen)));
        let (mut view, mut known) = (EngineView::new(), HashMap::<_, _>::new());
        for (before, Seen { first, len, hold, .. }) in runs {
            let mut parent = before.and_then(|before| known.get(&before).copied());
            for block in (0..len).map(|i| first.plus(i)) {
                let copies = match hold.meets(Hold::EXACT) {
                    true => {
                        let aliases = names.get(&block).map_or(&[][..], Vec::as_slice);
                        self.copies_of(block, hold, out.tree.name(block), aliases)
                    }
                    false => vec![],
                };
                let id = view.adopt(&copies, out.tree.key(block), parent);
                known.insert(block, id);
                parent = Some(id);
            }
        }
        out.tree.clear(out.who, Hold::EXACT | Hold::ALIASED);
        view.settle_adopted(out);
        view
    }

    /// The names of blocks that are not the ones that all share.
    pub(super) fn names_of_aliased(&self) -> HashMap<BlockRef, Vec<EngineHash>> {
        let mut names: HashMap<BlockRef, Vec<EngineHash>> = HashMap::new();
        for (&name, &block) in &self.aliases {
            names.entry(block).or_default().push(name);
        }
        names
    }

    /// Whether nothing is kept here of a block but its name and how many copies of it there are.
    pub(super) fn is_plain(&self, block: BlockRef) -> bool {
        !self.odd.contains_key(&block)
    }

    /// How many of these blocks, from the first on, are plain; 1 where the first is not.
    pub(super) fn alike(&self, first: BlockRef, len: u32) -> u32 {
        match self.odd.is_empty() {
            true => len,
            false => {
                let plain = (0..len).take_while(|&i| self.is_plain(first.plus(i))).count();
                plain.max(1) as u32
            }
        }
    }

    /// The extra copies of plain blocks: see [`ExtraCopies::of`].
    pub(super) fn extra_copies(
        &self,
        first: BlockRef,
        len: u32,
    ) -> impl Iterator<Item = (u32, u32, u32)> + '_ {
        self.extra.of(first, len)
    }

    /// All copies of a block that is held, by the engine's names of it: `shared` is the one that
    /// all share, `aliases` are the others.
    pub(super) fn copies_of(
        &self,
        block: BlockRef,
        hold: Hold,
        shared: EngineHash,
        aliases: &[EngineHash],
    ) -> Vec<(EngineHash, Copies)> {
        let odd = self.odd.get(&block).map_or(&[][..], Vec::as_slice);
        let listed = |name: EngineHash| odd.iter().any(|&(of, _)| of == Some(name));
        let plain_name = match hold.meets(Hold::ALIASED) {
            false => Some(shared),
            true => aliases.iter().copied().find(|&name| !listed(name)),
        };
        if odd.is_empty() {
            let extra = self.extra.of(block, 1).map(|(.., copies)| copies).sum();
            let copies = Copies::one_each(hold).and_more(extra);
            return plain_name.map(|name| (name, copies)).into_iter().collect();
        }
        let named = odd.iter().filter_map(|&(name, copies)| Some((name.or(plain_name)?, copies)));
        named.collect()
    }

    /// The block that the engine holds under this name.
    fn resolve(&self, name: EngineHash, out: &Publisher<'_>) -> Option<BlockRef> {
        if let Some(&block) = self.aliases.get(&name) {
            return Some(block);
        }
        let block = out.tree.find_name(name)?;
        let held = out.tree.held(out.who, block);
        let is_it = held.meets(Hold::EXACT)
            && match self.odd.get(&block) {
                Some(odd) => {
                    odd.iter().any(|&(of, _)| of == Some(name))
                        || !held.meets(Hold::ALIASED) && odd.iter().any(|&(of, _)| of.is_none())
                }
                None => !held.meets(Hold::ALIASED),
            };
        is_it.then_some(block)
    }

    /// A copy more of a block that is held, maybe under another name than before.
    fn add_copy(&mut self, block: BlockRef, name: EngineHash, tier: Tier, out: &mut Publisher<'_>) {
        self.add_copies(block, name, tier, 1, out);
    }

    /// As so many stored events.
    pub(super) fn add_copies(
        &mut self,
        block: BlockRef,
        name: EngineHash,
        tier: Tier,
        more: u16,
        out: &mut Publisher<'_>,
    ) {
        let before = out.tree.held(out.who, block);
        let is_shared = out.tree.name(block) == name && name != EngineHash(0);
        let is_plain_name = match before.meets(Hold::ALIASED) {
            true => self.aliases.get(&name) == Some(&block),
            false => is_shared,
        };
        if !self.odd.contains_key(&block) {
            if is_plain_name && !before.meets(Hold::on(tier)) {
                self.change(block, before, before | Hold::on(tier), out);
                return match more {
                    0 | 1 => {}
                    more => self.add_copies(block, name, tier, more - 1, out),
                };
            }
            if is_plain_name && tier == Tier::Gpu && before.without(Hold::ALIASED) == Hold::GPU {
                return self.extra.add(block, 1, u32::from(more));
            }
            let copies = Copies::one_each(before).and_more(self.extra.take_all(block));
            self.odd.insert(block, vec![(None, copies)]);
        }
        let Some(odd) = self.odd.get_mut(&block) else { return };
        let listed = odd.iter().position(|&(of, _)| of == Some(name));
        let plain = odd.iter().position(|&(of, _)| of.is_none()).filter(|_| is_plain_name);
        let entry = listed.or(plain).unwrap_or_else(|| {
            odd.push((Some(name), Copies::default()));
            odd.len() - 1
        });
        odd[entry].1.add(tier, more);
        if listed.or(plain).is_none() && !is_shared {
            self.aliases.insert(name, block);
        }
        self.change(block, before, before | Hold::on(tier), out);
    }

    /// False where there is no copy on that tier under that name.
    fn remove_copy(&mut self, name: EngineHash, tier: Tier, out: &mut Publisher<'_>) -> bool {
        let Some(block) = self.resolve(name, out) else { return false };
        let before = out.tree.held(out.who, block);
        let Some(odd) = self.odd.get_mut(&block) else {
            if !before.meets(Hold::on(tier)) {
                return false;
            }
            if tier == Tier::Gpu && self.extra.take_end(block, 1).1 {
                return true;
            }
            let mut after = before.without(Hold::on(tier));
            if !after.meets(Hold::EXACT) {
                after = Hold::NONE;
                self.aliases.remove(&name);
            }
            self.change(block, before, after, out);
            return true;
        };
        let listed = odd.iter().position(|&(of, _)| of == Some(name));
        let Some(entry) = listed.or_else(|| odd.iter().position(|&(of, _)| of.is_none())) else {
            return false;
        };
        if !odd[entry].1.remove(tier) {
            return false;
        }
        if !odd[entry].1.any() {
            odd.swap_remove(entry);
            self.aliases.remove(&name);
        }
        let mut after = odd.iter().fold(Hold::NONE, |hold, (_, copies)| hold | copies.hold());
        let was_aliased = before.meets(Hold::ALIASED);
        let mut aliased = was_aliased;
        if let [(of, copies)] = odd[..]
            && copies.are_single()
        {
            // Plain again, maybe under the other name.
            if let Some(name) = of {
                aliased = self.aliases.get(&name) == Some(&block);
            }
            self.odd.remove(&block);
        } else if odd.is_empty() {
            self.odd.remove(&block);
        }
        if aliased && after != Hold::NONE {
            after = after | Hold::ALIASED;
        }
        self.change(block, before, after, out);
        true
    }

    fn change(&mut self, block: BlockRef, before: Hold, after: Hold, out: &Publisher<'_>) {
        if before != after {
            recount(&mut self.held, before, after, 1);
            out.change(block, after);
        }
    }

    /// Bytes allocated.
    pub(super) fn memory_bytes(&self) -> usize {
        heap::map::<EngineHash, BlockRef>(self.aliases.capacity())
            + heap::map::<BlockRef, Odd>(self.odd.capacity())
            + self.odd.values().map(heap::vec).sum::<usize>()
            + self.extra.memory_bytes()
            + heap::vec(&self.keys)
    }

    /// Entries of all tables.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.aliases.len()
            + self.odd.len()
            + usize::from(!self.extra.is_empty())
            + self.held.iter().sum::<u64>() as usize
    }
}

/// Moves blocks between the counts of the tiers.
fn recount(held: &mut [u64; Tier::COUNT], before: Hold, after: Hold, blocks: u32) {
    if let Some(tier) = before.fastest() {
        held[tier.index()] -= u64::from(blocks);
    }
    if let Some(tier) = after.fastest() {
        held[tier.index()] += u64::from(blocks);
    }
}

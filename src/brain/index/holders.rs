//! The shared side: block key -> the endpoints that hold it.

use super::hash::BuildNameHasher;
use super::slots::{SlotSet, slots_in};
use crate::{BlockKey, Slot, Tier};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shards of the map, each behind its own reader-writer lock: enough that a matcher rarely meets
/// a writer, whatever the number of cores.
const SHARDS: usize = 64;

/// Words of endpoints that one pass of a match keeps on the stack: 1,024 endpoints.
const BAND_WORDS: usize = 16;

/// Who holds one block.
#[derive(Debug)]
struct Holding {
    /// By the events, on any tier.
    exact: SlotSet,
    /// Those of `exact` whose fastest tier is below the GPU, by tier; most blocks have none.
    lower: Option<Box<[SlotSet; Tier::COUNT - 1]>>,
    /// By our bookings; never one that is in `exact`, but for the moment in which events confirm it.
    believed: SlotSet,
}

impl Holding {
    const NOBODY: Self = Self { exact: SlotSet::EMPTY, lower: None, believed: SlotSet::EMPTY };

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.believed.is_empty()
    }

    fn heap_bytes(&self) -> usize {
        let lower = self.lower.as_ref().map_or(0, |tiers| {
            std::mem::size_of_val(&**tiers) + tiers.iter().map(SlotSet::heap_bytes).sum::<usize>()
        });
        self.exact.heap_bytes() + self.believed.heap_bytes() + lower
    }

    fn set_tier(&mut self, slot: Slot, to: Option<Tier>) {
        if let Some(lower) = &mut self.lower {
            for tier in lower.iter_mut() {
                tier.remove(slot);
            }
        }
        match to {
            None => self.exact.remove(slot),
            Some(tier) => {
                self.exact.insert(slot);
                if let Some(below) = tier.index().checked_sub(1) {
                    let lower = self.lower.get_or_insert_with(|| {
                        Box::new([SlotSet::EMPTY, SlotSet::EMPTY, SlotSet::EMPTY])
                    });
                    lower[below].insert(slot);
                }
            }
        }
        if self.lower.as_ref().is_some_and(|lower| lower.iter().all(SlotSet::is_empty)) {
            self.lower = None;
        }
    }
}

/// Block key -> who holds it. Holds no key that nobody holds.
///
/// A caller must hold the mutex of the endpoint whose slot it changes, and no shard: each method
/// takes exactly one shard's lock at a time and calls nothing else while it does.
#[derive(Debug)]
pub(super) struct Holders {
    by_key: DashMap<BlockKey, Holding, BuildNameHasher>,
    heap_bytes: AtomicUsize,
}

impl Holders {
    pub(super) fn new() -> Self {
        Self {
            by_key: DashMap::with_hasher_and_shard_amount(BuildNameHasher::default(), SHARDS),
            heap_bytes: AtomicUsize::new(0),
        }
    }

    /// The endpoint holds the block on `to` as its fastest tier, or no more.
    pub(super) fn set_tier(&self, key: BlockKey, slot: Slot, to: Option<Tier>) {
        self.update(key, to.is_some(), |holding| holding.set_tier(slot, to));
    }

    /// The endpoint is believed to hold the block, or no more.
    pub(super) fn set_believed(&self, key: BlockKey, slot: Slot, believed: bool) {
        self.update(key, believed, |holding| {
            if believed { holding.believed.insert(slot) } else { holding.believed.remove(slot) }
        });
    }

    fn update(&self, key: BlockKey, create: bool, change: impl FnOnce(&mut Holding)) {
        let mut entry = match self.by_key.entry(key) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(entry) if create => entry.insert_entry(Holding::NOBODY),
            Entry::Vacant(_) => return,
        };
        let holding = entry.get_mut();
        let before = holding.heap_bytes();
        change(holding);
        let after = holding.heap_bytes();
        if holding.is_empty() {
            entry.remove();
        }
        // Wraps on the way down, which two's complement undoes.
        if before != after {
            self.heap_bytes.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// Whether somebody holds the key.
    pub(super) fn contains(&self, key: BlockKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Number of keys that somebody holds.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Gives memory back where most of it is unused; waits for each shard in turn.
    pub(super) fn give_back(&self) {
        if self.by_key.capacity() / 4 > self.by_key.len() {
            self.by_key.shrink_to_fit();
        }
    }

    /// Bytes allocated: one tag byte a bucket besides the pair, as hashbrown lays it out.
    pub(super) fn memory_bytes(&self) -> usize {
        let bucket = std::mem::size_of::<(BlockKey, Holding)>() + 1;
        self.by_key.capacity() * 8 / 7 * bucket + self.heap_bytes.load(Ordering::Relaxed)
    }

    /// Walks `keys` for slots `0..slots`. Calls `ended(slot, depth, exact)` once for each slot that
    /// holds at least the first block, where its run ends: `exact` if no block of the run was only
    /// believed. Calls `lower(slot, tier below the GPU)` for each block of a run that lies there.
    ///
    /// Allocates nothing. Fleets past [`BAND_WORDS`] words walk the keys once for each band.
    pub(super) fn walk(
        &self,
        keys: &[BlockKey],
        slots: usize,
        mut ended: impl FnMut(usize, u32, bool),
        mut lower: impl FnMut(usize, usize),
    ) {
        let words = slots.div_ceil(64);
        for first in (0..words).step_by(BAND_WORDS) {
            let band = first..words.min(first + BAND_WORDS);
            if band.len() == 1 {
                self.walk_band::<1>(keys, first, &mut ended, &mut lower);
            } else {
                self.walk_band::<BAND_WORDS>(keys, first, &mut ended, &mut lower);
            }
        }
    }

    /// One band of `W` words from word `first` on.
    fn walk_band<const W: usize>(
        &self,
        keys: &[BlockKey],
        first: usize,
        ended: &mut impl FnMut(usize, u32, bool),
        lower: &mut impl FnMut(usize, usize),
    ) {
        let mut running = [u64::MAX; W];
        let mut exact_run = [u64::MAX; W];
        let mut depth = 0u32;
        for key in keys {
            let Some(holding) = self.by_key.get(key) else { break };
            let mut left = 0;
            for w in 0..W {
                let exact = holding.exact.word(first + w);
                let held = exact | holding.believed.word(first + w);
                let out = running[w] & !held;
                if out != 0 && depth > 0 {
                    for slot in slots_in(out, (first + w) * 64) {
                        let bit = 1 << (slot % 64);
                        ended(slot, depth, exact_run[w] & bit != 0);
                    }
                }
                running[w] &= held;
                exact_run[w] &= exact;
                left |= running[w];
            }
            if left == 0 {
                return;
            }
            if let Some(tiers) = &holding.lower {
                for (tier, set) in tiers.iter().enumerate() {
                    for (w, &run) in running.iter().enumerate() {
                        for slot in slots_in(run & set.word(first + w), (first + w) * 64) {
                            lower(slot, tier);
                        }
                    }
                }
            }
            depth += 1;
        }
        if depth > 0 {
            for w in 0..W {
                for slot in slots_in(running[w], (first + w) * 64) {
                    ended(slot, depth, exact_run[w] & (1 << (slot % 64)) != 0);
                }
            }
        }
    }
}

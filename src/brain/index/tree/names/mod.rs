//! An engine's name of a block -> the block: one table for all engines that name alike.
//!
//! Sharded by the name, each shard behind a lock that is held for a few probes. An entry is eight
//! bytes: 32 bits of the hashed name and the block; the block has the rest of the name. A bucket is
//! a cache line of eight entries, which are compared together: a search reads one, and another only
//! where that could not take all that belong there (linear probing by buckets), so a shard may be
//! fifteen sixteenths full.
//!
//! NOTE(perf): the names of a run go in and out shard by shard, because a lock and its release are two
//! operations that let no later load begin early; the lines are asked for before the first of them
//! (stores 30 -> 32, removals 7.8 -> 9.1 M blocks per CPU-s). Tried before: 4,096 shards, each locked
//! for one name at a time (11 to 12 against 12 to 14 M blocks per CPU-s), and entries in the order of
//! their hashes without buckets (as many instructions, more lines touched). Growing costs as much as
//! inserting: by a third, at fifteen sixteenths, 30 M blocks per CPU-s and 9.9 bytes a name on average;
//! by a fifth, at nine tenths, 24 M and 9.4 bytes.

mod shard;

use self::shard::{Bucket, Shard, home};
use super::BlockRef;
use super::prefetch::prefetch;
use crate::EngineHash;
#[cfg(not(shuttle))]
use crate::index::sync::AtomicUsize;
use crate::index::sync::Mutex;
use std::sync::atomic::Ordering;
// Not the model checker's: nothing follows from what they say.
#[cfg(shuttle)]
use std::sync::atomic::AtomicUsize;

/// Names that go in or out together.
const BATCH: usize = 128;
/// So few names go in or out one by one: sorting them by shard costs more than the locks that it saves.
const FEW: usize = SHARDS;
/// Shards; a power of two.
#[cfg(not(shuttle))]
const SHARDS: usize = 32;
#[cfg(shuttle)]
const SHARDS: usize = 2;

#[derive(Debug)]
pub(super) struct Names {
    shards: Box<[Mutex<Shard>]>,
    /// Where each shard's buckets are, for whoever has not its lock: good enough to prefetch.
    hints: Box<[Hint]>,
}

/// Address and number of a shard's home buckets, as they were a moment ago.
#[derive(Debug, Default)]
struct Hint {
    address: AtomicUsize,
    homes: AtomicUsize,
}

impl Hint {
    fn prefetch(&self, tag: u32) {
        let bucket = home(tag, self.homes.load(Ordering::Relaxed));
        let address = self.address.load(Ordering::Relaxed);
        prefetch(address.wrapping_add(bucket * std::mem::size_of::<Bucket>()));
    }

    fn update(&self, shard: &Shard) {
        let address = shard.buckets.as_ptr().addr();
        // Seldom new: the line stays shared by all processors.
        if self.address.load(Ordering::Relaxed) != address {
            self.address.store(address, Ordering::Relaxed);
            self.homes.store(shard.homes, Ordering::Relaxed);
        }
    }
}

/// Where a name goes: its shard, and its tag within it.
#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    tag: u32,
}

/// Names are hashes, but some engines may count: one multiply, folded, spreads them.
fn place(name: u64) -> Place {
    let wide = u128::from(name ^ 0x2D35_8DCC_AA6C_78A5) * 0x8BB8_4B93_962E_ACC9;
    let mixed = (wide as u64) ^ ((wide >> 64) as u64);
    Place { shard: mixed as usize % SHARDS, tag: (mixed >> 32) as u32 }
}

impl Names {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect(),
            hints: (0..SHARDS).map(|_| Hint::default()).collect(),
        }
    }

    /// For a tree whose blocks have no names.
    pub(super) fn none() -> Self {
        Self { shards: Box::default(), hints: Box::default() }
    }

    /// These names will be looked for.
    pub(super) fn prefetch(&self, names: &[EngineHash]) {
        for &EngineHash(name) in names {
            let Place { shard, tag } = place(name);
            if let Some(hint) = self.hints.get(shard) {
                hint.prefetch(tag);
            }
        }
    }

    /// The block of that name among those that may have it: the one that `is_it` affirms.
    pub(super) fn find(&self, name: u64, is_it: impl FnMut(BlockRef) -> bool) -> Option<BlockRef> {
        let Place { shard, tag } = place(name);
        self.shards.get(shard)?.lock().find(tag, is_it)
    }

    /// Names consecutive blocks from `first` on, but for those whose name `is_it` affirms to be
    /// another block's: those are told. Name 0 is none, and refused.
    pub(super) fn insert(
        &self,
        names: &[EngineHash],
        first: BlockRef,
        is_it: impl Fn(EngineHash, BlockRef) -> bool,
        mut refused: impl FnMut(usize),
    ) {
        for (batch, names) in names.chunks(BATCH).enumerate() {
            let reserve = |shard: &mut Shard, names| shard.reserve(names);
            self.by_shard(names, reserve, |shard, tag, i| {
                let position = batch * BATCH + i;
                let block = first.plus(position as u32);
                if names[i].0 == 0 || !shard.insert(tag, block, |other| is_it(names[i], other)) {
                    refused(position);
                }
            });
        }
    }

    /// As [`Self::insert`], for one name that is not 0: false where it is refused.
    pub(super) fn insert_one(
        &self,
        EngineHash(name): EngineHash,
        block: BlockRef,
        is_it: impl FnMut(BlockRef) -> bool,
    ) -> bool {
        let Place { shard: number, tag } = place(name);
        let Some(shard) = self.shards.get(number) else { return false };
        let mut shard = shard.lock();
        shard.reserve(1);
        self.hints[number].update(&shard);
        shard.insert(tag, block, is_it)
    }

    /// Consecutive blocks from `first` on have these names no more; name 0 is none.
    pub(super) fn remove(&self, names: &[EngineHash], first: BlockRef) {
        for (batch, names) in names.chunks(BATCH).enumerate() {
            self.by_shard(
                names,
                |_, _| {},
                |shard, tag, i| {
                    if names[i].0 != 0 {
                        shard.remove(tag, first.plus((batch * BATCH + i) as u32));
                    }
                },
            );
        }
    }

    /// Does something for each of at most [`BATCH`] names in its shard, one shard after another;
    /// before that it tells each shard how many of them are its.
    fn by_shard(
        &self,
        names: &[EngineHash],
        first: impl Fn(&mut Shard, usize),
        mut each: impl FnMut(&mut Shard, u32, usize),
    ) {
        if names.len() <= FEW {
            if names.len() > 1 {
                self.prefetch(names);
            }
            for (i, &EngineHash(name)) in names.iter().enumerate() {
                let Place { shard: number, tag } = place(name);
                if let Some(shard) = self.shards.get(number) {
                    let mut shard = shard.lock();
                    first(&mut shard, 1);
                    each(&mut shard, tag, i);
                    self.hints[number].update(&shard);
                }
            }
            return;
        }
        let mut tags = [0; BATCH];
        // Where each shard's names end in the order, first as numbers, then as places.
        let mut ends = [0u8; SHARDS];
        let mut of = [0u8; BATCH];
        for (i, &EngineHash(name)) in names.iter().enumerate() {
            let Place { shard, tag } = place(name);
            if let Some(hint) = self.hints.get(shard) {
                hint.prefetch(tag);
            }
            (tags[i], of[i]) = (tag, shard as u8);
            ends[shard] += 1;
        }
        let mut begins = [0u8; SHARDS];
        let mut total = 0;
        for (begin, number) in begins.iter_mut().zip(&ends) {
            *begin = total;
            total += number;
        }
        let mut order = [0u8; BATCH];
        for (i, &shard) in of.iter().enumerate().take(names.len()) {
            let place = &mut begins[shard as usize];
            order[*place as usize] = i as u8;
            *place += 1;
        }
        for (number, shard) in self.shards.iter().enumerate() {
            let range = begins[number] as usize - ends[number] as usize..begins[number] as usize;
            if range.is_empty() {
                continue;
            }
            let mut shard = shard.lock();
            first(&mut shard, range.len());
            for &i in &order[range] {
                each(&mut shard, tags[i as usize], i as usize);
            }
            self.hints[number].update(&shard);
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let entries = self.shards.iter().map(|shard| shard.lock().heap_bytes());
        std::mem::size_of_val(&*self.shards)
            + std::mem::size_of_val(&*self.hints)
            + entries.sum::<usize>()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use std::collections::BTreeMap;

    #[test]
    fn names_come_and_go_as_in_a_map() {
        let (names, mut map, mut rng) = (Names::new(), BTreeMap::new(), Rng::new(7));
        for step in 0..4_000u32 {
            // Runs of names, so that shards grow, overflow and shrink.
            let len = 1 + rng.below(300);
            let run: Vec<_> = (0..len).map(|_| EngineHash(rng.below(60_000) << 20)).collect();
            let first = BlockRef::for_test(step * 512);
            let mut refused = vec![];
            if rng.below(10) < if step / 500 % 2 == 0 { 7 } else { 3 } {
                let known = std::cell::RefCell::new(&mut map);
                let is_it = |name, block| known.borrow().get(&name) == Some(&block);
                names.insert(&run[..1], first, is_it, |i| refused.push(i));
                let is_new = !known.borrow().contains_key(&run[0]);
                assert_eq!(refused.is_empty(), is_new && run[0].0 != 0);
                if refused.is_empty() {
                    known.borrow_mut().insert(run[0], first);
                }
                refused.clear();
                // The rest at once, without those that it has twice.
                let mut seen = std::collections::BTreeSet::new();
                let rest: Vec<_> = run[1..].iter().copied().filter(|n| seen.insert(*n)).collect();
                let is_it = |name, block| known.borrow().get(&name) == Some(&block);
                names.insert(&rest, first.plus(1), is_it, |i| refused.push(i));
                for (i, &name) in rest.iter().enumerate() {
                    let is_known = name.0 == 0 || known.borrow().contains_key(&name);
                    assert_eq!(refused.contains(&i), is_known);
                    if !is_known {
                        known.borrow_mut().insert(name, first.plus(1 + i as u32));
                    }
                }
            } else {
                for name in run {
                    if let Some(block) = map.remove(&name) {
                        names.remove(&[name], block);
                    }
                }
            }
            let name = EngineHash(rng.below(60_000) << 20);
            let known = map.get(&name).copied();
            assert_eq!(names.find(name.0, |found| Some(found) == known), known);
        }
        for (name, block) in map {
            names.remove(&[name], block);
        }
        assert_eq!(names.heap_bytes(), Names::new().heap_bytes());
    }
}

//! An engine's name of a block -> the block: one table for all engines that name alike.
//!
//! Sharded by the name, each shard behind a lock that is held for a few probes. An entry is eight
//! bytes: 32 bits of the hashed name and the block; the block has the rest of the name. A bucket is
//! a cache line of eight entries: a search reads one, and another only where that is full (linear
//! probing by buckets), so a shard may be nine tenths full.
//!
//! NOTE(perf): the names of a run go in and out shard by shard, because a lock and its release are two
//! operations that let no later load begin early. Tried before, with figures from a busy machine only:
//! 4,096 shards, each locked for one name at a time (11 to 12 against 12 to 14 M blocks per CPU-s), and
//! entries in the order of their hashes without buckets (as many instructions, more lines touched).

use super::BlockRef;
use super::heap;
use super::set::bits;
use crate::EngineHash;
use crate::index::sync::Mutex;

/// Names that go in or out together.
const BATCH: usize = 128;
/// Shards; a power of two.
#[cfg(not(shuttle))]
const SHARDS: usize = 32;
#[cfg(shuttle)]
const SHARDS: usize = 2;

#[derive(Debug)]
pub(super) struct Names {
    shards: Box<[Mutex<Shard>]>,
}

/// Entries of a bucket.
const WIDTH: usize = 8;

/// Tags and blocks, the empty entries last: blocks count from 1 here, and 0 is none.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Bucket {
    tags: [u32; WIDTH],
    blocks: [u32; WIDTH],
}

impl Bucket {
    fn is_full(&self) -> bool {
        self.blocks[WIDTH - 1] != 0
    }

    fn len(&self) -> usize {
        self.blocks.iter().map(|&block| usize::from(block != 0)).sum()
    }

    /// Bits of the entries with a tag, compared all at once; empty ones may be among them.
    fn tagged(&self, tag: u32) -> u32 {
        (0..WIDTH).fold(0, |bits, at| bits | u32::from(self.tags[at] == tag) << at)
    }

    /// Takes an entry out: the last one takes its place.
    fn take(&mut self, at: usize) -> (u32, u32) {
        let last = self.len() - 1;
        self.tags.swap(at, last);
        self.blocks.swap(at, last);
        (self.tags[last], std::mem::take(&mut self.blocks[last]))
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    /// Home buckets, and past them those that the last ones overflow to.
    buckets: Vec<Bucket>,
    homes: usize,
    len: usize,
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
        Self { shards: (0..SHARDS).map(|_| Mutex::new(Shard::default())).collect() }
    }

    /// For a tree whose blocks have no names.
    pub(super) fn none() -> Self {
        Self { shards: Box::default() }
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
            self.by_shard(names, |shard, tag, i| {
                let position = batch * BATCH + i;
                let block = first.plus(position as u32);
                if names[i].0 == 0 || !shard.insert(tag, block, |other| is_it(names[i], other)) {
                    refused(position);
                }
            });
        }
    }

    /// Consecutive blocks from `first` on have these names no more; name 0 is none.
    pub(super) fn remove(&self, names: &[EngineHash], first: BlockRef) {
        for (batch, names) in names.chunks(BATCH).enumerate() {
            self.by_shard(names, |shard, tag, i| {
                if names[i].0 != 0 {
                    shard.remove(tag, first.plus((batch * BATCH + i) as u32));
                }
            });
        }
    }

    /// Does something for each of at most [`BATCH`] names in its shard, one shard after another.
    fn by_shard(&self, names: &[EngineHash], mut each: impl FnMut(&mut Shard, u32, usize)) {
        if let [EngineHash(name)] = *names {
            let Place { shard, tag } = place(name);
            if let Some(shard) = self.shards.get(shard) {
                each(&mut shard.lock(), tag, 0);
            }
            return;
        }
        let mut tags = [0; BATCH];
        // Where each shard's names end in the order, first as numbers, then as places.
        let mut ends = [0u8; SHARDS];
        let mut of = [0u8; BATCH];
        for (i, &EngineHash(name)) in names.iter().enumerate() {
            let Place { shard, tag } = place(name);
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
            for &i in &order[range] {
                each(&mut shard, tags[i as usize], i as usize);
            }
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let entries = self.shards.iter().map(|shard| heap::vec(&shard.lock().buckets));
        std::mem::size_of_val(&*self.shards) + entries.sum::<usize>()
    }
}

impl Shard {
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.homes as u64) >> 32) as usize
    }

    /// Looks for an entry of that tag which `is_it` affirms: its place, or the first bucket on the
    /// way that has room.
    fn search(
        &self,
        tag: u32,
        mut is_it: impl FnMut(BlockRef) -> bool,
    ) -> Result<(usize, usize), usize> {
        let home = self.home(tag);
        for (number, bucket) in self.buckets.iter().enumerate().skip(home) {
            for at in bits(u64::from(bucket.tagged(tag)), 0) {
                let at = at as usize;
                let block = bucket.blocks[at];
                if block != 0 && is_it(BlockRef(block - 1)) {
                    return Ok((number, at));
                }
            }
            if !bucket.is_full() {
                return Err(number);
            }
        }
        Err(self.buckets.len())
    }

    fn find(&self, tag: u32, is_it: impl FnMut(BlockRef) -> bool) -> Option<BlockRef> {
        let (bucket, at) = self.search(tag, is_it).ok()?;
        Some(BlockRef(self.buckets[bucket].blocks[at] - 1))
    }

    /// False where `is_it` affirms one of the same tag.
    fn insert(&mut self, tag: u32, block: BlockRef, is_it: impl FnMut(BlockRef) -> bool) -> bool {
        if self.len * 10 >= self.homes * WIDTH * 9 {
            self.resize(self.homes + self.homes / 6 + 1);
        }
        let Err(bucket) = self.search(tag, is_it) else { return false };
        if bucket == self.buckets.len() {
            self.buckets.reserve_exact(2);
            self.buckets.push(Bucket::default());
        }
        let bucket = &mut self.buckets[bucket];
        let room = bucket.len();
        (bucket.tags[room], bucket.blocks[room]) = (tag, block.0 + 1);
        self.len += 1;
        true
    }

    fn remove(&mut self, tag: u32, block: BlockRef) {
        let Ok((mut hole, at)) = self.search(tag, |found| found == block) else { return };
        let mut was_full = self.buckets[hole].is_full();
        self.buckets[hole].take(at);
        self.len -= 1;
        // Whoever found a full bucket here, or on the way here, may move up.
        let mut next = hole + 1;
        while was_full && let Some(bucket) = self.buckets.get(next) {
            let moves = (0..bucket.len()).find(|&at| self.home(bucket.tags[at]) <= hole);
            let is_full = bucket.is_full();
            if let Some(at) = moves {
                let (tag, block) = self.buckets[next].take(at);
                let bucket = &mut self.buckets[hole];
                (bucket.tags[WIDTH - 1], bucket.blocks[WIDTH - 1]) = (tag, block);
                (hole, was_full) = (next, is_full);
            } else if !is_full {
                break;
            }
            next += 1;
        }
        if self.len == 0 {
            *self = Self::default();
        } else if self.len * 2 < self.homes * WIDTH && self.homes > 8 {
            self.resize(self.len / 6 + 1);
        }
    }

    fn resize(&mut self, homes: usize) {
        self.homes = homes;
        let mut buckets = Vec::with_capacity(homes + 1);
        buckets.resize(homes, Bucket::default());
        // How many each has so far, close together.
        let mut lens = vec![0u8; homes];
        for bucket in &self.buckets {
            for (&tag, &block) in bucket.tags.iter().zip(&bucket.blocks) {
                if block == 0 {
                    break;
                }
                let mut to = self.home(tag);
                while lens.get(to).is_some_and(|&len| len as usize == WIDTH) {
                    to += 1;
                }
                if to == lens.len() {
                    lens.push(0);
                    buckets.push(Bucket::default());
                }
                let at = lens[to] as usize;
                (buckets[to].tags[at], buckets[to].blocks[at]) = (tag, block);
                lens[to] += 1;
            }
        }
        self.buckets = buckets;
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
        assert_eq!(names.heap_bytes(), std::mem::size_of_val(&*names.shards));
    }
}

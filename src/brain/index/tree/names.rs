//! An engine's name of a block -> the block: one table for all engines that name alike.
//!
//! Sharded by the name, each shard behind a lock that is held for one probe: a writer hardly ever
//! meets another. An entry is eight bytes: 32 bits of the hashed name and the block; the block has
//! the rest of the name. Entries lie in the order of those 32 bits (linear probing that keeps its
//! runs sorted), so that a search for what is not there ends early, growing is one pass in memory
//! order, and a shard can grow by an eighth and stay nine tenths full.

use super::BlockRef;
use super::heap;
use crate::index::sync::Mutex;

/// Shards; a power of two.
#[cfg(not(shuttle))]
const SHARDS: usize = 4096;
#[cfg(shuttle)]
const SHARDS: usize = 2;

#[derive(Debug)]
pub(super) struct Names {
    shards: Box<[Mutex<Shard>]>,
}

/// Entries `tag << 32 | block`, 0 for none: blocks count from 1 here.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard {
    entries: Vec<u64>,
    len: usize,
    /// Home slots; entries past the last home overflow to the end of the vector.
    homes: usize,
}

/// Where a name goes: its shard, and its tag within it.
#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    tag: u64,
}

/// Names are hashes, but some engines may count: one multiply, folded, spreads them.
fn place(name: u64) -> Place {
    let wide = u128::from(name ^ 0x2D35_8DCC_AA6C_78A5) * 0x8BB8_4B93_962E_ACC9;
    let mixed = (wide as u64) ^ ((wide >> 64) as u64);
    Place { shard: mixed as usize % SHARDS, tag: mixed >> 32 }
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

    /// Names the block, unless `is_it` affirms that another has the name; that one then.
    pub(super) fn insert(
        &self,
        name: u64,
        block: BlockRef,
        is_it: impl FnMut(BlockRef) -> bool,
    ) -> Result<(), BlockRef> {
        let Place { shard, tag } = place(name);
        self.shards[shard].lock().insert(tag, block, is_it)
    }

    /// The block has that name no more.
    pub(super) fn remove(&self, name: u64, block: BlockRef) {
        let Place { shard, tag } = place(name);
        self.shards[shard].lock().remove(tag, block);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let entries = self.shards.iter().map(|shard| heap::vec(&shard.lock().entries));
        std::mem::size_of_val(&*self.shards) + entries.sum::<usize>()
    }
}

impl Shard {
    fn home(&self, tag: u64) -> usize {
        ((tag * self.homes as u64) >> 32) as usize
    }

    fn find(&self, tag: u64, mut is_it: impl FnMut(BlockRef) -> bool) -> Option<BlockRef> {
        let from = self.entries.get(self.home(tag)..)?;
        for &entry in from {
            if entry == 0 || entry >> 32 > tag {
                return None;
            }
            if entry >> 32 == tag {
                let block = BlockRef(entry as u32 - 1);
                if is_it(block) {
                    return Some(block);
                }
            }
        }
        None
    }

    fn insert(
        &mut self,
        tag: u64,
        block: BlockRef,
        mut is_it: impl FnMut(BlockRef) -> bool,
    ) -> Result<(), BlockRef> {
        if self.len * 10 >= self.homes * 9 {
            self.resize(self.homes + self.homes / 8 + 8);
        }
        let mut at = self.home(tag);
        while let Some(&entry) = self.entries.get(at)
            && entry != 0
            && entry >> 32 <= tag
        {
            if entry >> 32 == tag && is_it(BlockRef(entry as u32 - 1)) {
                return Err(BlockRef(entry as u32 - 1));
            }
            at += 1;
        }
        let mut carried = tag << 32 | u64::from(block.0 + 1);
        for entry in self.entries.get_mut(at..).unwrap_or_default() {
            std::mem::swap(entry, &mut carried);
            if carried == 0 {
                break;
            }
        }
        if carried != 0 {
            self.entries.reserve_exact(4);
            self.entries.push(carried);
        }
        self.len += 1;
        Ok(())
    }

    fn remove(&mut self, tag: u64, block: BlockRef) {
        let wanted = tag << 32 | u64::from(block.0 + 1);
        let mut at = self.home(tag);
        loop {
            match self.entries.get(at) {
                Some(&entry) if entry == wanted => break,
                Some(&entry) if entry != 0 && entry >> 32 <= tag => at += 1,
                _ => return,
            }
        }
        // Those behind it that are not at home move up.
        while let Some(&next) = self.entries.get(at + 1)
            && next != 0
            && self.home(next >> 32) <= at
        {
            self.entries[at] = next;
            at += 1;
        }
        self.entries[at] = 0;
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        } else if self.len * 2 < self.homes && self.homes > 64 {
            self.resize(self.len + self.len / 4);
        }
    }

    fn resize(&mut self, homes: usize) {
        self.homes = homes;
        // A few past the last home, where the overflow usually ends.
        let mut entries = Vec::with_capacity(homes + 4);
        entries.resize(homes, 0);
        let mut next = 0;
        for &entry in self.entries.iter().filter(|&&entry| entry != 0) {
            // In order already: each goes to its home, or behind the one before it.
            let at = self.home(entry >> 32).max(next);
            if at < entries.len() {
                entries[at] = entry;
            } else {
                entries.push(entry);
            }
            next = at + 1;
        }
        self.entries = entries;
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
        for step in 0..400_000u32 {
            // Few shards, so that they grow, overflow and shrink.
            let name = rng.below(60_000) << 20;
            let growing = step / 50_000 % 2 == 0;
            if rng.below(10) < if growing { 7 } else { 3 } {
                let block = BlockRef(step);
                let known = map.get(&name).copied();
                let inserted = names.insert(name, block, |found| Some(found) == known);
                assert_eq!(inserted, known.map_or(Ok(()), Err));
                map.entry(name).or_insert(block);
            } else if let Some(block) = map.remove(&name) {
                names.remove(name, block);
            }
            let name = rng.below(60_000) << 20;
            let known = map.get(&name).copied();
            assert_eq!(names.find(name, |found| Some(found) == known), known);
        }
        for (name, block) in map {
            names.remove(name, block);
        }
        assert_eq!(names.heap_bytes(), std::mem::size_of_val(&*names.shards));
    }
}

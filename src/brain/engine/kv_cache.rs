//! The KV cache: fixed blocks, shared by reference counting, found by content.
//!
//! vLLM's rules. A block is blank (nobody references it, nothing to hit), referenced, or evictable
//! (unreferenced, still hittable). Blank blocks are spent first and last-released first; evictable
//! ones in the order of their release. Two requests that compute the same content at the same time
//! leave two copies: neither is folded into the other, because block tables never change under a
//! running request.

use super::BlockIdentity;
use super::lru::LruList;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Position of a block in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockIndex(u32);

impl BlockIndex {
    fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug, Clone)]
struct Block<K> {
    references: u32,
    /// What it can be found by, once computed.
    key: Option<K>,
    /// Ring of the copies of one key.
    next_copy: BlockIndex,
    previous_copy: BlockIndex,
}

#[derive(Debug, Clone)]
pub(super) struct KvCache<K> {
    blocks: Vec<Block<K>>,
    /// The copy that is hit. Never iterated.
    by_key: HashMap<K, BlockIndex, BuildHasherDefault<KeyHasher>>,
    blank: Vec<BlockIndex>,
    evictable: LruList,
}

impl<K: BlockIdentity> KvCache<K> {
    pub(super) fn new(blocks: u32) -> Self {
        let block = |index| Block {
            references: 0,
            key: None,
            next_copy: BlockIndex(index),
            previous_copy: BlockIndex(index),
        };
        Self {
            blocks: (0..blocks).map(block).collect(),
            by_key: HashMap::default(),
            blank: (0..blocks).rev().map(BlockIndex).collect(),
            evictable: LruList::new(blocks),
        }
    }

    pub(super) fn total_blocks(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Blocks that an allocation can have.
    pub(super) fn free_blocks(&self) -> u32 {
        self.blank.len() as u32 + self.evictable.len()
    }

    /// A computed copy of the block, if there is one.
    pub(super) fn find(&self, key: &K) -> Option<BlockIndex> {
        self.by_key.get(key).copied()
    }

    /// Whether nobody references the block, so that [`share`](Self::share) makes one less free.
    pub(super) fn is_free(&self, block: BlockIndex) -> bool {
        self.blocks[block.index()].references == 0
    }

    /// Whether the block can be found.
    pub(super) fn is_published(&self, block: BlockIndex) -> bool {
        self.blocks[block.index()].key.is_some()
    }

    /// One more reference to a block found.
    pub(super) fn share(&mut self, index: BlockIndex) {
        let block = &mut self.blocks[index.index()];
        if block.references == 0 {
            self.evictable.remove(index.0);
        }
        block.references += 1;
    }

    /// A block with one reference and no content; `None` if all are referenced. Says which block
    /// was evicted for it.
    pub(super) fn allocate(&mut self) -> Option<(BlockIndex, Option<Evicted<K>>)> {
        let (index, evicted) = match self.blank.pop() {
            Some(index) => (index, None),
            None => {
                let index = BlockIndex(self.evictable.pop()?);
                (index, self.unpublish(index))
            }
        };
        self.blocks[index.index()].references = 1;
        Some((index, evicted))
    }

    /// Makes a referenced block hittable under `key`.
    pub(super) fn publish(&mut self, index: BlockIndex, key: K) {
        self.blocks[index.index()].key = Some(key);
        let first = *self.by_key.entry(key).or_insert(index);
        if first != index {
            let last = self.blocks[first.index()].previous_copy;
            self.link(last, index);
            self.link(index, first);
        }
    }

    /// One reference less. The last one leaves the block evictable, or blank where it was never
    /// published.
    pub(super) fn release(&mut self, index: BlockIndex) {
        let block = &mut self.blocks[index.index()];
        block.references -= 1;
        if block.references == 0 {
            if block.key.is_some() {
                self.evictable.push(index.0);
            } else {
                self.blank.push(index);
            }
        }
    }

    /// Forgets all content; does nothing and says `false` while a block is referenced.
    pub(super) fn clear(&mut self) -> bool {
        if self.free_blocks() != self.total_blocks() {
            return false;
        }
        for index in self.evictable.drain() {
            let index = BlockIndex(index);
            let block = &mut self.blocks[index.index()];
            block.key = None;
            block.next_copy = index;
            block.previous_copy = index;
            self.blank.push(index);
        }
        self.by_key.clear();
        true
    }

    fn unpublish(&mut self, index: BlockIndex) -> Option<Evicted<K>> {
        let block = &mut self.blocks[index.index()];
        let key = block.key.take()?;
        let (previous, next) = (block.previous_copy, block.next_copy);
        let last_copy = next == index;
        if last_copy {
            self.by_key.remove(&key);
        } else {
            self.link(previous, next);
            self.link(index, index);
            if let Some(first) = self.by_key.get_mut(&key).filter(|first| **first == index) {
                *first = next;
            }
        }
        Some(Evicted { key, last_copy })
    }

    fn link(&mut self, previous: BlockIndex, next: BlockIndex) {
        self.blocks[previous.index()].next_copy = next;
        self.blocks[next.index()].previous_copy = previous;
    }

    #[cfg(test)]
    pub(super) fn references(&self) -> u64 {
        self.blocks.iter().map(|block| u64::from(block.references)).sum()
    }

    #[cfg(test)]
    pub(super) fn used_blocks(&self) -> u32 {
        self.blocks.iter().filter(|block| block.references > 0).count() as u32
    }
}

/// A block that made room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Evicted<K> {
    pub(super) key: K,
    /// Whether the cache has no other copy.
    pub(super) last_copy: bool,
}

/// Identities are hashes already, or small integers in tests and traces: one multiplication by the
/// golden ratio spreads both, and a rotation brings the spread to the bits that the table uses.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

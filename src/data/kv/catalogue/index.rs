//! From a key to its slot: a table of chains through the entries.

use super::{Catalogue, Slot};
use crate::kv::BlockKey;

impl<E> Catalogue<'_, E> {
    fn bucket(&self, key: BlockKey) -> usize {
        key.spread() as usize & (self.buckets.len() - 1)
    }

    /// The slot that is ready with `key`, or being filled in with it.
    pub(super) fn indexed(&self, key: BlockKey) -> Option<u32> {
        let mut at = self.buckets[self.bucket(key)];
        while let Some(slot) = at.checked_sub(1) {
            let entry = &self.slots[slot as usize];
            if entry.block.key == key {
                return Some(slot);
            }
            at = entry.next_in_bucket;
        }
        None
    }

    pub(super) fn index(&mut self, slot: u32) {
        let Slot { block, .. } = self.slots[slot as usize];
        let bucket = self.bucket(block.key);
        self.slots[slot as usize].next_in_bucket = self.buckets[bucket];
        self.buckets[bucket] = slot + 1;
    }

    pub(super) fn unindex(&mut self, slot: u32) {
        let Slot { block, next_in_bucket, .. } = self.slots[slot as usize];
        let bucket = self.bucket(block.key);
        let mut at = self.buckets[bucket];
        if at == slot + 1 {
            self.buckets[bucket] = next_in_bucket;
        }
        while let Some(before) = at.checked_sub(1) {
            at = self.slots[before as usize].next_in_bucket;
            if at == slot + 1 {
                self.slots[before as usize].next_in_bucket = next_in_bucket;
            }
        }
        self.slots[slot as usize].block.key = BlockKey::NONE;
    }
}

//! Host memory behind the KV cache: the blocks evicted from it, least recently used first to go.

use super::BlockIdentity;
use super::kv_cache::KeyHasher;
use super::lru::LruList;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// Inclusive: a block that is copied back to the KV cache stays, as the most recently used.
#[derive(Debug, Clone)]
pub(super) struct HostTier<K> {
    /// Never iterated.
    by_key: HashMap<K, u32, BuildHasherDefault<KeyHasher>>,
    keys: Vec<K>,
    order: LruList,
    capacity: u32,
}

/// What inserting a block did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inserted<K> {
    /// It was there.
    Refreshed,
    /// There was room.
    Added,
    /// Another one made room.
    Replaced(K),
}

impl<K: BlockIdentity> HostTier<K> {
    /// A tier of at least one block.
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            by_key: HashMap::default(),
            keys: Vec::new(),
            order: LruList::new(capacity),
            capacity,
        }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.by_key.contains_key(key)
    }

    /// Makes a block that is here the most recently used.
    pub(super) fn touch(&mut self, key: &K) {
        if let Some(&slot) = self.by_key.get(key) {
            self.order.remove(slot);
            self.order.push(slot);
        }
    }

    pub(super) fn insert(&mut self, key: K) -> Inserted<K> {
        if self.contains(&key) {
            self.touch(&key);
            return Inserted::Refreshed;
        }
        let (slot, replaced) = if self.keys.len() < self.capacity as usize {
            self.keys.push(key);
            (self.keys.len() as u32 - 1, None)
        } else {
            let Some(slot) = self.order.pop() else { return Inserted::Refreshed };
            (slot, Some(std::mem::replace(&mut self.keys[slot as usize], key)))
        };
        self.order.push(slot);
        self.by_key.insert(key, slot);
        match replaced {
            None => Inserted::Added,
            Some(old) => {
                self.by_key.remove(&old);
                Inserted::Replaced(old)
            }
        }
    }

    pub(super) fn clear(&mut self) {
        self.order.drain().for_each(drop);
        self.keys.clear();
        self.by_key.clear();
    }
}

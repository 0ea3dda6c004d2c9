//! The blocks of a request, over both tiers: found, reserved, grown, published, released. Every
//! change of residency is noted here.

use super::host_tier::{HostTier, Inserted};
use super::kv_cache::{BlockIndex, KvCache};
use super::sequence::Sequence;
use super::shared_cache::SharedCache;
use super::{BlockIdentity, EngineConfig, KvChange};

/// Room for the blocks that one prompt evicts.
const A_PROMPTS_BLOCKS: usize = 32;

#[derive(Debug, Clone)]
pub(super) struct Memory<K> {
    cache: KvCache<K>,
    host: Option<HostTier<K>>,
    shared: Option<SharedCache<K>>,
    block_size: u32,
    changes: Vec<KvChange<K>>,
    /// Scratch of `reserve`: where each block of the hit lies; `None` is the host tier or the shared
    /// cache.
    found: Vec<Option<BlockIndex>>,
}

/// What an admission did not have to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) cached_tokens: u32,
    pub(super) host_tokens: u32,
}

impl<K: BlockIdentity> Memory<K> {
    pub(super) fn new(config: &EngineConfig) -> Self {
        Self {
            cache: KvCache::new(config.kv_blocks),
            host: (config.host_blocks > 0).then(|| HostTier::new(config.host_blocks)),
            shared: None,
            block_size: config.block_size,
            changes: Vec::new(),
            found: Vec::new(),
        }
    }

    pub(super) fn share(&mut self, cache: SharedCache<K>) {
        self.shared = Some(cache);
    }

    /// One that holds nothing, with the same neighbours.
    pub(super) fn renewed(&self, config: &EngineConfig) -> Self {
        Self { shared: self.shared.clone(), ..Self::new(config) }
    }

    pub(super) fn total_blocks(&self) -> u32 {
        self.cache.total_blocks()
    }

    pub(super) fn free_blocks(&self) -> u32 {
        self.cache.free_blocks()
    }

    /// Whether others change what a request would find.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Whether residency changed since the last report.
    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    pub(super) fn swap_changes(&mut self, with: &mut Vec<KvChange<K>>) {
        std::mem::swap(&mut self.changes, with);
    }

    /// Gives a request that holds nothing the blocks of all its tokens, sharing what is resident;
    /// `None`, and nothing happens, where they are not to be had.
    pub(super) fn reserve(&mut self, sequence: &mut Sequence<K>) -> Option<Hit> {
        // The last token is always computed: its logits are what the first output is sampled from.
        let most = (sequence.tokens - 1) / self.block_size;
        let most = most.min(sequence.cacheable_blocks) as usize;
        self.found.clear();
        let (mut cached, mut evictable) = (0, 0);
        for key in &sequence.keys[..most] {
            let found = self.cache.find(key);
            if let Some(block) = found {
                cached += 1;
                evictable += u32::from(self.cache.is_free(block));
            } else if !self.host.as_ref().is_some_and(|host| host.contains(key))
                && !self.shared.as_ref().is_some_and(|shared| shared.contains(key))
            {
                break;
            }
            self.found.push(found);
        }
        let needed = sequence.tokens.div_ceil(self.block_size);
        if needed - cached > self.cache.free_blocks() - evictable {
            return None;
        }
        // First hold what was found, so that making room for the rest cannot evict it.
        for (found, key) in self.found.iter().zip(&sequence.keys) {
            match (found, &mut self.host) {
                (Some(block), _) => self.cache.share(*block),
                (None, Some(host)) => host.touch(key),
                (None, None) => {}
            }
        }
        let hit_blocks = self.found.len() as u32;
        sequence.blocks.reserve(needed as usize);
        for position in 0..needed as usize {
            let shared = self.found.get(position).copied().flatten();
            let block = match shared {
                Some(block) => block,
                None => self.allocate()?,
            };
            sequence.blocks.push(block);
        }
        sequence.computed = hit_blocks * self.block_size;
        Some(Hit {
            cached_tokens: cached * self.block_size,
            host_tokens: (hit_blocks - cached) * self.block_size,
        })
    }

    /// Whether the request has, or got, blocks for its first `tokens` tokens.
    pub(super) fn grow(&mut self, sequence: &mut Sequence<K>, tokens: u32) -> bool {
        // No division: this is asked of everything that runs, each step.
        while sequence.blocks.len() as u64 * u64::from(self.block_size) < u64::from(tokens) {
            match self.allocate() {
                Some(block) => sequence.blocks.push(block),
                None => return false,
            }
        }
        true
    }

    /// Makes the full blocks that are computed hittable.
    pub(super) fn publish(&mut self, sequence: &mut Sequence<K>) {
        // Nearly always: who decodes has no block to add for many steps, or may add none.
        if sequence.published == sequence.cacheable_blocks {
            return;
        }
        let full = (sequence.computed / self.block_size).min(sequence.cacheable_blocks);
        if full <= sequence.published {
            return;
        }
        let mut run = sequence.published;
        for position in sequence.published..full {
            let block = sequence.blocks[position as usize];
            if self.cache.is_published(block) {
                self.note_stored(sequence, run, position);
                run = position + 1;
            } else {
                self.cache.publish(block, sequence.keys[position as usize]);
            }
        }
        self.note_stored(sequence, run, full);
        sequence.published = full;
    }

    /// Takes all blocks of a request, its tail first, so that of one prefix the head stays longest.
    pub(super) fn release(&mut self, sequence: &mut Sequence<K>) {
        while let Some(block) = sequence.blocks.pop() {
            self.cache.release(block);
        }
        sequence.computed = 0;
        sequence.published = 0;
    }

    /// Forgets all content; does nothing and says `false` while a block is referenced.
    pub(super) fn clear(&mut self) -> bool {
        if !self.cache.clear() {
            return false;
        }
        if let Some(host) = &mut self.host {
            host.clear();
        }
        self.changes.push(KvChange::Cleared);
        true
    }

    fn allocate(&mut self) -> Option<BlockIndex> {
        let (block, evicted) = self.cache.allocate()?;
        if let Some(evicted) = evicted {
            match self.changes.last_mut() {
                Some(KvChange::Removed(keys)) => keys.push(evicted.key),
                _ => {
                    // Most are evicted for a whole prompt.
                    let mut keys = Vec::with_capacity(A_PROMPTS_BLOCKS);
                    keys.push(evicted.key);
                    self.changes.push(KvChange::Removed(keys));
                }
            }
            if let Some(host) = self.host.as_mut().filter(|_| evicted.last_copy) {
                match host.insert(evicted.key) {
                    Inserted::Refreshed => {}
                    Inserted::Added => self.changes.push(KvChange::HostStored(evicted.key)),
                    Inserted::Replaced(old) => {
                        self.changes.push(KvChange::HostRemoved(old));
                        self.changes.push(KvChange::HostStored(evicted.key));
                    }
                }
            }
        }
        Some(block)
    }

    fn note_stored(&mut self, sequence: &Sequence<K>, from: u32, to: u32) {
        let Some(keys) = sequence.keys.get(from as usize..to as usize).filter(|k| !k.is_empty())
        else {
            return;
        };
        if let Some(shared) = &self.shared {
            shared.extend(keys);
        }
        self.changes.push(KvChange::Stored {
            request: sequence.id,
            first_block: from,
            parent: from.checked_sub(1).map(|parent| sequence.keys[parent as usize]),
            keys: keys.to_vec(),
        });
    }

    #[cfg(test)]
    pub(super) fn cache(&self) -> &KvCache<K> {
        &self.cache
    }
}

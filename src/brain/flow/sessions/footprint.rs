//! The distinct blocks of a home's residents.

use super::SessionId;
use crate::BlockKey;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Residents of one endpoint, and how many of them have each block.
#[derive(Debug, Default)]
pub(super) struct Footprint {
    /// Never iterated.
    counts: HashMap<BlockKey, u32, BuildHasherDefault<KeyBits>>,
    /// As they came.
    residents: Vec<SessionId>,
}

impl Footprint {
    pub(super) fn residents(&self) -> &[SessionId] {
        &self.residents
    }

    /// Distinct blocks.
    pub(super) fn blocks(&self) -> usize {
        self.counts.len()
    }

    /// Blocks that only a newcomer would have.
    pub(super) fn marginal(&self, keys: &[BlockKey]) -> usize {
        keys.iter().filter(|key| !self.counts.contains_key(key)).count()
    }

    /// Whether there are at most so many of them: tells as soon as it can.
    pub(super) fn marginal_is_within(&self, keys: &[BlockKey], most: usize) -> bool {
        let mut new = keys.iter().filter(|key| !self.counts.contains_key(key));
        keys.len() <= most || new.nth(most).is_none()
    }

    pub(super) fn enter(&mut self, id: SessionId, keys: &[BlockKey]) {
        self.residents.push(id);
        self.add(keys);
    }

    pub(super) fn leave(&mut self, id: SessionId, keys: &[BlockKey]) {
        self.residents.retain(|other| *other != id);
        self.take(keys);
    }

    /// A resident has other blocks now. What both prompts begin with is not touched.
    pub(super) fn exchange(&mut self, old: &[BlockKey], new: &[BlockKey]) {
        let same = old.iter().zip(new).take_while(|(one, other)| one == other).count();
        self.add(&new[same..]);
        self.take(&old[same..]);
    }

    /// All leave; tells who they were.
    pub(super) fn empty(&mut self) -> Vec<SessionId> {
        self.counts.clear();
        std::mem::take(&mut self.residents)
    }

    fn add(&mut self, keys: &[BlockKey]) {
        for key in keys {
            *self.counts.entry(*key).or_default() += 1;
        }
    }

    fn take(&mut self, keys: &[BlockKey]) {
        for key in keys {
            if let Some(count) = self.counts.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(key);
                }
            }
        }
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
struct KeyBits(u64);

impl Hasher for KeyBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

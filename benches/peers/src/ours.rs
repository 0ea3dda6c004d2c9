//! Our side: the one file that knows the index's interface.

use llmd_brain::prompt::{Chain, Extras};
pub use llmd_brain::{BlockKey, EngineHash};
use rustc_hash::FxHashMap;
use std::sync::RwLock;

const BLOCK_TOKENS: u32 = 16;

/// The index, with endpoints in slots from 0.
///
/// A stand-in: a map from each key to its holders.
pub struct Ours {
    words: usize,
    nobody: Vec<u64>,
    held: RwLock<Held>,
}

#[derive(Default)]
struct Held {
    holders: FxHashMap<BlockKey, Vec<u64>>,
    keys: FxHashMap<(u32, EngineHash), BlockKey>,
}

/// The answer of a lookup, kept between lookups.
#[derive(Default)]
pub struct Answer {
    depths: Vec<u32>,
    holding: Vec<u64>,
}

impl Answer {
    /// Blocks from the first that each slot holds.
    pub fn depths(&self) -> &[u32] {
        &self.depths
    }

    fn end(&mut self, word: usize, mut left: u64, depth: usize) {
        while left != 0 {
            self.depths[word * 64 + left.trailing_zeros() as usize] = depth as u32;
            left &= left - 1;
        }
    }

    /// For comparisons. The scratch may have more slots than there are endpoints; nobody holds
    /// anything there.
    pub fn copy_to(&self, depths: &mut [u32]) {
        let (held, beyond) = self.depths().split_at(depths.len().min(self.depths().len()));
        assert!(beyond.iter().all(|&depth| depth == 0));
        depths[..held.len()].copy_from_slice(held);
    }
}

impl Ours {
    pub fn new(endpoints: u32) -> Self {
        let words = endpoints.div_ceil(64) as usize;
        Self { words, nobody: vec![0; words], held: RwLock::default() }
    }

    pub fn store(
        &self,
        endpoint: u32,
        _parent: Option<EngineHash>,
        names: &[EngineHash],
        keys: &[BlockKey],
    ) {
        let mut held = self.held.write().unwrap();
        for (&name, &key) in names.iter().zip(keys) {
            let holders = held.holders.entry(key).or_insert_with(|| vec![0; self.words]);
            holders[endpoint as usize / 64] |= 1 << (endpoint % 64);
            held.keys.insert((endpoint, name), key);
        }
    }

    pub fn remove(&self, endpoint: u32, names: &[EngineHash]) {
        let mut held = self.held.write().unwrap();
        for &name in names {
            let Some(key) = held.keys.remove(&(endpoint, name)) else { continue };
            if let Some(holders) = held.holders.get_mut(&key) {
                holders[endpoint as usize / 64] &= !(1 << (endpoint % 64));
                if holders.iter().all(|&word| word == 0) {
                    held.holders.remove(&key);
                }
            }
        }
    }

    pub fn lookup(&self, keys: &[BlockKey], answer: &mut Answer) {
        let held = self.held.read().unwrap();
        answer.depths.clear();
        answer.depths.resize(self.words * 64, 0);
        answer.holding.clear();
        answer.holding.resize(self.words, u64::MAX);
        for (depth, key) in keys.iter().enumerate() {
            let holders = held.holders.get(key).unwrap_or(&self.nobody);
            for (word, holders) in holders.iter().enumerate() {
                let left = answer.holding[word] & !holders;
                answer.holding[word] &= holders;
                answer.end(word, left, depth);
            }
            if answer.holding.iter().all(|&word| word == 0) {
                return;
            }
        }
        for word in 0..self.words {
            answer.end(word, answer.holding[word], keys.len());
        }
    }

    pub fn memory_bytes(&self) -> usize {
        let held = self.held.read().unwrap();
        held.holders.capacity() * 32
            + held.holders.len() * self.words * 8
            + held.keys.capacity() * 32
    }
}

/// Keys of token ids, as the router computes them.
pub struct Hashing(Chain);

impl Hashing {
    pub fn new() -> Self {
        Self(Chain::new("model", None, BLOCK_TOKENS).unwrap())
    }

    pub fn keys(&self, tokens: &[u32], keys: &mut Vec<BlockKey>) {
        self.0.block_keys(tokens, Extras::default(), keys);
    }
}

/// Our keys of blocks that are given by their local hashes: the chain alone, from a root of its
/// own.
pub fn chain(locals: &[u64], keys: &mut Vec<BlockKey>) {
    const ROOT: u64 = 1;
    let mut parent = ROOT;
    keys.clear();
    keys.extend(locals.iter().map(|&local| {
        parent = link(parent, local);
        BlockKey(parent)
    }));
}

/// `prompt::mix::link`, which the brain keeps to itself.
fn link(parent: u64, child: u64) -> u64 {
    let product =
        u128::from(parent ^ 0x6A09_E667_F3BC_C908) * u128::from(child ^ 0xBB67_AE85_84CA_A73B);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn a_link_here_is_a_link_there() {
        let tokens: Vec<u32> = (0..BLOCK_TOKENS).collect();
        let theirs = Hashing::new().0.next(BlockKey(5), &tokens, None);
        assert_eq!(theirs.0, link(5, xxh3_64(bytemuck::cast_slice(&tokens))));
    }
}

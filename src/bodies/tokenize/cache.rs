//! Tokens of texts that were seen before, bounded by bytes.
//!
//! A text is kept in the pieces between its cuts (see [`boundaries`](super::boundaries)), each of which has the
//! same tokens wherever it stands: a conversation that grows, another one with the same system prompt, and the
//! same document elsewhere all find their pieces. A piece is found by its hash and compared as text, so that
//! what is returned is exact whoever chose the text.
//!
//! What goes first is what was not asked for since it was last passed over: a queue with a second chance, whose
//! hits write one flag (FIFO-Reinsertion, of the family of SIEVE, Zhang et al., NSDI '24).

use parking_lot::RwLock;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const SHARDS: usize = 8;
/// What a piece costs besides its text and its tokens: the entry, its place in the map and in the queue.
const OVERHEAD_BYTES: usize = 128;

/// Pieces of text and their tokens, from many threads at once.
pub(super) struct PieceCache {
    shards: [RwLock<Shard>; SHARDS],
    shard_bytes: usize,
    /// Nobody outside can choose texts whose hashes meet.
    seed: u64,
}

#[derive(Default)]
struct Shard {
    pieces: HashMap<u64, Arc<Piece>, BuildHasherDefault<AsItIs>>,
    queue: VecDeque<u64>,
    bytes: usize,
}

struct Piece {
    text: Box<str>,
    tokens: Box<[u32]>,
    is_used: AtomicBool,
}

impl Piece {
    fn bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.tokens) + OVERHEAD_BYTES
    }
}

impl PieceCache {
    /// A cache of so many bytes in all; 0 keeps nothing.
    pub(super) fn new(bytes: usize, seed: u64) -> Self {
        Self { shards: Default::default(), shard_bytes: bytes / SHARDS, seed }
    }

    /// Appends the tokens of a piece, where they are known.
    pub(super) fn append(&self, text: &str, out: &mut Vec<u32>) -> bool {
        let hash = self.hash(text);
        let Some(piece) = self.shard(hash).read().pieces.get(&hash).map(Arc::clone) else {
            return false;
        };
        if *piece.text != *text {
            return false;
        }
        if !piece.is_used.load(Relaxed) {
            piece.is_used.store(true, Relaxed);
        }
        out.extend_from_slice(&piece.tokens);
        true
    }

    /// Whether the tokens of a piece are known.
    pub(super) fn has(&self, text: &str) -> bool {
        let hash = self.hash(text);
        self.shard(hash).read().pieces.get(&hash).is_some_and(|piece| *piece.text == *text)
    }

    /// Keeps the tokens of a piece, unless they alone would fill a shard.
    pub(super) fn insert(&self, text: &str, tokens: &[u32]) {
        let piece =
            Piece { text: text.into(), tokens: tokens.into(), is_used: AtomicBool::new(false) };
        let bytes = piece.bytes();
        if bytes > self.shard_bytes {
            return;
        }
        let hash = self.hash(text);
        let mut shard = self.shard(hash).write();
        match shard.pieces.insert(hash, Arc::new(piece)) {
            // It has its place in the queue.
            Some(before) => shard.bytes -= before.bytes(),
            None => shard.queue.push_back(hash),
        }
        shard.bytes += bytes;
        while shard.bytes > self.shard_bytes {
            shard.evict();
        }
    }

    /// Bytes that are in use.
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().bytes).sum()
    }

    fn hash(&self, text: &str) -> u64 {
        xxh3_64_with_seed(text.as_bytes(), self.seed)
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // The map uses the low bits.
        &self.shards[(hash >> 61) as usize % SHARDS]
    }
}

impl Shard {
    fn evict(&mut self) {
        let Some(hash) = self.queue.pop_front() else { return };
        let Some(piece) = self.pieces.get(&hash) else { return };
        if piece.is_used.swap(false, Relaxed) {
            self.queue.push_back(hash);
        } else {
            self.bytes -= piece.bytes();
            self.pieces.remove(&hash);
        }
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_asked_for_stays_and_the_bytes_are_bounded() {
        let cache = PieceCache::new(SHARDS * 4_096, 7);
        for number in 0..2_000u32 {
            cache.insert(&format!("piece {number}"), &[number]);
            let mut out = Vec::new();
            assert!(cache.append("piece 0", &mut out), "after {number}");
            assert_eq!(out, [0]);
            assert!(cache.bytes() <= SHARDS * 4_096);
        }
        assert!(!cache.has("piece 1"));
        cache.insert(&"x".repeat(5_000), &[1]);
        assert!(!cache.has(&"x".repeat(5_000)));
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_was_put_last(
            puts in proptest::collection::vec(("[ab]{0,3}", proptest::collection::vec(any::<u32>(), 0..4)), 0..40),
        ) {
            let cache = PieceCache::new(SHARDS * 600, 1);
            let mut all: HashMap<String, Vec<u32>> = HashMap::new();
            for (text, tokens) in puts {
                cache.insert(&text, &tokens);
                all.insert(text, tokens);
                for (text, tokens) in &all {
                    let mut out = vec![9];
                    if cache.append(text, &mut out) {
                        prop_assert_eq!(&out[1..], tokens.as_slice());
                    } else {
                        prop_assert_eq!(out.len(), 1);
                    }
                }
            }
        }
    }
}

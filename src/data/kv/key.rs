//! Names of blocks: everything that their bytes depend on, folded into sixteen bytes.

use bytemuck::{Pod, Zeroable};
use sha2::{Digest, Sha256};

/// The name of a block's contents in one [`KeySpace`]. Never all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Pod, Zeroable)]
#[repr(transparent)]
pub struct BlockKey([u64; 2]);

impl BlockKey {
    /// What a slot without a block has in the place of a key.
    pub(super) const NONE: Self = Self([0; 2]);

    /// A number as uniform as the key, to choose a place in a table.
    pub(super) const fn spread(self) -> u64 {
        self.0[0]
    }

    /// The bytes that name the block wherever it is kept.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        bytemuck::cast(self.0.map(u64::to_le))
    }

    /// The key that [`Self::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let words: [u64; 2] = bytemuck::cast(bytes);
        Self(words.map(u64::from_le))
    }
}

/// What blocks of equal tokens must also share to be the same bytes: model and layout, and whoever
/// may see them.
///
/// SHA-256, not a faster hash: a tenant chooses its prompts, and must find no two that share a key.
/// The engine's full hash goes in; the 64 bits of it in KV events would collide by chance in a
/// store of a few billion blocks.
#[derive(Debug, Clone)]
pub struct KeySpace(Sha256);

impl KeySpace {
    /// The names of one `fingerprint` (model, revision, KV data type and layout, tensor-parallel
    /// rank and size: whatever changes the bytes) under one tenant's `salt`.
    #[must_use]
    pub fn new(fingerprint: &[u8], salt: &[u8]) -> Self {
        let mut space = Sha256::new();
        for part in [fingerprint, salt] {
            space.update((part.len() as u64).to_le_bytes());
            space.update(part);
        }
        // A whole compression's worth, so that a key costs one more.
        let mut keyed = Sha256::new();
        keyed.update(space.finalize());
        keyed.update([0; 32]);
        Self(keyed)
    }

    /// The name of the block that the engine knows as `engine_hash`, given in full.
    #[must_use]
    pub fn key(&self, engine_hash: &[u8]) -> BlockKey {
        let digest = self.0.clone().chain_update(engine_hash).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        match BlockKey::from_bytes(bytes) {
            BlockKey::NONE => BlockKey([1, 0]),
            key => key,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_everything_that_the_bytes_depend_on() {
        let hash = [7; 32];
        let key = KeySpace::new(b"llama", b"tenant").key(&hash);

        assert_eq!(key, KeySpace::new(b"llama", b"tenant").key(&hash));
        assert_ne!(key, KeySpace::new(b"llama", b"").key(&hash));
        assert_ne!(key, KeySpace::new(b"llamat", b"enant").key(&hash));
        assert_ne!(key, KeySpace::new(b"llama", b"tenant").key(&[8; 32]));
        assert_ne!(key, KeySpace::new(b"llama", b"tenant").key(&hash[..16]));
    }

    #[test]
    fn a_key_comes_back_from_its_bytes() {
        let key = KeySpace::new(b"llama", b"").key(b"hash");

        assert_eq!(BlockKey::from_bytes(key.to_bytes()), key);
    }
}

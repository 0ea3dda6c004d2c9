//! The chained block key.
//!
//! `key[i] = mix(key[i-1], xxh3_64(tokens of block i as u32 little-endian), extra[i])`, rooted in
//! a hash of (model, LoRA). 64 bits: at 10^8 distinct blocks the chance of any collision is
//! 3*10^-4, and a collision costs one wrong guess about a cache hit, never wrong output.

use super::PromptError;
use crate::BlockKey;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Computes block keys for one (model, LoRA, block size).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    block_size: u32,
    root: BlockKey,
}

/// What a block's key depends on besides its tokens: salt and multimodal items, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockExtra(pub u64);

impl Chain {
    /// A chain for blocks of `block_size` tokens of one model and LoRA adapter.
    ///
    /// # Errors
    /// [`PromptError::BlockSize`].
    pub fn new(model: &str, lora: Option<&str>, block_size: u32) -> Result<Self, PromptError> {
        if block_size == 0 || block_size > super::MAX_BLOCK_TOKENS {
            return Err(PromptError::BlockSize(block_size));
        }
        let seed = lora.map_or(0, |name| xxh3_64_with_seed(name.as_bytes(), 1));
        Ok(Self { block_size, root: BlockKey(xxh3_64_with_seed(model.as_bytes(), seed)) })
    }

    /// Tokens a block.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// The parent of block 0.
    #[must_use]
    pub fn root(&self) -> BlockKey {
        self.root
    }

    /// The key of the block that follows `parent` and holds `tokens`.
    #[must_use]
    pub fn next(&self, parent: BlockKey, tokens: &[u32], extra: Option<BlockExtra>) -> BlockKey {
        let local = xxh3_64(as_bytes(tokens));
        let mut link = [0u8; 24];
        link[..8].copy_from_slice(&parent.0.to_le_bytes());
        link[8..16].copy_from_slice(&local.to_le_bytes());
        match extra {
            None => BlockKey(xxh3_64(&link[..16])),
            Some(extra) => {
                link[16..].copy_from_slice(&extra.0.to_le_bytes());
                BlockKey(xxh3_64(&link))
            }
        }
    }
}

/// Token ids as the bytes that are hashed.
fn as_bytes(tokens: &[u32]) -> &[u8] {
    #[cfg(target_endian = "big")]
    compile_error!("block keys are defined over little-endian token ids");
    // SAFETY: u32 has no padding and every byte of it is initialised; the length is in bytes of
    // the same allocation, and u8 has no alignment demand.
    #[allow(unsafe_code)]
    unsafe {
        std::slice::from_raw_parts(tokens.as_ptr().cast(), std::mem::size_of_val(tokens))
    }
}

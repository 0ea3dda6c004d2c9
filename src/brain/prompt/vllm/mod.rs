//! vLLM's own block hashes: what names a block *to* the engine, and what its events name it by.
//!
//! `hash[i] = H(encode((hash[i-1], tokens of block i, extra keys or None)))`, where the hash before
//! the first block is [`none_hash`] of a seed, `H` is SHA-256 or XXH3-128, and the encoding is
//! CPython's pickle protocol 5 or canonical CBOR ([`HashAlgorithm`]). Events cut a hash down to its
//! last 8 bytes ([`FullHash::external`]).
//!
//! Guaranteed: byte for byte what vLLM 0.32 computes, as captured from it, where the pickle
//! encodings depend on nothing but values. What they depend on besides is stated in `pickle.rs`.
//!
//! Not here: the router's own keys, which need none of this ([`super::Chain`]).
//!
//! ```
//! use llmd_brain::prompt::vllm::{self, HashAlgorithm, RequestExtras};
//!
//! let algorithm = HashAlgorithm::Sha256Cbor;
//! let root = vllm::none_hash(algorithm, vllm::DEFAULT_SEED);
//! let tokens: Vec<u32> = (0..40).collect();
//! let hashes = vllm::block_hashes(algorithm, &root, &tokens, 16, &RequestExtras::default());
//! assert_eq!(hashes.len(), 2);
//! assert_eq!(hashes[0].as_bytes().len(), 32);
//! ```

mod cbor;
mod extra;
mod full_hash;
mod pickle;
#[cfg(test)]
mod tests;

pub use extra::{ExtraKey, LoraAdapter, RequestExtras};
pub use full_hash::{FullHash, HashLengthError};

use extra::BlockKeys;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_128;

/// vLLM's seed of [`none_hash`] for the SHA-256 algorithms where `PYTHONHASHSEED` is not set. For
/// the xxhash algorithms it then draws one at random, which nobody else can know.
pub const DEFAULT_SEED: &str = "vllm-none-hash";

/// vLLM's `--prefix-caching-hash-algo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashAlgorithm {
    /// SHA-256 of a pickle; vLLM's default.
    #[default]
    Sha256,
    /// SHA-256 of canonical CBOR.
    Sha256Cbor,
    /// XXH3-128 of a pickle.
    Xxhash,
    /// XXH3-128 of canonical CBOR.
    XxhashCbor,
}

impl HashAlgorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Sha256, Self::Sha256Cbor, Self::Xxhash, Self::XxhashCbor];

    /// The name that vLLM knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha256Cbor => "sha256_cbor",
            Self::Xxhash => "xxhash",
            Self::XxhashCbor => "xxhash_cbor",
        }
    }

    fn encoding(self) -> Encoding {
        match self {
            Self::Sha256 | Self::Xxhash => Encoding::Pickle,
            Self::Sha256Cbor | Self::XxhashCbor => Encoding::Cbor,
        }
    }

    fn digest(self, encoded: &[u8]) -> FullHash {
        match self {
            Self::Sha256 | Self::Sha256Cbor => FullHash::of_32(Sha256::digest(encoded).into()),
            Self::Xxhash | Self::XxhashCbor => FullHash::of_16(xxh3_128(encoded).to_be_bytes()),
        }
    }
}

/// A name that is not one of [`HashAlgorithm::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown hash algorithm {0:?}: use sha256, sha256_cbor, xxhash or xxhash_cbor")]
pub struct UnknownAlgorithm(pub String);

impl std::str::FromStr for HashAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.name() == name);
        known.ok_or_else(|| UnknownAlgorithm(name.to_owned()))
    }
}

impl std::fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, Copy)]
enum Encoding {
    Pickle,
    Cbor,
}

/// The hash before a prompt's first block. `seed` is the engine's `PYTHONHASHSEED`, or
/// [`DEFAULT_SEED`].
#[must_use]
pub fn none_hash(algorithm: HashAlgorithm, seed: &str) -> FullHash {
    let mut encoded = Vec::new();
    match algorithm.encoding() {
        Encoding::Pickle => pickle::text(&mut encoded, seed),
        Encoding::Cbor => cbor::text(&mut encoded, seed),
    }
    algorithm.digest(&encoded)
}

/// Hashes of all full blocks of `tokens`, each the child of the one before it and the first of
/// `parent` ([`none_hash`] where the prompt begins with it). No blocks for a `block_size` of 0.
#[must_use]
pub fn block_hashes(
    algorithm: HashAlgorithm,
    parent: &FullHash,
    tokens: &[u32],
    block_size: u32,
    extras: &RequestExtras<'_>,
) -> Vec<FullHash> {
    let mut hashes = Vec::new();
    BlockHasher::new(algorithm).extend(&mut hashes, parent, tokens, block_size, extras);
    hashes
}

/// Computes block hashes, keeping its buffers from one to the next.
#[derive(Debug, Clone)]
pub struct BlockHasher {
    algorithm: HashAlgorithm,
    encoded: Vec<u8>,
}

impl BlockHasher {
    /// A hasher that holds no state but its buffers.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, encoded: Vec::new() }
    }

    /// What it computes.
    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The hash of the block that follows `parent` and holds `tokens`. `extra` in vLLM's order:
    /// LoRA, multimodal items, salt, prompt embeddings.
    pub fn next(&mut self, parent: &FullHash, tokens: &[u32], extra: &[ExtraKey<'_>]) -> FullHash {
        self.encoded.clear();
        match self.algorithm.encoding() {
            Encoding::Pickle => pickle::block(&mut self.encoded, parent.as_bytes(), tokens, extra),
            Encoding::Cbor => cbor::block(&mut self.encoded, parent.as_bytes(), tokens, extra),
        }
        self.algorithm.digest(&self.encoded)
    }

    /// Brings the hashes of an earlier turn up to `tokens`, hashing only the blocks that are new:
    /// `hashes` must be those of the first blocks of `tokens` under the same `root` and `extras`.
    /// Does nothing for a `block_size` of 0.
    pub fn extend(
        &mut self,
        hashes: &mut Vec<FullHash>,
        root: &FullHash,
        tokens: &[u32],
        block_size: u32,
        extras: &RequestExtras<'_>,
    ) {
        let block_tokens = block_size as usize;
        let Some(full_blocks) = tokens.len().checked_div(block_tokens) else { return };
        hashes.truncate(full_blocks);
        hashes.reserve(full_blocks - hashes.len());
        let mut parent = hashes.last().copied().unwrap_or(*root);
        let mut keys = BlockKeys::new(extras, block_size, hashes.len());
        for block in tokens[hashes.len() * block_tokens..].chunks_exact(block_tokens) {
            parent = self.next(&parent, block, keys.next_block());
            hashes.push(parent);
        }
    }
}

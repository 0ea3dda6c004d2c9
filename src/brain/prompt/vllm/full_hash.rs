//! A vLLM block hash in full.

use crate::EngineHash;

/// A block hash as the engine holds it: 32 bytes of SHA-256 or 16 bytes of XXH3-128.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FullHash {
    bytes: [u8; 32],
    len: u8,
}

/// Bytes that are neither 16 nor 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block hash has 16 bytes (xxhash) or 32 bytes (sha256), not {0}")]
pub struct HashLengthError(pub usize);

impl FullHash {
    pub(super) fn of_32(bytes: [u8; 32]) -> Self {
        Self { bytes, len: 32 }
    }

    pub(super) fn of_16(short: [u8; 16]) -> Self {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&short);
        Self { bytes, len: 16 }
    }

    /// The hash, 16 or 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// What events call the block: the last 8 bytes, big-endian, which is Python's
    /// `int.from_bytes(hash, "big") & (2**64 - 1)`.
    #[must_use]
    pub fn external(&self) -> EngineHash {
        let tail = self.as_bytes().last_chunk().copied();
        EngineHash(tail.map_or(0, u64::from_be_bytes))
    }
}

/// From the raw bytes that vLLM's events carry under `VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0`.
impl TryFrom<&[u8]> for FullHash {
    type Error = HashLengthError;

    fn try_from(bytes: &[u8]) -> Result<Self, HashLengthError> {
        if let Ok(full) = bytes.try_into() {
            return Ok(Self::of_32(full));
        }
        let short = bytes.try_into().map_err(|_| HashLengthError(bytes.len()))?;
        Ok(Self::of_16(short))
    }
}

impl std::fmt::Display for FullHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for FullHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FullHash({self})")
    }
}

//! Hashing of keys that are hashes already.

use std::hash::{BuildHasherDefault, Hasher};

/// A `HashMap` hasher for 64-bit names.
pub(super) type BuildNameHasher = BuildHasherDefault<NameHasher>;

/// One folded multiplication (the mixing step of wyhash): block keys are uniform already, but an
/// engine may count its block names up from 1, and both the low bits (bucket) and the high bits
/// (tag, shard) are used. Unkeyed: whoever crafts colliding prompts slows their own look-ups.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        let wide = u128::from(self.0 ^ value ^ 0x2D35_8DCC_AA6C_78A5) * 0x8BB8_4B93_962E_ACC9;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

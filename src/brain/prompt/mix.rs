//! The 64-bit mixing that all keys are made of.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

#[cfg(target_endian = "big")]
compile_error!("block keys are defined over little-endian token ids and are shared between hosts");

/// What a hash stands for. Equal bytes in different roles never give equal hashes.
///
/// The values are the first digits of the fraction of pi, which nobody chose.
#[derive(Debug, Clone, Copy)]
#[repr(u64)]
pub enum Role {
    /// Root of a chain over tokens.
    Tokens = 0x243F_6A88_85A3_08D3,
    /// Root of a chain over text.
    Text = 0x1319_8A2E_0370_7344,
    /// Name of a LoRA adapter.
    Lora = 0xA409_3822_299F_31D0,
    /// Identifier of a multimodal item.
    Multimodal = 0x082E_FA98_EC4E_6C89,
    /// Offset of a multimodal item from its block's start.
    Offset = 0x4528_21E6_38D0_1377,
    /// Cache salt, or another text that a block depends on.
    Salt = 0xBE54_66CF_34E9_0C6C,
    /// Everything that a block depends on besides its tokens.
    Extra = 0xC0AC_29B7_C97C_50DD,
}

/// Hash of a name in its role.
pub fn name(role: Role, name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, role as u64)
}

/// Hash of one block's tokens, free of what came before it.
///
/// NOTE(perf): a folded-multiply hash of our own, unrolled for 16 tokens, made 8,192 tokens 0.26 us
/// faster (1.20 against 1.46 us) and was 35% slower at 512 tokens a block. Not worth leaving a hash
/// whose quality others have measured.
///
/// NOTE(perf): blocks do not wait for each other, and a processor that looks 250 instructions ahead
/// overlaps several without being told. XXH3 written out for 64 bytes gained 7% over this (3.26
/// against 3.04 Gtok/s, 8,192 tokens in blocks of 16, Zen 4), four blocks side by side 2% more;
/// with 32 tokens a block 2%, with 64 nothing. What bounds it is six 64-bit multiplies a block. Not
/// worth a second copy of the hash.
#[inline]
pub fn block_of_tokens(tokens: &[u32]) -> u64 {
    xxh3_64(bytemuck::cast_slice(tokens))
}

/// Hash of one block's text.
#[inline]
pub fn block_of_text(text: &[u8]) -> u64 {
    xxh3_64(text)
}

/// Appends `child` to the chain that `parent` stands for.
///
/// A 64 x 64 -> 128 bit multiply folded by xor (the mixing step of wyhash and XXH3): one multiply
/// of latency between blocks, so the chain costs nothing beside the hashing of the blocks, which
/// do not wait for each other. Xor with different constants keeps (a, b) apart from (b, a), and
/// keeps the factors of real chains from being 0.
///
/// NOTE(perf): for 8,192 tokens in blocks of 16, which take 1.46 us, hashing the 16 bytes (parent,
/// child) with XXH3 instead took 2.09 us, and a finalizer (xorshift, multiply, xorshift) behind the
/// multiply 1.82 us. It evens out what one bit of the parent does to the key, which does not matter:
/// a parent is a key, and two keys differ in half of their bits.
#[inline]
pub fn link(parent: u64, child: u64) -> u64 {
    // Fractions of the square roots of 2 and 3 (as in SHA-512's initial state).
    const PARENT: u64 = 0x6A09_E667_F3BC_C908;
    const CHILD: u64 = 0xBB67_AE85_84CA_A73B;
    let product = u128::from(parent ^ PARENT) * u128::from(child ^ CHILD);
    (product as u64) ^ ((product >> 64) as u64)
}

//! What is written down of one block, and the word that says whether it may be believed.

use crate::kv::BlockKey;
use bytemuck::{Pod, Zeroable};
use xxhash_rust::xxh3::xxh3_64;

/// Time as policies count it: 10 ms each, from an origin that all processes of a node share. Wraps
/// after sixteen months, in which differences stay right.
pub type Ticks = u32;

/// A slot's epoch and state in one word. Readers outside the lock compare the whole word before
/// and after: any change, there and back as well, shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(pub u64);

/// What a slot is for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It holds nothing.
    Free,
    /// Its owner is filling it in.
    Writing,
    /// It holds a block.
    Ready,
}

impl Generation {
    /// The state in it. What no writer wrote counts as free.
    #[must_use]
    pub const fn state(self) -> State {
        match self.0 & 3 {
            1 => State::Writing,
            2 => State::Ready,
            _ => State::Free,
        }
    }

    /// The word after this one, for `state`.
    #[must_use]
    pub const fn next(self, state: State) -> Self {
        let state = match state {
            State::Free => 0,
            State::Writing => 1,
            State::Ready => 2,
        };
        Self((self.0 >> 2).wrapping_add(1) << 2 | state)
    }
}

/// What a block is, wherever its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Block {
    /// Its name.
    pub key: BlockKey,
    /// The name of the block before it; [`BlockKey::NONE`] for a prompt's first.
    pub parent: BlockKey,
    /// XXH3 of its bytes.
    pub checksum: u64,
    /// How many bytes.
    pub length_bytes: u32,
    /// Blocks before it in its chain.
    pub position: u32,
}

/// One slot's entry. Only who holds the lock reads or writes it.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Slot {
    /// What it holds, or is to hold.
    pub block: Block,
    /// XXH3 of `block` and the generation at which it was committed: a process that was killed
    /// while it wrote this entry leaves one that does not agree with itself.
    pub check: u64,
    /// Who fills it in. Written before the generation says that somebody does.
    pub owner: u64,
    /// Milliseconds of the node's clock until which it must stay.
    pub pinned_until_ms: u64,
    /// The slot of the block before it, plus one; 0: not resident when this was committed.
    pub before: u32,
    /// Resident blocks that follow it.
    pub children: u32,
    /// Generation of `before` when this was committed.
    pub before_generation: u64,
    /// The next slot in the same bucket of the index, plus one.
    pub next_in_bucket: u32,
    pub(super) padding: u32,
}

impl Slot {
    /// The `check` of a block that is ready at `generation`.
    #[must_use]
    pub fn check_of(block: &Block, generation: Generation) -> u64 {
        let mut bytes = [0; size_of::<Block>() + 8];
        bytes[..size_of::<Block>()].copy_from_slice(bytemuck::bytes_of(block));
        bytes[size_of::<Block>()..].copy_from_slice(&generation.0.to_le_bytes());
        xxh3_64(&bytes)
    }
}

//! Which block goes when a tier is full: one contract, one file an algorithm.
//!
//! A block of a prompt's middle is of no use without all blocks before it, so a tier gives up only
//! *leaves*: blocks that no resident block follows. The catalogue sees to that and shows a policy
//! leaves alone; policies differ in which leaf they give up. Costs are O(1) a call, and state is
//! plain numbers without pointers, because it lies in memory that processes share.

mod density;
mod gdsf;
mod lists;
mod lru;
mod policy;
mod s3fifo;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};

pub use density::Density;
pub use gdsf::Gdsf;
pub use lru::Lru;
pub use policy::{Algorithm, Policy};
pub use s3fifo::S3Fifo;

/// No slot.
pub const NONE: u32 = u32::MAX;

/// What policies know of the block in a slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Node {
    /// The neighbour that goes later.
    pub prev: u32,
    /// The neighbour that goes sooner.
    pub next: u32,
    /// The list that it is in, plus one; 0: in none, it is no leaf.
    pub list: u32,
    /// Prompts that found it since it was stored.
    pub hits: u32,
    /// When it was last found or stored, in [`Ticks`](super::catalogue).
    pub used_at: u32,
    /// From the last but one use of its chain to the last; 0 for a chain used once.
    pub gap: u32,
    /// Prompts that had extended its chain when it was stored: a conversation's turn.
    pub turn: u32,
    /// Blocks before it in its chain.
    pub position: u32,
    /// What the policy noted at its last use.
    pub rank: f64,
    /// The trace of a block that has gone, whatever block is in this slot now.
    pub ghost: u32,
    /// Whatever tells blocks apart: bits of its key.
    pub fingerprint: u32,
}

/// An algorithm that says which leaf goes next.
///
/// The caller keeps `hits`, `used_at`, `gap`, `turn` and `position` of a node current, before it
/// calls; the links are the policy's. A slot is in the policy's hands (`list != 0`) from
/// [`admit`](Self::admit) or [`expose`](Self::expose) until [`victim`](Self::victim) gives it up
/// or [`remove`](Self::remove) takes it. Slots are below `nodes.len()`.
pub trait Eviction {
    /// A block was stored in `slot`, and nothing follows it.
    fn admit(&mut self, nodes: &mut [Node], slot: u32);

    /// The last block that followed the one in `slot` has gone.
    fn expose(&mut self, nodes: &mut [Node], slot: u32);

    /// A prompt found the block in `slot`, a leaf or not, `idle` ticks after its use before.
    fn touch(&mut self, nodes: &mut [Node], slot: u32, idle: u32);

    /// `slot` is no leaf any more.
    fn remove(&mut self, nodes: &mut [Node], slot: u32);

    /// Gives up the leaf that is worth least at `now`; `None` only if there is none.
    fn victim(&mut self, nodes: &mut [Node], now: u32) -> Option<u32>;
}

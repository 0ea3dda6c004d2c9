//! KV blocks by the name of what they hold, kept in tiers below the engines' own memory.
//!
//! A block's name is the engine's own hash of all tokens up to its end, folded with what else its
//! bytes depend on ([`KeySpace`]), so a name never means two contents. The first tier is one
//! arena of shared memory a node, which all engine processes attach to without a daemon; below it
//! lies a file of slots on a disk. Both keep their books in a [`catalogue`] in shared memory.
//!
//! What it promises: the bytes of a get are those of the put under that key, or there is no hit.
//! A process may be killed at any instruction, a disk may be full or lie: each shows as misses
//! that are counted, never as an error to the engine, and nothing waits without a bound.
//!
//! What it does not do: decide which prompt goes where, or move blocks between machines.

pub mod books;
pub mod catalogue;
pub mod disk;
mod error;
pub mod eviction;
pub mod foreign;
pub mod host;
mod key;
mod store;

pub use books::Chain;
pub use error::StoreError;
pub use key::{BlockKey, KeySpace};
pub use store::{Store, StoreConfig, StoreCounts};

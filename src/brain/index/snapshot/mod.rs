//! What an endpoint holds, as records that make it known again elsewhere: to a router that joins
//! late, or to a notebook that explores.
//!
//! A record is a run of blocks with keys and names, parents before children, or further copies of
//! blocks of such a run. To import them is to store them: nothing of the tree's own layout is in a
//! snapshot, so it stays readable when that changes. [`format`] writes records as bytes.
//!
//! Left out is what is believed, which expires within seconds to minutes, and what is held by
//! engines whose blocks are not simply the router's (hybrid models, another block size): those have
//! to be replayed from their engine ([`Exported::NotPlain`]).

pub mod format;
mod load;
mod save;
#[cfg(test)]
pub(super) mod tests;

pub(super) use load::Loader;

use crate::{BlockKey, EngineHash, Tier};

/// Most blocks of one record; a longer run takes several.
pub const MAX_RECORD_BLOCKS: usize = 1 << 16;

/// One step towards what an endpoint holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The KV cache group that its events are of.
    Group(u32),
    /// Consecutive blocks of a prompt.
    Run(Run),
    /// More copies of blocks of a run than the run itself says.
    Copies(MoreCopies),
}

/// Consecutive blocks of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// The number of the run that these go on behind, counting runs from 0; none at the start of a
    /// prompt.
    pub parent: Option<u32>,
    /// The tiers that have a copy of each. None where the blocks are only on the way to others.
    pub tiers: Vec<Tier>,
    /// Their keys.
    pub keys: Vec<BlockKey>,
    /// The engine's names of them: one a key, or none where no tier has them.
    pub names: Vec<EngineHash>,
}

/// More copies of consecutive blocks of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoreCopies {
    /// Number of the run.
    pub run: u32,
    /// How many of its blocks come before.
    pub offset: u32,
    /// Where the copies are.
    pub tier: Tier,
    /// How many of each block.
    pub copies: u16,
    /// Their names, block by block.
    pub names: Vec<EngineHash>,
}

/// What became of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exported {
    /// All that its events told.
    Whole {
        /// Blocks held.
        blocks: u64,
    },
    /// Nothing: its blocks are not simply the router's.
    NotPlain,
    /// Nothing: it sends no events, or is gone.
    NoEvents,
}

/// Why records cannot be imported. Whatever was imported before is forgotten again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The endpoint has left, or is another by now.
    #[error("the endpoint is not there any more")]
    Gone,
    /// A record speaks of a run, or of blocks of one, that no record before it made known.
    #[error(
        "record {record} speaks of run {run}, block {block}, which is not known: the snapshot is damaged, take a new one"
    )]
    UnknownRun {
        /// Which record.
        record: u64,
        /// The run that it names.
        run: u32,
        /// The block in it.
        block: u64,
    },
    /// Names and keys are not as many.
    #[error(
        "record {record} has {names} names for {keys} keys: the snapshot is damaged, take a new one"
    )]
    Names {
        /// Which record.
        record: u64,
        /// How many names.
        names: usize,
        /// How many keys.
        keys: usize,
    },
    /// The index is full.
    #[error("the index has no room for the snapshot: raise index.max_bytes")]
    Full,
}

//! What can be wrong with how a store is opened or called. Lost bytes are misses, not errors.

use std::path::PathBuf;

/// Why a store cannot be opened, or was called in a way that it cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A number of the configuration that no store can have.
    #[error("{name} is {value}: {remedy}")]
    Config {
        /// The setting.
        name: &'static str,
        /// What it was.
        value: u64,
        /// What it may be.
        remedy: &'static str,
    },
    /// Another process made this store with other settings.
    #[error(
        "store {path} has {name} {theirs}, not {ours}: open it with the same settings, or remove it"
    )]
    Mismatch {
        /// Where the store is.
        path: PathBuf,
        /// The setting in which they differ.
        name: &'static str,
        /// What the store was made with.
        theirs: u64,
        /// What was asked for.
        ours: u64,
    },
    /// There is no memory for it.
    #[error(transparent)]
    Segment(#[from] crate::memory::SegmentError),
    /// Another process has been opening this store for too long.
    #[error("store {path} is being opened by a process that does not finish: end that process")]
    Opening {
        /// Where the store is.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
    /// As many processes as a store knows are attached already.
    #[error("store {path} has {limit} processes attached, as many as it takes: detach one")]
    Crowded {
        /// Where the store is.
        path: PathBuf,
        /// How many it takes.
        limit: usize,
    },
    /// A block that no slot can hold.
    #[error(
        "a block of {bytes} bytes does not fit slots of {slot_bytes}: open a store of larger blocks"
    )]
    TooLong {
        /// The block's length.
        bytes: usize,
        /// What a slot holds.
        slot_bytes: usize,
    },
}

//! The decision log as a file: every turn of a brain, enough to make each decision again.
//!
//! A file is [`MAGIC`], then frames: a `u32` little-endian length, then that many bytes of
//! MessagePack ([`Frame`]). The first frame is the [`Header`], which holds the configuration as
//! JSON, since that is the form whose reader knows defaults and unknown keys. A [`Frame::End`] is
//! last where the router was closed in order; a file without one was cut off, and is read up to
//! its last whole frame.
//!
//! [`DecisionLog`] writes from a thread of its own. [`replay`] makes its decisions again, and
//! [`workload`] takes out what was asked, for a simulation.

mod reader;
mod workload;
mod writer;

#[cfg(test)]
mod tests;

pub use reader::{FileReplay, LogError, LogReader, Next, replay};
pub use workload::{LoggedWorkload, workload};
pub use writer::{DecisionLog, LogStats};

use llmd_brain::brain::LogEntry;
use serde::{Deserialize, Serialize};

/// The first bytes of every decision log.
pub const MAGIC: [u8; 8] = *b"LLMDLOG\n";
/// Version that this release writes, and makes the decisions of again. It goes up when frames change,
/// and when what a brain decides on equal inputs does, or what is compared of it: a change of the rules
/// is not to look like a decision that came out otherwise.
pub const FORMAT: u32 = 3;
/// Oldest version that is read. In the first, decisions had no quantiles; in the second, the end of an
/// answer whose beginning nobody told was learned as its first token.
pub const OLDEST_FORMAT: u32 = 1;
/// Longest frame that is written or read: a prompt of 64 M tokens has 4 M keys of 9 bytes.
pub const MAX_FRAME_BYTES: u32 = 256 << 20;

/// What a log was made by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`] of the file.
    pub format: u32,
    /// Release that wrote it.
    pub release: String,
    /// When it was begun, seconds since the Unix epoch.
    pub started_unix_s: f64,
    /// The brain's configuration, as JSON.
    pub config: String,
}

/// One record of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// The first.
    Header(Header),
    /// One turn.
    Entry(Box<LogEntry>),
    /// So many entries are missing here: the disk was too slow.
    Lost(u64),
    /// The last.
    End,
}

//! Public traces, as text, to workloads.

mod azure;
mod decision_log;
mod mooncake;
mod sessions;

pub use azure::azure;
pub use decision_log::{DecisionLogTrace, LogGaps};
pub use mooncake::mooncake;
pub use sessions::{agent_sessions, prompt_sessions};

use super::GenerateError;
use crate::BlockKey;

/// Why a trace could not be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TraceError {
    /// A line that is not what the format says.
    #[error("line {line} of the trace: {why}: give the format of {format}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
        /// What was expected.
        format: &'static str,
    },
    /// Nothing in it.
    #[error("the trace has no request: give the format of {0}")]
    Empty(&'static str),
    /// Prefixes cannot be made up as asked.
    #[error(transparent)]
    Prefixes(#[from] GenerateError),
    /// A decision log of a router that nobody asked.
    #[error("the decision log has no request: record a router while it routes")]
    NoRequest,
    /// A decision log of requests whose ends nobody told.
    #[error(
        "no request of the decision log finished, so that nothing says how much they generate: say how \
         many output tokens to assume"
    )]
    NoOutput,
}

/// The key of a block that a trace gives a number, in a scope of its own where numbers are local.
pub(super) fn key(scope: u64, id: u64) -> BlockKey {
    let mixed =
        (id ^ scope.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x1234_5678_9ABC_DEF1);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    BlockKey(mixed ^ (mixed >> 31))
}

/// The lines of a trace, read one by one.
fn lines<'a, T: serde::Deserialize<'a>>(
    text: &'a str,
    format: &'static str,
) -> impl Iterator<Item = Result<T, TraceError>> + 'a {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(move |(number, line)| {
        serde_json::from_str(line).map_err(|why| TraceError::Line {
            line: number + 1,
            why: why.to_string(),
            format,
        })
    })
}

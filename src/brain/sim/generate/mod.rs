//! Workloads that nobody recorded: arrivals, lengths and shared prefixes by stated distributions.
//!
//! [`Chats`] is an open loop of conversations, [`Agents`] a closed loop of sessions that call tools.
//! [`PrefixModel`] also gives prefixes to traces that only have lengths. The same settings and seed
//! give the same workload on every machine. Not here: what answers say; arrivals that follow the load.

mod agents;
mod chats;
mod gaps;
mod lengths;
mod prefixes;

pub use agents::Agents;
pub use chats::Chats;
pub use gaps::Gaps;
pub use lengths::Lognormal;
pub use prefixes::PrefixModel;

pub(super) use prefixes::Conversations;

/// Why no workload can be generated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{name} = {value} is out of range: use {range}")]
pub struct GenerateError {
    /// Which setting.
    pub name: &'static str,
    /// What it was.
    pub value: f64,
    /// What it can be.
    pub range: &'static str,
}

/// Most tokens of one request: more than any model's context.
pub(super) const MOST_TOKENS: u32 = 10_000_000;
/// Most requests of one workload.
const MOST_REQUESTS: u32 = 10_000_000;

fn within(
    name: &'static str,
    value: f64,
    valid: impl std::ops::RangeBounds<f64>,
    range: &'static str,
) -> Result<(), GenerateError> {
    if valid.contains(&value) { Ok(()) } else { Err(GenerateError { name, value, range }) }
}

/// Whether `block_size` can be one.
pub(super) fn valid_block_size(block_size: u32) -> Result<(), GenerateError> {
    within("block_size", block_size.into(), 1.0..=1_048_576.0, "1 to 1048576 tokens")
}

fn valid_requests(name: &'static str, count: u32) -> Result<(), GenerateError> {
    within(name, count.into(), 1.0..=f64::from(MOST_REQUESTS), "1 to 10 million")
}

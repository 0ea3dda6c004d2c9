//! Mooncake's format: arrival, lengths, and numbers of 512-token blocks that stand for their prefix.

use super::{TraceError, key, lines};
use crate::sim::Workload;
use serde::Deserialize;

/// Tokens of a block in these traces.
const BLOCK_TOKENS: u32 = 512;
const FORMAT: &str = "Mooncake, one JSON object a line";

#[derive(Deserialize)]
struct Line {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
    hash_ids: Vec<u64>,
}

/// `{"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [..]}` a line.
///
/// # Errors
/// [`TraceError`] names the line.
///
/// ```
/// let line = r#"{"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [7, 8, 9]}"#;
/// let workload = llmd_brain::sim::mooncake(line)?;
/// assert_eq!(workload.keys(&workload.prompts()[0]).len(), 2, "full blocks");
/// # Ok::<(), llmd_brain::sim::TraceError>(())
/// ```
pub fn mooncake(text: &str) -> Result<Workload, TraceError> {
    let mut workload = Workload::new(BLOCK_TOKENS);
    for line in lines::<Line>(text, FORMAT) {
        let line = line?;
        workload.begin_session();
        workload.push(
            line.timestamp,
            line.input_length,
            line.output_length,
            line.hash_ids.into_iter().map(|id| key(0, id)),
        );
    }
    if workload.prompts().is_empty() { Err(TraceError::Empty(FORMAT)) } else { Ok(workload) }
}

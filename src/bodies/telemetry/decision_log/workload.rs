//! A decision log as a workload for the simulator.

use super::{LogError, LogReader, Next};
use llmd_brain::sim::{DecisionLogTrace, LogGaps, Workload};
use std::fmt;
use std::path::Path;

/// What a router was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedWorkload {
    /// An open loop whose times count from the first request.
    pub workload: Workload,
    /// What the log leaves open.
    pub gaps: LogGaps,
    /// Whether the log ended in order.
    pub complete: bool,
}

impl fmt::Display for LoggedWorkload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LogGaps { assumed_outputs, estimated_prompts, lost_entries } = self.gaps;
        write!(
            out,
            "{} requests: {assumed_outputs} outputs assumed, {estimated_prompts} prompts' lengths \
             estimated, {lost_entries} turns lost{}",
            self.workload.prompts().len(),
            if self.complete { "" } else { ", the log was cut off" }
        )
    }
}

/// Reads what the requests of a log were; those whose end is not in it generate
/// `assumed_output_tokens`, by default the mean of the others.
///
/// # Errors
/// [`LogError`].
pub fn workload(
    path: &Path,
    assumed_output_tokens: Option<u32>,
) -> Result<LoggedWorkload, LogError> {
    let mut reader = LogReader::open(path)?;
    let mut trace = DecisionLogTrace::new(reader.config()?.block_size);
    let complete = loop {
        match reader.next_record()? {
            Next::Entry(entry) => trace.turn(*entry),
            Next::Lost(count) => trace.lost(count),
            Next::End => break true,
            Next::CutOff => break false,
        }
    };
    let (workload, gaps) = trace.finish(assumed_output_tokens)?;
    Ok(LoggedWorkload { workload, gaps, complete })
}

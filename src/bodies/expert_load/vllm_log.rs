//! What vLLM logs of its balance with `--eplb-config.log_balancedness`: no loads, but how even GPUs are.

use super::{LoadFileError, bytes_of};
use std::path::Path;

/// One line of it.
#[derive(Debug, Clone, PartialEq)]
pub struct BalancednessLine {
    /// Steps since the last rearrangement.
    pub step: u64,
    /// Tokens of a GPU on average, of all layers.
    pub avg_tokens: f64,
    /// Tokens of the fullest.
    pub max_tokens: f64,
}

/// The lines of a log, in order; others are passed over.
///
/// # Errors
/// Where the file cannot be read or has none.
pub fn read_vllm_log(path: &Path) -> Result<Vec<BalancednessLine>, LoadFileError> {
    let bytes = bytes_of(path)?;
    let found: Vec<_> = String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect();
    if found.is_empty() {
        return Err(LoadFileError::Format {
            path: path.to_owned(),
            why: "it has no line \"EPLB step: ..., balancedness=...\": start vLLM with \
                  --enable-eplb --eplb-config.log_balancedness true"
                .to_owned(),
        });
    }
    Ok(found)
}

fn parse(line: &str) -> Option<BalancednessLine> {
    let after = |name: &str| {
        let text = line.split_once(name)?.1;
        let end = text.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(text.len());
        Some(&text[..end])
    };
    let step = after("EPLB step: ")?.parse().ok()?;
    let avg_tokens: f64 = after("avg_tokens=")?.parse().ok()?;
    let max_tokens: f64 = after("max_tokens=")?.parse().ok()?;
    (avg_tokens > 0.0).then_some(BalancednessLine { step, avg_tokens, max_tokens })
}

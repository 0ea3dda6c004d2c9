//! Agent sessions: a session a line, each of its requests with the pause before it.

use super::{TraceError, key, lines};
use crate::sim::Workload;
use serde::Deserialize;

const RANGES: &str = "kv-cache-tester sessions, one JSON object a line";
const IDS: &str = "LMCache agent sessions, one JSON object a line";

#[derive(Deserialize)]
struct Session<R> {
    block_size: u32,
    requests: Vec<R>,
}

#[derive(Deserialize)]
struct Ranged {
    #[serde(rename = "in")]
    input: u32,
    out: u32,
    #[serde(default)]
    think_time: f64,
    #[serde(rename = "h")]
    ranges: Vec<(u64, u64)>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "in")]
    input: u32,
    out: u32,
    #[serde(default)]
    think_time: f64,
    ids: Vec<u64>,
}

/// Sessions of coding agents: `{"block_size", "requests": [{"in", "out", "think_time" s, "h":
/// [[first, last], ..]}]}`, where `h` numbers blocks within the session. A sub-agent's requests stand
/// behind its parent's and are played in that order: the parent waits for them.
///
/// # Errors
/// [`TraceError`] names the line.
pub fn agent_sessions(text: &str) -> Result<Workload, TraceError> {
    let mut workload: Option<Workload> = None;
    for (scope, session) in (1..).zip(lines::<Session<Ranged>>(text, RANGES)) {
        let session = session?;
        let workload = begin(&mut workload, session.block_size, scope, RANGES)?;
        for it in session.requests {
            let ids = it.ranges.iter().flat_map(|&(first, last)| first..=last);
            let keys = ids.map(|id| key(scope as u64, id));
            workload.push(it.think_time * 1e3, it.input, it.out, keys);
        }
    }
    workload.ok_or(TraceError::Empty(RANGES))
}

/// Sessions whose blocks have numbers that mean the same in all: `{"block_size", "requests": [{"in",
/// "out", "think_time" s, "ids": [..]}]}`.
///
/// # Errors
/// [`TraceError`] names the line.
pub fn prompt_sessions(text: &str) -> Result<Workload, TraceError> {
    let mut workload: Option<Workload> = None;
    for (number, session) in (1..).zip(lines::<Session<Listed>>(text, IDS)) {
        let session = session?;
        let workload = begin(&mut workload, session.block_size, number, IDS)?;
        for it in session.requests {
            let keys = it.ids.into_iter().map(|id| key(0, id));
            workload.push(it.think_time * 1e3, it.input, it.out, keys);
        }
    }
    workload.ok_or(TraceError::Empty(IDS))
}

fn begin<'a>(
    workload: &'a mut Option<Workload>,
    block_size: u32,
    line: usize,
    format: &'static str,
) -> Result<&'a mut Workload, TraceError> {
    let workload = workload.get_or_insert_with(|| Workload::new(block_size));
    if block_size == 0 || workload.block_size() != block_size {
        let why = format!("block_size is {block_size}, not {}", workload.block_size());
        return Err(TraceError::Line { line, why, format });
    }
    workload.begin_session();
    Ok(workload)
}

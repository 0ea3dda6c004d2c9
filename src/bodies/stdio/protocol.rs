//! The lines, as they are written.

use serde::{Deserialize, Serialize};

/// A line in.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "ev", rename_all = "lowercase", deny_unknown_fields)]
pub enum Event {
    /// The fleet: the first line.
    Init(Init),
    /// A worker holds these blocks from now on.
    Stored {
        /// Which worker.
        w: u32,
        /// Blocks, of one prompt in its order.
        ids: Vec<u64>,
    },
    /// A worker holds these blocks no longer.
    Removed {
        /// Which worker.
        w: u32,
        /// Blocks.
        ids: Vec<u64>,
    },
    /// A request comes.
    Arrive(Arrive),
    /// The first token of a request.
    First {
        /// Which request.
        id: u64,
        /// Where it runs.
        w: u32,
        /// When, milliseconds.
        t: f64,
    },
    /// A request was answered.
    Done {
        /// Which request.
        id: u64,
        /// Where it ran.
        w: u32,
        /// When, milliseconds.
        t: f64,
    },
    /// Time passed.
    Tick {
        /// To here, milliseconds.
        t: f64,
    },
    /// No more lines.
    End,
}

/// The fleet: `n` workers that are alike.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    /// Workers.
    pub n: u32,
    /// Tokens a block.
    pub block: u32,
    /// Tokens that the KV cache of a worker holds.
    pub kv_tokens: u64,
    /// Step times.
    pub engine: Engine,
    /// Most tokens in one step.
    #[serde(default = "max_batch_tokens")]
    pub max_batch_tokens: u32,
    /// Most requests that run at once.
    #[serde(default = "max_seqs")]
    pub max_seqs: u32,
    /// Objective of the time to first token, milliseconds.
    #[serde(default)]
    pub slo_ttft_ms: Option<f64>,
    /// Objective of the time per output token, milliseconds.
    #[serde(default)]
    pub slo_tpot_ms: Option<f64>,
    /// Whether requests may be held.
    #[serde(default)]
    pub hold: bool,
    /// How long, milliseconds.
    #[serde(default = "max_hold_ms")]
    pub max_hold_ms: u64,
}

fn max_batch_tokens() -> u32 {
    8_192
}

fn max_seqs() -> u32 {
    256
}

fn max_hold_ms() -> u64 {
    3_600_000
}

/// Coefficients of [`llmd_brain::predict::EngineProfile`], `a` to `f`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// `a`.
    pub pf_fixed: f64,
    /// `b`.
    pub pf_tok: f64,
    /// `c`.
    pub pf_attn: f64,
    /// `d`.
    pub dc_fixed: f64,
    /// `e`.
    pub dc_seq: f64,
    /// `f`.
    pub dc_kv: f64,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Arrive {
    /// Its name.
    pub id: u64,
    /// When it comes, milliseconds.
    pub t: f64,
    /// Tokens of its prompt.
    pub len: u32,
    /// Blocks of its prompt, each of which stands for all before it too.
    pub ids: Vec<u64>,
    /// Its session.
    #[serde(default)]
    pub sess: Option<u64>,
    /// Who pays for it.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Higher is more important; negative may be shed.
    #[serde(default)]
    pub prio: i32,
    /// When its answer is due, milliseconds after it came.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// Tokens of its answer, where the program knows.
    #[serde(default)]
    pub out: Option<u32>,
    /// Its own objectives, in the place of init's, milliseconds.
    #[serde(default)]
    pub slo_ttft_ms: Option<f64>,
    /// See `slo_ttft_ms`.
    #[serde(default)]
    pub slo_tpot_ms: Option<f64>,
    /// What each worker last reported; may be left out.
    #[serde(default)]
    pub workers: Vec<Worker>,
}

/// What a worker reported.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
pub struct Worker {
    /// Requests in its queue.
    pub waiting: f64,
    /// Requests that run.
    pub running: f64,
    /// Share of its KV in use.
    pub kv: f64,
}

/// A line out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Where an arrival goes.
    Worker {
        /// Which worker.
        w: u32,
    },
    /// It waits.
    Hold {
        /// Always true.
        hold: bool,
    },
    /// It goes nowhere.
    Reject {
        /// Why.
        reject: String,
        /// 429 where others are in its way, 503 where nobody can serve it.
        status: u16,
        /// With 429: after how many milliseconds it may have more luck.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// What became of requests that were held.
    Go {
        /// Request and worker.
        go: Vec<(u64, u32)>,
        /// Who goes nowhere, where anybody does: request, status, why.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        gave_up: Vec<(u64, u16, String)>,
    },
}

//! What became of every request.

use super::{Order, Stint, Summary};
use crate::engine::Counters;
use crate::fleet::Predicted;
use crate::predict::Timing;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was answered in full.
    Served,
    /// The router refused it.
    Rejected,
    /// The engine refused it: it does not fit its KV cache. Not counted where it fits nobody's.
    Refused,
    /// It was still waiting or running at the end.
    Unserved,
}

/// One request. Times are milliseconds of virtual time, NaN where they never came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Position in the workload.
    pub prompt: u32,
    /// Session of the workload.
    pub session: u32,
    /// Whose it is; 0 is nobody's.
    pub tenant: u32,
    /// Whether it is counted: the first ones warm the caches.
    pub is_counted: bool,
    /// How it ended.
    pub fate: Fate,
    /// The engine that it ran on; `u32::MAX` for none.
    pub engine: u32,
    /// When it came.
    pub arrived_ms: f64,
    /// When it was sent to the engine.
    pub sent_ms: f64,
    /// When its first token came.
    pub first_token_ms: f64,
    /// When its last token came.
    pub finished_ms: f64,
    /// Time to first token that it may take.
    pub ttft_limit_ms: f64,
    /// Time per output token that it may take.
    pub tpot_limit_ms: f64,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub output_tokens: u32,
    /// Tokens that the engine found in its KV cache.
    pub hit_tokens: u32,
    /// Tokens that it found on its host tier.
    pub host_hit_tokens: u32,
    /// Tokens that the router believed to be there.
    pub matched_tokens: u32,
    /// What the router expected when it sent it.
    pub predicted: Predicted,
    /// How often its connection broke, because an engine died.
    pub retries: u32,
}

impl Row {
    /// Time to first token, milliseconds, from the arrival.
    #[must_use]
    pub fn ttft_ms(&self) -> f64 {
        self.first_token_ms - self.arrived_ms
    }

    /// Time per output token after the first, milliseconds; 0 for an answer of one token.
    #[must_use]
    pub fn tpot_ms(&self) -> f64 {
        if self.output_tokens < 2 {
            return 0.0;
        }
        (self.finished_ms - self.first_token_ms) / f64::from(self.output_tokens - 1)
    }

    /// Whether it was served within its objectives.
    #[must_use]
    pub fn is_in_slo(&self) -> bool {
        self.fate == Fate::Served
            && self.ttft_ms() <= self.ttft_limit_ms
            && self.tpot_ms() <= self.tpot_limit_ms
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// In order of arrival.
    pub rows: Vec<Row>,
    /// Of each engine.
    pub engines: Vec<Counters>,
    /// When each engine was there; all of a fleet that nobody scales.
    pub stints: Vec<Stint>,
    /// Orders of the autoscaler.
    pub orders: Vec<Order>,
    /// What the first router had learned of each by the end.
    pub timings: Vec<Timing>,
    /// Alarms of drift that it has raised.
    pub drift_alarms: u64,
    /// When the last event was, milliseconds.
    pub ended_ms: f64,
    /// What a replica costs.
    pub usd_per_replica_hour: f64,
}

impl Outcome {
    /// Figures over the rows that are counted.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(self)
    }

    /// The same over the rows of one tenant; what is of the engines is of all.
    #[must_use]
    pub fn summary_of(&self, tenant: u32) -> Summary {
        let rows = self.rows.iter().filter(|row| row.tenant == tenant).copied().collect();
        let (engines, timings) = (self.engines.clone(), self.timings.clone());
        let (stints, orders) = (self.stints.clone(), self.orders.clone());
        Summary::of(&Self { rows, engines, stints, orders, timings, ..*self })
    }
}

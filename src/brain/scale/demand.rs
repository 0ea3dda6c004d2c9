//! What a router has been asked for, in the units in which engines pay for it.

use crate::fleet::{Predicted, prefill_pairs};
use serde::{Deserialize, Serialize};

/// A prompt whose own prefill takes this share of its objective or more is judged by what it waits
/// for besides, as a share of its prefill: no number of replicas makes a prefill shorter.
const ISOLATED_FACTOR: f64 = 1.5;

/// Counts since a router began, and what is so now. Two readings subtract to what came between them.
///
/// With an engine's step costs `a` to `f` ([`EngineProfile`](crate::predict::EngineProfile)) a request
/// of `new` uncached tokens after `cached` ones, which will be answered with `out` tokens, is
/// `a + b*new + c*new*(cached + new/2)` of prefill and `out * (e + f*(prompt + out/2))` of decode: what
/// its presence adds to steps, without the `d` that a step costs whoever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Demand {
    /// Requests placed on endpoints whose step costs are known.
    pub requests: f64,
    /// Requests placed on others.
    pub unmodelled_requests: f64,
    /// Requests turned away.
    pub rejected_requests: f64,
    /// Prefill work, milliseconds of one engine.
    pub prefill_ms: f64,
    /// How much of it takes the place of decode steps: a step that prefills decodes as well, and does
    /// not pay `d` on top.
    pub overlap_ms: f64,
    /// Sum of the squares of each request's prefill work.
    pub prefill_ms_squared: f64,
    /// Decode work, milliseconds of one engine.
    pub decode_ms: f64,
    /// Sum over requests of `d` over the objective of the time per output token: the share of it that
    /// an engine takes with nobody else on it. 0 for requests without that objective, and for those
    /// whom no engine could answer in time.
    pub tpot_floor: f64,
    /// Requests with an objective of the time to first token.
    pub ttft_bounded_requests: f64,
    /// Milliseconds that those may wait for their prefill to begin.
    pub wait_allowance_ms: f64,
    /// Requests that were predicted to miss an objective which an idle replica would have met.
    pub missed_requests: f64,
    /// Now: prefill work that is placed and not done.
    pub backlog_ms: f64,
    /// Now: requests that wait without a place; they count as much as those that were placed.
    pub waiting_requests: f64,
    /// Now: context tokens of all that is in flight.
    pub resident_tokens: f64,
    /// Now: tokens that the KV cache of a replica holds, on average; 0 where unknown.
    pub kv_tokens_per_replica: f64,
}

/// A request that has just been placed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Step costs of where it went: `a, b, c` and `d, e, f`.
    pub rates: Option<([f64; 3], [f64; 3])>,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// How much of it is cached there.
    pub cached_tokens: u32,
    /// Tokens that the answer is expected to have.
    pub output_tokens: f64,
    /// What was predicted of it.
    pub predicted: Predicted,
    /// Objective of the time to first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Objective of the time per output token, milliseconds.
    pub tpot_ms: Option<f64>,
}

impl Demand {
    /// Counts a request.
    pub fn placed(&mut self, it: &Placement) {
        let Some(([a, b, c], [d, e, f])) = it.rates else {
            self.unmodelled_requests += 1.0;
            return;
        };
        let uncached = it.prompt_tokens.saturating_sub(it.cached_tokens);
        let pairs = prefill_pairs(uncached, it.cached_tokens) as f64;
        let prefill_ms = a + b * f64::from(uncached) + c * pairs;
        let context_tokens = f64::from(it.prompt_tokens) + it.output_tokens / 2.0;
        self.requests += 1.0;
        self.prefill_ms += prefill_ms;
        self.overlap_ms += d.min(prefill_ms);
        self.prefill_ms_squared += prefill_ms * prefill_ms;
        self.decode_ms += it.output_tokens * (e + f * context_tokens);
        let mut is_missed = false;
        if let Some(objective) = it.ttft_ms {
            let limit_ms = objective.max(ISOLATED_FACTOR * prefill_ms);
            self.ttft_bounded_requests += 1.0;
            self.wait_allowance_ms += limit_ms - prefill_ms;
            is_missed |= it.predicted.ttft_ms.is_some_and(|ms| ms > limit_ms);
        }
        if let Some(objective) = it.tpot_ms
            && d < objective
        {
            self.tpot_floor += d / objective;
            is_missed |= it.predicted.tpot_ms.is_some_and(|ms| ms > objective);
        }
        self.missed_requests += f64::from(u8::from(is_missed));
    }

    /// What came between an earlier reading and this one, with what is so now. A count that is lower
    /// than before began anew.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let counted = |now: f64, then: f64| if now < then { now } else { now - then };
        let anew = self.requests < earlier.requests;
        let then = if anew { &Self::default() } else { earlier };
        Self {
            requests: counted(self.requests, then.requests),
            unmodelled_requests: counted(self.unmodelled_requests, then.unmodelled_requests),
            rejected_requests: counted(self.rejected_requests, then.rejected_requests),
            prefill_ms: counted(self.prefill_ms, then.prefill_ms),
            overlap_ms: counted(self.overlap_ms, then.overlap_ms),
            prefill_ms_squared: counted(self.prefill_ms_squared, then.prefill_ms_squared),
            decode_ms: counted(self.decode_ms, then.decode_ms),
            tpot_floor: counted(self.tpot_floor, then.tpot_floor),
            ttft_bounded_requests: counted(self.ttft_bounded_requests, then.ttft_bounded_requests),
            wait_allowance_ms: counted(self.wait_allowance_ms, then.wait_allowance_ms),
            missed_requests: counted(self.missed_requests, then.missed_requests),
            ..*self
        }
    }

    /// Both: counts and loads add up, a replica's size is the larger.
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.unmodelled_requests += other.unmodelled_requests;
        self.rejected_requests += other.rejected_requests;
        self.prefill_ms += other.prefill_ms;
        self.overlap_ms += other.overlap_ms;
        self.prefill_ms_squared += other.prefill_ms_squared;
        self.decode_ms += other.decode_ms;
        self.tpot_floor += other.tpot_floor;
        self.ttft_bounded_requests += other.ttft_bounded_requests;
        self.wait_allowance_ms += other.wait_allowance_ms;
        self.missed_requests += other.missed_requests;
        self.backlog_ms += other.backlog_ms;
        self.waiting_requests += other.waiting_requests;
        self.resident_tokens += other.resident_tokens;
        self.kv_tokens_per_replica = self.kv_tokens_per_replica.max(other.kv_tokens_per_replica);
    }

    /// Whether every number is one, and none is below 0.
    pub(super) fn is_sound(&self) -> bool {
        let all = [
            self.requests,
            self.unmodelled_requests,
            self.rejected_requests,
            self.prefill_ms,
            self.overlap_ms,
            self.prefill_ms_squared,
            self.decode_ms,
            self.tpot_floor,
            self.ttft_bounded_requests,
            self.wait_allowance_ms,
            self.missed_requests,
            self.backlog_ms,
            self.waiting_requests,
            self.resident_tokens,
            self.kv_tokens_per_replica,
        ];
        all.iter().all(|it| it.is_finite() && *it >= 0.0)
    }
}

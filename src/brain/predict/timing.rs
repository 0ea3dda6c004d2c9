//! What is known of an endpoint's timing, for people and for scorers.

use crate::fleet::{Columns, InFlight};
use crate::{Slot, Time};
use serde::{Deserialize, Serialize};

/// The coefficients of an endpoint's models, see [`EngineProfile`] for the formulas.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// `a`, milliseconds.
    pub prefill_base_ms: f64,
    /// `b`, milliseconds.
    pub prefill_ms_per_token: f64,
    /// `c`, milliseconds.
    pub prefill_ms_per_pair: f64,
    /// `d`, milliseconds.
    pub decode_base_ms: f64,
    /// `e`, milliseconds.
    pub decode_ms_per_request: f64,
    /// `f`, milliseconds.
    pub decode_ms_per_context_token: f64,
    /// First tokens that the endpoint itself has shown.
    pub prefills_observed: u32,
    /// Outputs that the endpoint itself has shown.
    pub decodes_observed: u32,
    /// Usual relative error of its prefill model, once it has one of its own.
    pub prefill_error: Option<f64>,
    /// Usual relative error of its decode model, once it has one of its own.
    pub decode_error: Option<f64>,
    /// Its prefills' time over what it was, while that has departed for good.
    #[serde(default)]
    pub prefill_drift: Option<f64>,
    /// The same of its decodes.
    #[serde(default)]
    pub decode_drift: Option<f64>,
}

impl Timing {
    /// The larger departure of the two that lasts, as latency over what it was.
    #[must_use]
    pub fn drift(&self) -> Option<f64> {
        let departures = [self.prefill_drift, self.decode_drift].into_iter().flatten();
        departures.max_by(|one, other| libm::log(*one).abs().total_cmp(&libm::log(*other).abs()))
    }
}

/// `a, b, c` and `d, e, f` of an endpoint, see [`EngineProfile`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Of a prefill: base, each token, each pair.
    pub prefill: [f64; 3],
    /// Of a step that decodes: base, each request, each token of context.
    pub decode: [f64; 3],
}

impl Rates {
    /// Milliseconds of prefills behind each other, by their number, uncached tokens and pairs in all.
    #[must_use]
    pub fn prefills_ms(&self, requests: f64, tokens: f64, pairs: f64) -> f64 {
        let [base, per_token, per_pair] = self.prefill;
        base * requests + per_token * tokens + per_pair * pairs
    }

    /// Milliseconds of a step that decodes everything in flight on a slot.
    #[must_use]
    pub fn step_ms(&self, columns: &Columns, slot: Slot) -> f64 {
        let [base, per_request, per_token] = self.decode;
        let at = slot.index();
        base + per_request * columns.inflight_requests[at]
            + per_token * columns.inflight_context_tokens[at]
    }

    /// Output tokens that a request has had by its time, if nobody counted them: one a step of
    /// `step_ms`, but for the time that prefills took meanwhile.
    #[must_use]
    pub fn generated_tokens(&self, now: Time, it: &InFlight, step_ms: f64) -> f64 {
        let Some(first) = it.first_token_at else { return 0.0 };
        let interrupted = self.prefill[1] * it.prefill_tokens + self.prefill[2] * it.prefill_pairs;
        ((now.millis_since(first) - interrupted) / step_ms).max(f64::from(it.output_tokens))
    }
}

//! The factor from a prediction to what nine of ten latencies do not pass, learned from how often
//! it was passed.
//!
//! Online quantile tracking: up by `pace * 0.9` with each latency that passes, down by
//! `pace * 0.1` with each that does not, so that over any long run about a tenth passes, whatever
//! the latencies' distribution and however it changes (Angelopoulos, Candes and Tibshirani,
//! arXiv 2307.16895, proposition 1: the miss rate is off by at most `(range + pace) / (pace * T)`).

use serde::{Deserialize, Serialize};

/// Share of latencies that may pass.
const MISSED: f64 = 0.1;
/// Logarithm moved by a miss, when many latencies have been seen, and when few have.
const PACE: f64 = 0.02;
const FIRST_PACE: f64 = 0.1;
/// The factor stays within these.
const LEAST: f64 = 0.3;
const MOST: f64 = 20.0;

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Margin {
    factor: f64,
    seen: u32,
}

impl Margin {
    pub(super) fn starting(factor: f64) -> Self {
        Self { factor, seen: 0 }
    }

    /// Learns that a latency was measured where `p90_ms` was predicted.
    pub(super) fn observe(&mut self, measured_ms: f64, p90_ms: f64) {
        if !(measured_ms.is_finite() && p90_ms.is_finite()) {
            return;
        }
        let missed = if measured_ms > p90_ms { 1.0 } else { 0.0 };
        self.seen = self.seen.saturating_add(1);
        let pace = (FIRST_PACE / f64::from(self.seen)).max(PACE);
        self.factor = (self.factor * libm::exp(pace * (missed - MISSED))).clamp(LEAST, MOST);
    }

    pub(super) fn factor(&self) -> f64 {
        self.factor
    }

    pub(super) fn is_sound(&self) -> bool {
        (LEAST..=MOST).contains(&self.factor)
    }
}

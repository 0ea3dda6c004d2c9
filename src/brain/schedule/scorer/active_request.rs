//! `active-request-scorer`: the fewer requests in flight, the better.
//!
//! Source: llm-d. Formula: 1 for an idle endpoint (at most `idle_threshold` requests); otherwise
//! `(max - n) / max * max_busy_score`, with the maximum over the candidates.
//!
//! Inputs: `inflight_requests` (booked, so never stale). Defaults: `idle_threshold` 0,
//! `max_busy_score` 1.
//! Limits: a long prompt counts like a short one.

use super::{Degraded, Scorer};
use crate::lanes::{greatest, vectorised};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, AMOUNT, Plugin, SHARE, in_range};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "active-request-scorer",
    build: |params| {
        let scorer: ActiveRequest = registry::read(params)?;
        in_range("idle_threshold", scorer.idle_threshold, AMOUNT)?;
        in_range("max_busy_score", scorer.max_busy_score, SHARE)?;
        Ok(Box::new(scorer))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ActiveRequest {
    idle_threshold: f64,
    max_busy_score: f64,
}

impl Default for ActiveRequest {
    fn default() -> Self {
        Self { idle_threshold: 0.0, max_busy_score: 1.0 }
    }
}

impl Scorer for ActiveRequest {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let inflight = cx.column(Feature::InflightRequests);
        vectorised(
            #[inline(always)]
            || {
                let max = greatest(inflight).max(0.0);
                for (out, &requests) in out.iter_mut().zip(inflight) {
                    let busy = (max - requests) / max * self.max_busy_score;
                    *out = if requests <= self.idle_threshold { 1.0 } else { busy };
                }
            },
        );
        Ok(())
    }
}

//! `prefix-cache-affinity-filter`: stay with those that hold most of the prompt, until they are
//! saturated.
//!
//! Source: llm-d, "sticky until saturated" (August 2026). Formula: an endpoint is sticky when
//! `matched / total blocks >= threshold`. Only the sticky ones are kept, unless the best estimated
//! time to first token among them is more than `max_ttft_penalty_ms` above the best among the
//! others; then everybody is. The estimate is `pending uncached tokens / peak prefill throughput`.
//!
//! Inputs: matched tokens, pending prefill tokens (booked, so never stale).
//! Defaults: `threshold` 0.80, `max_ttft_penalty_ms` 18,000 (0: always stick),
//! `peak_prefill_tokens_per_s` 15,928 (llm-d's for Qwen3-32B on 2 H100),
//! `exploration_probability` 0.
//! Limits: no effect without a sticky endpoint. A scorer for prefix hits after it works against
//! its saturation rule.

use super::Filter;
use crate::rng::Rng;
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, AMOUNT, Plugin, SHARE, in_range};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Filter> = Plugin {
    name: "prefix-cache-affinity-filter",
    build: |params| {
        let filter: PrefixCacheAffinity = registry::read(params)?;
        in_range("threshold", filter.threshold, SHARE)?;
        in_range("max_ttft_penalty_ms", filter.max_ttft_penalty_ms, AMOUNT)?;
        in_range("peak_prefill_tokens_per_s", filter.peak_prefill_tokens_per_s, 1e-3..=f64::MAX)?;
        in_range("exploration_probability", filter.exploration_probability, SHARE)?;
        Ok(Box::new(filter))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PrefixCacheAffinity {
    threshold: f64,
    max_ttft_penalty_ms: f64,
    peak_prefill_tokens_per_s: f64,
    exploration_probability: f64,
}

impl Default for PrefixCacheAffinity {
    fn default() -> Self {
        Self {
            threshold: 0.80,
            max_ttft_penalty_ms: 18_000.0,
            peak_prefill_tokens_per_s: 15_928.0,
            exploration_probability: 0.0,
        }
    }
}

impl Filter for PrefixCacheAffinity {
    fn filter(&self, cx: &Context<'_>, rng: &mut Rng, keep: &mut [bool]) {
        if self.exploration_probability > 0.0 && rng.next_f64() < self.exploration_probability {
            return;
        }
        let pending = cx.column(Feature::PendingPrefillTokens);
        let mut best_sticky = f64::INFINITY;
        let mut best_other = f64::INFINITY;
        for (row, keep) in keep.iter_mut().enumerate() {
            let ttft_ms = pending[row] / self.peak_prefill_tokens_per_s * 1e3;
            *keep = cx.features.hit_ratio(row) >= self.threshold;
            let best = if *keep { &mut best_sticky } else { &mut best_other };
            *best = best.min(ttft_ms);
        }
        let nobody_sticky = best_sticky.is_infinite();
        let saturated = self.max_ttft_penalty_ms > 0.0
            && best_other.is_finite()
            && best_sticky - best_other > self.max_ttft_penalty_ms;
        if nobody_sticky || saturated {
            keep.fill(true);
        }
    }
}

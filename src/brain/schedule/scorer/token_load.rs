//! `token-load-scorer`: the fewer uncached tokens in flight, this request's included, the better.
//!
//! Source: llm-d, the load half of "sticky until saturated". Formula:
//! `1 - min(1, (pending uncached tokens + this request's uncached tokens) / threshold_tokens)`.
//!
//! Inputs: `pending_prefill_tokens` (booked, so never stale), `uncached_tokens`.
//! Defaults: `threshold_tokens` 4,194,304.
//! Limits: blind to decodes; everybody above the threshold is alike.

use super::{Degraded, Scorer};
use crate::lanes::vectorised;
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin, in_range};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "token-load-scorer",
    build: |params| {
        let scorer: TokenLoad = registry::read(params)?;
        in_range("threshold_tokens", scorer.threshold_tokens, 1.0..=f64::MAX)?;
        Ok(Box::new(scorer))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TokenLoad {
    threshold_tokens: f64,
}

impl Default for TokenLoad {
    fn default() -> Self {
        Self { threshold_tokens: 4_194_304.0 }
    }
}

impl Scorer for TokenLoad {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let pending = cx.column(Feature::PendingPrefillTokens);
        let own = cx.column(Feature::UncachedTokens);
        vectorised(
            #[inline(always)]
            || {
                for (out, (pending, own)) in out.iter_mut().zip(pending.iter().zip(own)) {
                    *out = 1.0 - ((pending + own) / self.threshold_tokens).min(1.0);
                }
            },
        );
        Ok(())
    }
}

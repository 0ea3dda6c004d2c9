//! `mooncake-scorer`: the least estimated time to first token, with blocks fetched from who has most.
//!
//! Source: Mooncake (arXiv 2407.00079), cache-aware prefill scheduling. Formula: the lesser of the
//! predicted time to first token with what the candidate holds, and the same with the longest match of
//! all, plus `transfer_ms_per_token` for each token that it lacks of that. Where a candidate has no
//! model: uncached tokens pending and own. Defaults: 0.0065 ms (256 KiB a token at 40 GB/s).
//! Limits: the fleet must be able to fetch; where it cannot, the rule spreads prompts too willingly.

use super::{ByRule, Rule, best_match};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "mooncake-scorer",
    build: |params| {
        let rule: Mooncake = registry::read(params)?;
        in_range("transfer_ms_per_token", rule.transfer_ms_per_token, AMOUNT)?;
        Ok(Box::new(ByRule(rule)))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mooncake {
    transfer_ms_per_token: f64,
}

impl Default for Mooncake {
    fn default() -> Self {
        Self { transfer_ms_per_token: 0.0065 }
    }
}

impl Rule for Mooncake {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let ttft = cx.column(Feature::PredictedTtftMs);
        let matched = cx.column(Feature::MatchedTokens);
        if ttft.iter().any(|ttft| ttft.is_nan()) {
            let pending = cx.column(Feature::PendingPrefillTokens);
            let own = cx.column(Feature::UncachedTokens);
            (0..out.len()).for_each(|row| out[row] = pending[row] + own[row]);
            return;
        }
        let best = best_match(cx);
        for (row, out) in out.iter_mut().enumerate() {
            *out = ttft[row];
            if best > matched[row]
                && let Some(with) = cx.ttft_ms(cx.ids()[row].slot, best as u32)
            {
                *out = out.min(with + self.transfer_ms_per_token * (best - matched[row]));
            }
        }
    }
}

//! `mooncake-scorer`: the least estimated time to first token, with blocks fetched from who has most.
//!
//! Source: Mooncake (arXiv 2407.00079, algorithm 1), cache-aware prefill scheduling. Formula: the
//! prefill times of all that waits there, plus the prompt's own: the lesser of that with what the
//! candidate holds, and that with the longest match of all plus `transfer_ms_per_token` for each token
//! that it lacks of it. Times are of prefills alone, as in the source, whose prefill instances do not
//! decode; `min-ttft` has what decode adds and what the first prefill there has passed. (With the latter
//! alone the rule does worse: beside decodes a prefill is never as far as its own time says.) Where a
//! candidate has no model: uncached tokens pending and own. Parameters: `transfer_ms_per_token`, for a
//! fleet whose engines fetch blocks from each other (256 KiB a token at 40 GB/s: 0.0065); by default
//! they do not.

use super::{ByRule, Rule, best_match};
use crate::Slot;
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "mooncake-scorer",
    build: |params| {
        let rule: Mooncake = registry::read(params)?;
        if let Some(transfer_ms) = rule.transfer_ms_per_token {
            in_range("transfer_ms_per_token", transfer_ms, AMOUNT)?;
        }
        Ok(Box::new(ByRule(rule)))
    },
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Mooncake {
    transfer_ms_per_token: Option<f64>,
}

impl Rule for Mooncake {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let matched = cx.column(Feature::MatchedTokens);
        let best = best_match(cx);
        for (row, (out, id)) in out.iter_mut().zip(cx.ids()).enumerate() {
            let as_it_is = prefill_ms(cx, id.slot, matched[row]);
            let fetched = self.transfer_ms_per_token.and_then(|transfer_ms| {
                Some(prefill_ms(cx, id.slot, best)? + transfer_ms * (best - matched[row]))
            });
            *out = as_it_is.map_or(f64::NAN, |ms| ms.min(fetched.unwrap_or(ms)));
        }
        if out.iter().any(|cost| cost.is_nan()) {
            let pending = cx.column(Feature::PendingPrefillTokens);
            let own = cx.column(Feature::UncachedTokens);
            (0..out.len()).for_each(|row| out[row] = pending[row] + own[row]);
        }
    }
}

/// Prefill of all that waits on an endpoint and of the request, of which it holds so much.
fn prefill_ms(cx: &Context<'_>, slot: Slot, matched_tokens: f64) -> Option<f64> {
    let [base, per_token, per_pair] = cx.predictor.rates(slot)?.prefill;
    let (columns, at) = (cx.fleet.columns(), slot.index());
    let prompt = f64::from(cx.request.prompt_tokens);
    // An engine recomputes the last token of a prompt that it holds entirely.
    let new = (prompt - matched_tokens).max(1.0);
    let tokens = columns.pending_prefill_tokens[at] + new;
    let pairs = columns.pending_prefill_pairs[at] + new * (prompt - new + new / 2.0);
    Some(base + per_token * tokens + per_pair * pairs)
}

//! `mooncake-scorer`: the least estimated time to first token, of queue and prefill.
//!
//! Source: Mooncake (arXiv 2407.00079), cache-aware prefill scheduling without transfer between
//! caches. Formula: `b * (pending + own tokens) + c * (pending + own pairs)` of the endpoint's prefill
//! model, less what has passed of the prefill under way; in tokens where any candidate has no model; of
//! equal ones who has the fewest requests.
//! Parameters: none. Limits: blind to decodes.

use super::{ByRule, Rule};
use crate::fleet::prefill_pairs;
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "mooncake-scorer",
    build: |params| Ok(Box::new(ByRule(registry::read::<Mooncake>(params)?))),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mooncake {}

/// Milliseconds that a request in flight counts: so little that it only parts equal ones.
const TIE_MS: f64 = 0.01;

impl Rule for Mooncake {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let ttft = cx.column(Feature::PredictedTtftMs);
        let matched = cx.column(Feature::MatchedTokens);
        let best = super::best_match(cx);
        let prompt = cx.request.prompt_tokens;
        for (row, out) in out.iter_mut().enumerate() {
            *out = ttft[row];
            if best > matched[row]
                && let Some(with) = cx.ttft_ms(cx.ids()[row].slot, best as u32)
            {
                let moved = (best - matched[row]) * 0.0065;
                *out = out.min(with + moved);
            }
        }
    }
}

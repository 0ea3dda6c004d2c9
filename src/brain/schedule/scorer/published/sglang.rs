//! `sglang-scorer`: the best match while loads are balanced, the least load otherwise.
//!
//! Source: SGLang's router, `cache_aware`. Formula: where the most and the least requests in flight
//! are more than `balance_abs` apart and by a factor of more than `balance_rel`, the fewest requests;
//! else, where the best match is above `match_threshold` of the prompt, the longest match; else the
//! fewest requests. Defaults: 32, 1.1, 0.5.

use super::{ByRule, Rule, best_match, inflight_range};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "sglang-scorer",
    build: |params| {
        let rule: Sglang = registry::read(params)?;
        in_range("balance_abs", rule.balance_abs, AMOUNT)?;
        in_range("balance_rel", rule.balance_rel, AMOUNT)?;
        in_range("match_threshold", rule.match_threshold, 0.0..=1.0)?;
        Ok(Box::new(ByRule(rule)))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sglang {
    balance_abs: f64,
    balance_rel: f64,
    match_threshold: f64,
}

impl Default for Sglang {
    fn default() -> Self {
        Self { balance_abs: 32.0, balance_rel: 1.1, match_threshold: 0.5 }
    }
}

impl Rule for Sglang {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let (least, most) = inflight_range(cx);
        let is_balanced = most - least <= self.balance_abs || most <= self.balance_rel * least;
        let enough = self.match_threshold * f64::from(cx.request.prompt_tokens);
        if is_balanced && best_match(cx) > enough {
            out.copy_from_slice(cx.column(Feature::UncachedTokens));
        } else {
            out.copy_from_slice(cx.column(Feature::InflightRequests));
        }
    }
}

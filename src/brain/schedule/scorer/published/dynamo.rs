//! `dynamo-scorer`: blocks to prefill and blocks that decode.
//!
//! Source: NVIDIA Dynamo 1.6.1's KV router at temperature 0. Formula: `overlap_weight * (pending + own
//! uncached tokens) / block + context in flight / block`. Defaults: `overlap_weight` 1.

use super::{ByRule, Rule};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "dynamo-scorer",
    build: |params| {
        let rule: Dynamo = registry::read(params)?;
        in_range("overlap_weight", rule.overlap_weight, AMOUNT)?;
        Ok(Box::new(ByRule(rule)))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Dynamo {
    overlap_weight: f64,
}

impl Default for Dynamo {
    fn default() -> Self {
        Self { overlap_weight: 1.0 }
    }
}

impl Rule for Dynamo {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let block = f64::from(cx.request.block_tokens.max(1));
        let pending = cx.column(Feature::PendingPrefillTokens);
        let own = cx.column(Feature::UncachedTokens);
        let context = cx.column(Feature::InflightContextTokens);
        for (row, out) in out.iter_mut().enumerate() {
            *out = (self.overlap_weight * (pending[row] + own[row]) + context[row]) / block;
        }
    }
}

//! `min-ttft-scorer`: the least predicted time to first token.
//!
//! Source: the greedy rule that any latency predictor suggests. Formula: the prediction, by the
//! endpoint's models; uncached tokens in flight and own where it has none. Parameters: none.

use super::{ByRule, Rule};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "min-ttft-scorer",
    build: |params| Ok(Box::new(ByRule(registry::read::<MinTtft>(params)?))),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MinTtft {}

impl Rule for MinTtft {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let predicted = cx.column(Feature::PredictedTtftMs);
        if predicted.iter().any(|ttft| ttft.is_nan()) {
            let pending = cx.column(Feature::PendingPrefillTokens);
            let own = cx.column(Feature::UncachedTokens);
            (0..out.len()).for_each(|row| out[row] = pending[row] + own[row]);
        } else {
            out.copy_from_slice(predicted);
        }
    }
}

//! `lmetric-scorer`: queued and new uncached tokens, times the batch.
//!
//! Source: LMETRIC (arXiv 2603.15202). Formula: `(pending + own uncached tokens) * (in flight + 1)`.
//! Parameters: none.

use super::{ByRule, Rule};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "lmetric-scorer",
    build: |params| Ok(Box::new(ByRule(registry::read::<Lmetric>(params)?))),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lmetric {}

impl Rule for Lmetric {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let pending = cx.column(Feature::PendingPrefillTokens);
        let own = cx.column(Feature::UncachedTokens);
        let batch = cx.column(Feature::InflightRequests);
        for (row, out) in out.iter_mut().enumerate() {
            *out = (pending[row] + own[row]) * (batch[row] + 1.0);
        }
    }
}

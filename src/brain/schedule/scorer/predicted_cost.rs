//! `predicted-cost-scorer`: the least predicted cost of placing the request.

use super::{Degraded, Scorer};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "predicted-cost-scorer",
    build: |params| Ok(Box::new(registry::read::<PredictedCost>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PredictedCost {}

impl Scorer for PredictedCost {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let pending = cx.column(Feature::PendingPrefillTokens);
        let own = cx.column(Feature::UncachedTokens);
        for (row, out) in out.iter_mut().enumerate() {
            *out = 1.0 / (1.0 + pending[row] + own[row]);
        }
        Ok(())
    }
}

//! `slo-headroom-tier-filter`: those that will meet the request's latency objectives.
//!
//! Source: llm-d. Formula: an endpoint's headroom is objective minus prediction; the positive tier
//! has no negative headroom in either time to first token or time per output token. Where both
//! tiers have members the positive one is kept, but with `explore_negative_probability` the
//! negative one, so that an endpoint that was slow once is tried again.
//!
//! Inputs: predicted latencies, the request's objectives. Defaults:
//! `explore_negative_probability` 0.01.
//! Limits: an objective that the request does not have is always met; without any objective, or
//! without any prediction, everybody is kept. Who has no prediction counts as negative.

use super::Filter;
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::headroom::Headroom;
use crate::schedule::registry::{self, Plugin, SHARE, in_range};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Filter> = Plugin {
    name: "slo-headroom-tier-filter",
    build: |params| {
        let filter: SloHeadroomTier = registry::read(params)?;
        in_range("explore_negative_probability", filter.explore_negative_probability, SHARE)?;
        Ok(Box::new(filter))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SloHeadroomTier {
    explore_negative_probability: f64,
}

impl Default for SloHeadroomTier {
    fn default() -> Self {
        Self { explore_negative_probability: 0.01 }
    }
}

impl Filter for SloHeadroomTier {
    fn filter(&self, cx: &Context<'_>, rng: &mut Rng, keep: &mut [bool]) {
        let mut predicted = false;
        let mut positive = 0;
        for (row, keep) in keep.iter_mut().enumerate() {
            let headroom = Headroom::of(cx, row);
            predicted |= headroom.is_some();
            *keep = headroom.is_some_and(|headroom| headroom.is_met());
            positive += usize::from(*keep);
        }
        if !predicted || positive == 0 {
            keep.fill(true);
        } else if positive < keep.len() && rng.next_f64() < self.explore_negative_probability {
            for keep in keep.iter_mut() {
                *keep = !*keep;
            }
        }
    }
}

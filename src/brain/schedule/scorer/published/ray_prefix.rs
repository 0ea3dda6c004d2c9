//! `ray-prefix-scorer`: the longest match while loads are balanced.
//!
//! Source: Ray 2.60, `PrefixCacheAffinityRouter`. Formula: where requests in flight are at most
//! `imbalance` apart, the longest match if it is at least `match_rate` of the prompt, else who was
//! given the fewest tokens to cache; otherwise the fewest requests (Ray takes the better of two drawn
//! by chance). Defaults: 10, 0.1.

use super::{ByRule, Rule, best_match, inflight_range};
use crate::Slot;
use crate::schedule::Feature;
use crate::schedule::context::{Context, Placed};
use crate::schedule::registry::{self, AMOUNT, Plugin, in_range};
use crate::schedule::scorer::Scorer;
use serde::Deserialize;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "ray-prefix-scorer",
    build: |params| {
        let params: Params = registry::read(params)?;
        in_range("imbalance", params.imbalance, AMOUNT)?;
        in_range("match_rate", params.match_rate, 0.0..=1.0)?;
        Ok(Box::new(ByRule(RayPrefix { params, given: Vec::new() })))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    imbalance: f64,
    match_rate: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { imbalance: 10.0, match_rate: 0.1 }
    }
}

struct RayPrefix {
    params: Params,
    /// Tokens that each endpoint was given to compute.
    given: Vec<f64>,
}

impl Rule for RayPrefix {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let (least, most) = inflight_range(cx);
        if most - least > self.params.imbalance {
            out.copy_from_slice(cx.column(Feature::InflightRequests));
        } else if best_match(cx) >= self.params.match_rate * f64::from(cx.request.prompt_tokens) {
            out.copy_from_slice(cx.column(Feature::UncachedTokens));
        } else {
            for (row, out) in out.iter_mut().enumerate() {
                *out = self.given[cx.ids()[row].slot.index()];
            }
        }
    }

    fn make_room(&mut self, slots: usize) {
        self.given.resize(slots.max(self.given.len()), 0.0);
    }

    fn placed(&mut self, placed: &Placed<'_>) {
        let tokens = placed.request.prompt_tokens.saturating_sub(placed.matched_tokens);
        self.given[placed.endpoint.slot.index()] += f64::from(tokens);
    }

    fn left(&mut self, slot: Slot) {
        if let Some(given) = self.given.get_mut(slot.index()) {
            *given = 0.0;
        }
    }
}

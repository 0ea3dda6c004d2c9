//! `preble-scorer`: exploit a long match, else explore by recent work.
//!
//! Source: Preble's E2 (arXiv 2407.00023). Formula: where the best match is more than
//! `match_threshold` of the prompt, the least recent work among those who hold it; else the least
//! recent work and own prefill. Recent work: tokens given to compute, fading over `window_s`.
//! Defaults: 0.5, 180.
//! Limits: the paper's window ends sharply and prices the decodes and evictions of each tree node.

use super::{ByRule, Rule, best_match};
use crate::Slot;
use crate::schedule::Feature;
use crate::schedule::context::{Context, Placed};
use crate::schedule::registry::{self, Plugin, in_range};
use crate::schedule::scorer::Scorer;
use crate::schedule::scorer::churn::Churn;
use serde::Deserialize;
use std::time::Duration;

pub(in crate::schedule::scorer) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "preble-scorer",
    build: |params| {
        let params: Params = registry::read(params)?;
        in_range("match_threshold", params.match_threshold, 0.0..=1.0)?;
        in_range("window_s", params.window_s, 0.1..=86_400.0)?;
        let work = Churn::new(Duration::from_secs_f64(params.window_s));
        Ok(Box::new(ByRule(Preble { params, work })))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    match_threshold: f64,
    window_s: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { match_threshold: 0.5, window_s: 180.0 }
    }
}

struct Preble {
    params: Params,
    work: Churn,
}

impl Rule for Preble {
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]) {
        let best = best_match(cx);
        let exploits = best > self.params.match_threshold * f64::from(cx.request.prompt_tokens);
        let (matched, own) =
            (cx.column(Feature::MatchedTokens), cx.column(Feature::UncachedTokens));
        let faded = self.work.faded(cx.now);
        for (row, out) in out.iter_mut().enumerate() {
            let at = cx.ids()[row].slot.index();
            let work = faded * self.work.scaled(at..at + 1)[0] + own[row];
            *out = if exploits && matched[row] < best { f64::INFINITY } else { work };
        }
    }

    fn make_room(&mut self, slots: usize) {
        self.work.make_room(slots);
    }

    fn placed(&mut self, placed: &Placed<'_>) {
        let tokens = placed.request.prompt_tokens.saturating_sub(placed.matched_tokens);
        self.work.add(placed.now, placed.endpoint.slot, tokens.into());
    }

    fn left(&mut self, slot: Slot) {
        self.work.clear(slot);
    }
}

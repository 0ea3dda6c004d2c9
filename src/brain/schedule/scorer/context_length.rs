//! `context-length-aware`: prefer the endpoint whose declared range of prompt lengths fits tightest.
//!
//! Source: llm-d. Formula, with `width = max - min` tokens of the label `"min-max"`:
//! - in the range: `0.3 + 0.7 * (0.7 / (1 + width/10,000) + 0.3 * (max - prompt) / width)`, or 1 for
//!   a range of a single length;
//! - outside: `0.3 / (1 + distance/1,000)`, the distance to the nearer end;
//! - no label, or one that is not a range: 0.5.
//!
//! Inputs: the label, the prompt's length. Defaults: `label` `llm-d.ai/context-length-range`.
//! Limits: an in-range endpoint always beats one out of range; a filter of the same name removes
//! the latter. llm-d gives a label that is not a range 0; here it says nothing, like none.

use super::{Degraded, NEUTRAL, Scorer};
use crate::schedule::context::Context;
use crate::schedule::context_length::{ContextLengthLabel, ContextRange};
use crate::schedule::registry::{self, Plugin};

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "context-length-aware",
    build: |params| Ok(Box::new(registry::read::<ContextLengthLabel>(params)?)),
};

/// The least score in the range and the most outside.
const FLOOR: f64 = 0.3;

fn fit(range: ContextRange, prompt_tokens: u32) -> f64 {
    if !range.contains(prompt_tokens) {
        return FLOOR / (1.0 + f64::from(range.distance(prompt_tokens)) / 1e3);
    }
    if range.width() == 0 {
        return 1.0;
    }
    let width = f64::from(range.width());
    let tightness = 1.0 / (1.0 + width / 1e4);
    let room = f64::from(range.room_above(prompt_tokens)) / width;
    FLOOR + (1.0 - FLOOR) * (0.7 * tightness + 0.3 * room)
}

impl Scorer for ContextLengthLabel {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        for (out, spec) in out.iter_mut().zip(cx.specs()) {
            let label = spec.and_then(|spec| spec.labels.get(&self.label));
            let range = label.and_then(|label| ContextRange::parse(label));
            *out = range.map_or(NEUTRAL, |range| fit(range, cx.request.prompt_tokens));
        }
        Ok(())
    }
}

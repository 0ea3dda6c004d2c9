//! `context-length-aware` as a filter: the endpoints whose declared range holds the prompt.
//!
//! Source: llm-d's `context-length-aware` with filtering enabled. Formula: keep when
//! `min <= prompt tokens <= max` of the label `"min-max"`; an endpoint without the label, or whose
//! label is not a range, takes any length.
//!
//! Inputs: the label, the prompt's length. Defaults: `label` `llm-d.ai/context-length-range`.
//! Limits: soft; score with the scorer of the same name to prefer the tightest range.

use super::Filter;
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::context_length::{ContextLengthLabel, ContextRange};
use crate::schedule::registry::{self, Plugin};

pub(super) const PLUGIN: Plugin<dyn Filter> = Plugin {
    name: "context-length-aware",
    build: |params| Ok(Box::new(registry::read::<ContextLengthLabel>(params)?)),
};

impl Filter for ContextLengthLabel {
    fn filter(&self, cx: &Context<'_>, _rng: &mut Rng, keep: &mut [bool]) {
        let prompt_tokens = cx.request.prompt_tokens;
        for (keep, spec) in keep.iter_mut().zip(cx.specs()) {
            let label = spec.and_then(|spec| spec.labels.get(&self.label));
            let range = label.and_then(|label| ContextRange::parse(label));
            *keep = range.is_none_or(|range| range.contains(prompt_tokens));
        }
    }
}

//! `lora-residency-filter`: the endpoints that serve the adapter that the request asks for.
//!
//! Source: llm-d's LoRA residency filter. Formula: keep who declares the adapter, or reports it as
//! running or waiting. Inputs: the declared adapters and those of the metrics page, of any age: an
//! adapter that was loaded once is loaded faster again. Parameters: none.
//! Limits: soft, so an adapter that nobody serves yet may still be loaded on demand; a request
//! without an adapter is not filtered.

use super::Filter;
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Filter> = Plugin {
    name: "lora-residency-filter",
    build: |params| Ok(Box::new(registry::read::<LoraResidency>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoraResidency {}

impl Filter for LoraResidency {
    fn filter(&self, cx: &Context<'_>, _rng: &mut Rng, keep: &mut [bool]) {
        let Some(adapter) = &cx.request.lora else { return };
        for (keep, id) in keep.iter_mut().zip(cx.ids()) {
            *keep = cx.fleet.serves_lora(id.slot, adapter);
        }
    }
}

//! `lora-affinity-scorer`: prefer who has the adapter loaded, then who has room for it.
//!
//! Source: llm-d. Formula: the adapter runs 1.0; there is room for one more 0.8; it has requests
//! waiting 0.6; every place is taken by others 0.
//!
//! Inputs: running and waiting adapters and the number of places, as reported; the adapters that
//! the endpoint's owner declares. Parameters: none.
//! Limits: an endpoint that reports no adapters counts as having room if its owner declares the
//! adapter, and is neutral otherwise; so is everybody for a request without an adapter.

use super::{Degraded, NEUTRAL, Scorer};
use crate::fleet::LoraState;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "lora-affinity-scorer",
    build: |params| Ok(Box::new(registry::read::<LoraAffinity>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoraAffinity {}

impl Scorer for LoraAffinity {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        let Some(adapter) = &cx.request.lora else {
            out.fill(NEUTRAL);
            return Ok(());
        };
        for (out, id) in out.iter_mut().zip(cx.ids()) {
            *out = match cx.fleet.lora_state(cx.now, id.slot, adapter) {
                LoraState::Running => 1.0,
                LoraState::Room => 0.8,
                LoraState::Waiting => 0.6,
                LoraState::Full => 0.0,
                LoraState::Unknown if cx.fleet.serves_lora(id.slot, adapter) => 0.8,
                LoraState::Unknown => NEUTRAL,
            };
        }
        Ok(())
    }
}

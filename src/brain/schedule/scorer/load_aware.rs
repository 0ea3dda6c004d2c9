//! `load-aware-scorer`: the engine's queue on an absolute scale.
//!
//! Source: llm-d. Formula: `0.5 * (1 - min(waiting, threshold) / threshold)`; an empty queue is 0.5.
//!
//! Inputs: `waiting_requests`, as reported. Defaults: `threshold` 128 requests.
//! Limits: never above 0.5, since llm-d keeps the upper half for a measure of spare capacity; so an
//! unknown queue, at 0.5, reads as an empty one.

use super::{Degraded, NEUTRAL, Scorer};
use crate::schedule::Feature;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin, in_range};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "load-aware-scorer",
    build: |params| {
        let scorer: LoadAware = registry::read(params)?;
        in_range("threshold", scorer.threshold, 1.0..=f64::MAX)?;
        Ok(Box::new(scorer))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LoadAware {
    threshold: f64,
}

impl Default for LoadAware {
    fn default() -> Self {
        Self { threshold: 128.0 }
    }
}

impl Scorer for LoadAware {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        for (out, &waiting) in out.iter_mut().zip(cx.column(Feature::WaitingRequests)) {
            *out = if waiting.is_nan() {
                NEUTRAL
            } else {
                0.5 * (1.0 - waiting.clamp(0.0, self.threshold) / self.threshold)
            };
        }
        Ok(())
    }
}

//! `no-hit-lru-scorer`: prompts that nobody has cached go round, so that caches grow evenly.
//!
//! Source: llm-d. Formula: a prompt that anybody has a part of scores 0.5 everywhere. Otherwise
//! endpoints are ranked by when they last were given such a cold prompt, and score
//! `1 - rank / (n - 1)`; those that never were come first and share rank 0, the others follow,
//! longest ago first.
//!
//! Inputs: matched tokens; its own memory. Defaults: `size` 1,024 endpoints (the one that was
//! given a cold prompt longest ago is forgotten, and so counts as new).
//! Limits: llm-d ranks the new ones by their position in its list; here they tie, and the picker
//! breaks the tie.

use super::{Degraded, NEUTRAL, Scorer};
use crate::schedule::Feature;
use crate::schedule::context::{Context, Placed};
use crate::schedule::registry::{self, Plugin, in_range};
use crate::{EndpointId, Slot};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Scorer> = Plugin {
    name: "no-hit-lru-scorer",
    build: |params| {
        let Params { size } = registry::read(params)?;
        in_range("size", f64::from(size), 1.0..=65_536.0)?;
        Ok(Box::new(NoHitLru { size: size as usize, order: Vec::new() }))
    },
};

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Params {
    size: u32,
}

impl Default for Params {
    fn default() -> Self {
        Self { size: 1_024 }
    }
}

struct NoHitLru {
    size: usize,
    /// Who was given a cold prompt, longest ago first.
    order: Vec<EndpointId>,
}

impl Scorer for NoHitLru {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        if cx.column(Feature::MatchedTokens).iter().any(|&matched| matched > 0.0) {
            out.fill(NEUTRAL);
            return Ok(());
        }
        out.fill(1.0);
        let steps = out.len().saturating_sub(1).max(1) as f64;
        let known = self
            .order
            .iter()
            .filter_map(|id| cx.features.row(id.slot).filter(|&row| cx.ids()[row] == *id));
        // Ranks count down from the one given a cold prompt last.
        let mut rank = out.len();
        for row in known.rev() {
            rank -= 1;
            out[row] = 1.0 - rank as f64 / steps;
        }
        Ok(())
    }

    fn placed(&mut self, placed: &Placed<'_>) {
        if placed.best_matched_tokens > 0 {
            return;
        }
        self.left(placed.endpoint.slot);
        if self.order.len() == self.size {
            self.order.remove(0);
        }
        self.order.push(placed.endpoint);
    }

    fn left(&mut self, slot: Slot) {
        self.order.retain(|id| id.slot != slot);
    }
}

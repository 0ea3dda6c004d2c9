//! `round-robin-picker`: everybody in turn, by slot. Parameters: none.
//!
//! Formula: the first candidate after the slot that got the last request, or else the first.
//! Limits: reads no score. The turn moves when a placement is carried out.

use super::Picker;
use crate::Slot;
use crate::rng::Rng;
use crate::schedule::context::{Context, Placed};
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Picker> = Plugin {
    name: "round-robin-picker",
    build: |params| {
        let Params {} = registry::read(params)?;
        Ok(Box::new(RoundRobin { last: None }))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {}

struct RoundRobin {
    last: Option<Slot>,
}

impl Picker for RoundRobin {
    fn pick(&self, cx: &Context<'_>, _totals: &[f64], _rng: &mut Rng) -> usize {
        let next = cx.ids().partition_point(|id| Some(id.slot) <= self.last);
        if next < cx.len() { next } else { 0 }
    }

    fn placed(&mut self, placed: &Placed<'_>) {
        self.last = Some(placed.endpoint.slot);
    }
}

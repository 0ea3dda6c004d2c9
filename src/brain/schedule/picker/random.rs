//! `random-picker`: anybody, with equal chance. Source: llm-d. Parameters: none.
//! Limits: reads no score.

use super::{Picker, any_row};
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Picker> = Plugin {
    name: "random-picker",
    build: |params| Ok(Box::new(registry::read::<Random>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Random {}

impl Picker for Random {
    fn pick(&self, _cx: &Context<'_>, totals: &[f64], rng: &mut Rng) -> usize {
        any_row(totals.len(), rng)
    }
}

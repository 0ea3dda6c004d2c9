//! `max-score-picker`: the highest total; ties go by chance.
//!
//! Source: llm-d, which shuffles ties. Formula: argmax; of `k` equal totals each is picked with
//! probability `1/k` (reservoir sampling, one draw a tie). Parameters: none.
//! Limits: requests that see the same totals go to the same endpoint.

use super::Picker;
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;
use std::cmp::Ordering;

pub(super) const PLUGIN: Plugin<dyn Picker> = Plugin {
    name: "max-score-picker",
    build: |params| Ok(Box::new(registry::read::<MaxScore>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaxScore {}

impl Picker for MaxScore {
    fn pick(&self, _cx: &Context<'_>, totals: &[f64], rng: &mut Rng) -> usize {
        let mut best = 0;
        let mut ties = 1;
        for (row, total) in totals.iter().enumerate().skip(1) {
            match total.total_cmp(&totals[best]) {
                Ordering::Greater => (best, ties) = (row, 1),
                Ordering::Equal => {
                    ties += 1;
                    if rng.below(ties) == 0 {
                        best = row;
                    }
                }
                Ordering::Less => {}
            }
        }
        best
    }
}

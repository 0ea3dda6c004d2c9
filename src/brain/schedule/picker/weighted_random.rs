//! `weighted-random-picker`: by chance in proportion to the total.
//!
//! Source: llm-d. Formula: `P(i) = total_i / sum of totals`; uniform where all are 0. One draw.
//! Parameters: none. Limits: spreads a burst at the price of cache hits.

use super::{Picker, any_row};
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Picker> = Plugin {
    name: "weighted-random-picker",
    build: |params| Ok(Box::new(registry::read::<WeightedRandom>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeightedRandom {}

impl Picker for WeightedRandom {
    fn pick(&self, _cx: &Context<'_>, totals: &[f64], rng: &mut Rng) -> usize {
        let sum: f64 = totals.iter().sum();
        if sum <= 0.0 {
            return any_row(totals.len(), rng);
        }
        let mut left = rng.next_f64() * sum;
        for (row, &total) in totals.iter().enumerate() {
            left -= total;
            if left < 0.0 {
                return row;
            }
        }
        // Rounding used the sum up: the last one with a chance.
        totals.iter().rposition(|&total| total > 0.0).unwrap_or_default()
    }
}

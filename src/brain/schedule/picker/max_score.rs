//! `max-score-picker`: the highest total; ties go by chance.
//!
//! Source: llm-d, which shuffles ties. Formula: argmax; of `k` equal totals each is picked with
//! probability `1/k` (one draw where there is a tie). Parameters: none.
//! Limits: requests that see the same totals go to the same endpoint.

use super::Picker;
use crate::lanes::{greatest, vectorised};
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Picker> = Plugin {
    name: "max-score-picker",
    build: |params| Ok(Box::new(registry::read::<MaxScore>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MaxScore {}

impl Picker for MaxScore {
    fn pick(&self, _cx: &Context<'_>, totals: &[f64], rng: &mut Rng) -> usize {
        let (best, ties) = vectorised(
            #[inline(always)]
            || {
                let best = greatest(totals);
                (best, totals.iter().map(|total| u64::from(*total >= best)).sum())
            },
        );
        let skip = if ties > 1 { rng.below(ties) } else { 0 };
        nth_at_least(best, skip as usize, totals).unwrap_or_default()
    }
}

/// The row of the total number `nth` of those that are at least `least`.
fn nth_at_least(least: f64, mut nth: usize, totals: &[f64]) -> Option<usize> {
    const CHUNK: usize = 32;
    for (number, chunk) in totals.chunks(CHUNK).enumerate() {
        let here = chunk.iter().map(|total| usize::from(*total >= least)).sum();
        if nth < here {
            let mut tied = (0..chunk.len()).filter(|&row| chunk[row] >= least);
            return tied.nth(nth).map(|row| number * CHUNK + row);
        }
        nth -= here;
    }
    None
}

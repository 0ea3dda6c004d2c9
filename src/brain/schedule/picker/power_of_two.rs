//! `power-of-two-picker`: the better of two taken by chance.
//!
//! Source: Mitzenmacher, "The power of two choices in randomized load balancing", 2001. Formula:
//! two different candidates, uniformly; the higher total, the first drawn on a tie. Two draws.
//! Parameters: none. Limits: finds the one holder of a prefix among `n` with probability `2/n`
//! only; made for scores of load.

use super::{Picker, any_row};
use crate::rng::Rng;
use crate::schedule::context::Context;
use crate::schedule::registry::{self, Plugin};
use serde::Deserialize;

pub(super) const PLUGIN: Plugin<dyn Picker> = Plugin {
    name: "power-of-two-picker",
    build: |params| Ok(Box::new(registry::read::<PowerOfTwo>(params)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PowerOfTwo {}

impl Picker for PowerOfTwo {
    fn pick(&self, _cx: &Context<'_>, totals: &[f64], rng: &mut Rng) -> usize {
        let rows = totals.len();
        if rows == 1 {
            return 0;
        }
        let first = any_row(rows, rng);
        let second = (first + 1 + any_row(rows - 1, rng)) % rows;
        if totals[second] > totals[first] { second } else { first }
    }
}

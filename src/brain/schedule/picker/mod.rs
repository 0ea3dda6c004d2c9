//! Pickers: from the weighted sums to the one that gets the request.
//!
//! What every picker guarantees: the index of a candidate; the same inputs and the same state of
//! the generator give the same one. There is at least one candidate, and every total is finite.

mod max_score;
mod power_of_two;
mod random;
mod round_robin;
mod weighted_random;

use super::context::{Context, Placed};
use super::registry::Plugin;
use crate::rng::Rng;

/// The last step of a decision.
pub trait Picker: Send {
    /// The row of the candidate that gets the request.
    fn pick(&self, cx: &Context<'_>, totals: &[f64], rng: &mut Rng) -> usize;

    /// A request was placed.
    fn placed(&mut self, _placed: &Placed<'_>) {}
}

/// Every picker, in the order in which messages list them.
pub(super) const PICKERS: &[Plugin<dyn Picker>] = &[
    max_score::PLUGIN,
    power_of_two::PLUGIN,
    random::PLUGIN,
    round_robin::PLUGIN,
    weighted_random::PLUGIN,
];

/// A uniformly random row.
fn any_row(rows: usize, rng: &mut Rng) -> usize {
    rng.below(rows as u64) as usize
}

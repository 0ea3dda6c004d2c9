//! Policies as their authors published them, each a rule that gives every candidate a cost. They are
//! here to be compared with, and to be used by those who know them.
//!
//! Every rule takes load from this router's own bookings where its source scrapes it: that is kinder
//! to the rule.

mod aibrix;
mod dualmap;
mod dynamo;
mod lmetric;
mod min_ttft;
mod mooncake;
mod preble;
mod ray_prefix;
mod sglang;

pub(super) use aibrix::PLUGIN as AIBRIX;
pub(super) use dualmap::PLUGIN as DUALMAP;
pub(super) use dynamo::PLUGIN as DYNAMO;
pub(super) use lmetric::PLUGIN as LMETRIC;
pub(super) use min_ttft::PLUGIN as MIN_TTFT;
pub(super) use mooncake::PLUGIN as MOONCAKE;
pub(super) use preble::PLUGIN as PREBLE;
pub(super) use ray_prefix::PLUGIN as RAY_PREFIX;
pub(super) use sglang::PLUGIN as SGLANG;

use super::{Degraded, Scorer};
use crate::Slot;
use crate::lanes::{greatest, least};
use crate::schedule::Feature;
use crate::schedule::context::{Context, Placed};

/// A published rule.
trait Rule: Send {
    /// The cost of each candidate; infinite for those that the rule does not consider.
    fn costs(&self, cx: &Context<'_>, out: &mut [f64]);

    /// As [`Scorer::make_room`].
    fn make_room(&mut self, _slots: usize) {}

    /// As [`Scorer::placed`].
    fn placed(&mut self, _placed: &Placed<'_>) {}

    /// As [`Scorer::left`].
    fn left(&mut self, _slot: Slot) {}
}

/// A rule as a scorer: `(least cost + 1) / (cost + 1)`.
struct ByRule<R>(R);

impl<R: Rule> Scorer for ByRule<R> {
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded> {
        self.0.costs(cx, out);
        let best = least(out) + 1.0;
        for out in out.iter_mut() {
            *out = if out.is_finite() { best / (*out + 1.0) } else { 0.0 };
        }
        Ok(())
    }

    fn make_room(&mut self, slots: usize) {
        self.0.make_room(slots);
    }

    fn placed(&mut self, placed: &Placed<'_>) {
        self.0.placed(placed);
    }

    fn left(&mut self, slot: Slot) {
        self.0.left(slot);
    }
}

/// The least and the most requests in flight on any candidate.
fn inflight_range(cx: &Context<'_>) -> (f64, f64) {
    let inflight = cx.column(Feature::InflightRequests);
    (least(inflight), greatest(inflight))
}

/// The most matched tokens of any candidate.
fn best_match(cx: &Context<'_>) -> f64 {
    greatest(cx.column(Feature::MatchedTokens)).max(0.0)
}

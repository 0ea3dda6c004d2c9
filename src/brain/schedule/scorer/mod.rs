//! Scorers: how good a candidate is, in `[0, 1]`.
//!
//! What every scorer guarantees, and the shared suite checks: a number in `[0, 1]` for every
//! candidate; the same inputs give the same bits; candidates are treated alike whatever their
//! slots; a signal that is unknown (NaN: never reported, or too old) gives [`NEUTRAL`] to the
//! candidate that it concerns. What is foreign guarantees nothing: the scheduler clamps it, and
//! counts a NaN as 0.
//!
//! A scorer reads and does not change; one that remembers learns in [`Scorer::placed`], which is
//! called for a placement that is carried out and never for a dry run.

mod active_request;
mod churn;
mod context_length;
mod foreign;
mod gpu_utilization;
mod kv_cache_utilization;
mod latency;
mod load_aware;
mod lora_affinity;
mod no_hit_lru;
mod predicted_cost;
mod prefix_cache;
mod published;
mod queue;
mod running_requests;
mod session_affinity;
mod session_hash;
mod token_load;
mod topology_affinity;

pub(super) use foreign::column as foreign_column;

use super::context::{Context, Placed};
use super::registry::Plugin;
use crate::lanes::{greatest, least, vectorised};
use crate::{Slot, Time};

/// The score of a candidate about which a scorer knows nothing.
pub const NEUTRAL: f64 = 0.5;

/// Why a scorer could not say anything about any candidate; its column is then [`NEUTRAL`].
pub type Degraded = String;

/// One opinion about the candidates.
pub trait Scorer: Send {
    /// Writes a score for each candidate.
    ///
    /// # Errors
    /// Why it has no opinion; what it wrote is then ignored.
    fn score(&self, cx: &Context<'_>, out: &mut [f64]) -> Result<(), Degraded>;

    /// The name under which its scores come from outside.
    fn foreign_name(&self) -> Option<&str> {
        None
    }

    /// The fleet has so many slots now: room for what is remembered of each.
    fn make_room(&mut self, _slots: usize) {}

    /// Whether it weighs what a placement evicts. Where KV is short, requests that may not be held then
    /// stay where their sessions are at home; a rule that does not is left to choose among all.
    fn weighs_evictions(&self) -> bool {
        false
    }

    /// A request was placed.
    fn placed(&mut self, _placed: &Placed<'_>) {}

    /// Other routers placed requests of so many uncached tokens, whose prefills take so long.
    fn placed_by_peers(&mut self, _: Time, _slot: Slot, _uncached_tokens: f64, _prefill_ms: f64) {}

    /// The tenant of a slot left.
    fn left(&mut self, _slot: Slot) {}
}

/// Names of all scorers.
pub fn builtin_scorers() -> impl Iterator<Item = &'static str> {
    SCORERS.iter().map(|plugin| plugin.name)
}

/// Every scorer, in the order in which messages list them.
pub(super) const SCORERS: &[Plugin<dyn Scorer>] = &[
    active_request::PLUGIN,
    published::AIBRIX,
    context_length::PLUGIN,
    published::DUALMAP,
    published::DYNAMO,
    foreign::PLUGIN,
    gpu_utilization::PLUGIN,
    kv_cache_utilization::PLUGIN,
    latency::PLUGIN,
    published::LMETRIC,
    load_aware::PLUGIN,
    lora_affinity::PLUGIN,
    published::MIN_TTFT,
    published::MOONCAKE,
    no_hit_lru::PLUGIN,
    published::PREBLE,
    predicted_cost::PLUGIN,
    prefix_cache::PLUGIN,
    queue::PLUGIN,
    published::RAY_PREFIX,
    running_requests::PLUGIN,
    session_affinity::PLUGIN,
    session_hash::PLUGIN,
    published::SGLANG,
    token_load::PLUGIN,
    topology_affinity::PLUGIN,
];

/// `(max - x) / (max - min)` over the known values: 1 for the least, 0 for the most, 1 for all
/// where they are equal. Unknown ones are [`NEUTRAL`] and do not move the ends.
fn less_is_better(values: &[f64], out: &mut [f64]) {
    vectorised(
        #[inline(always)]
        || {
            let (min, max) = (least(values), greatest(values));
            let range = max - min;
            for (out, &value) in out.iter_mut().zip(values) {
                let relative = if range > 0.0 { (max - value) / range } else { 1.0 };
                *out = if value.is_nan() { NEUTRAL } else { relative };
            }
        },
    );
}

/// `1 - share`, [`NEUTRAL`] where it is unknown.
fn free_share(shares: &[f64], out: &mut [f64]) {
    vectorised(
        #[inline(always)]
        || {
            for (out, &share) in out.iter_mut().zip(shares) {
                *out = if share.is_nan() { NEUTRAL } else { 1.0 - share.clamp(0.0, 1.0) };
            }
        },
    );
}

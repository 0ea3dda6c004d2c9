//! Filters: who may be scored.
//!
//! A filter marks the candidates that it would remove. One that would remove everybody is skipped
//! and says so, unless it is *hard*: then nobody can take the request. The hard conditions that
//! hold whatever the profile (ready, model, allowed set, required labels) are in [`eligible`]; the
//! candidates that a filter sees have passed them.
//!
//! What every filter guarantees, and the shared suite checks: it reads unknown (NaN) signals as
//! "keep", treats candidates alike whatever their slots, and draws random numbers only from the
//! generator it is given.

mod context_length;
mod eligible;
mod label;
mod lora_residency;
mod prefix_cache_affinity;
mod role;
mod slo_headroom_tier;

pub(super) use eligible::{Eligible, Gate};

use super::context::Context;
use super::registry::Plugin;
use crate::rng::Rng;

/// One step of narrowing the candidates.
pub trait Filter: Send {
    /// Clears `keep[i]` of every candidate `i` that the filter would remove; all are set before.
    fn filter(&self, cx: &Context<'_>, rng: &mut Rng, keep: &mut [bool]);

    /// Whether it holds even if nobody remains.
    fn is_hard(&self) -> bool {
        false
    }

    /// Whether it decides which roles may serve: then endpoints of every role reach it, otherwise
    /// only those that both prefill and decode.
    fn selects_role(&self) -> bool {
        false
    }
}

/// Every filter, in the order in which messages list them.
pub(super) const FILTERS: &[Plugin<dyn Filter>] = &[
    context_length::PLUGIN,
    role::DECODE,
    role::ENCODE,
    label::PLUGIN,
    lora_residency::PLUGIN,
    prefix_cache_affinity::PLUGIN,
    role::PREFILL,
    slo_headroom_tier::PLUGIN,
];

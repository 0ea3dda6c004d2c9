//! What live sessions ask for over the fleet's KV, averaged.

use super::SessionConfig;
use crate::Time;

/// Demand at which waits are as long as they may be, the width below it in which they become so, and
/// the least share of them.
const FULL_PATIENCE_DEMAND: f64 = 1.4;
const PATIENCE_WIDTH: f64 = 0.15;
const LEAST_PATIENCE: f64 = 0.4;

/// A running mean of shares of the KV, over the time that they are known for.
#[derive(Debug, Default)]
pub(super) struct Demand {
    mean: f64,
    at: Time,
    /// Of the time that it is an average over; 1 for long.
    weight: f64,
}

impl Demand {
    /// It has been `share` of the KV since the last call.
    pub(super) fn observe(&mut self, now: Time, share: f64, config: &SessionConfig) {
        // An unknown capacity is NaN, none at all is infinite: neither is ever tight.
        if !share.is_finite() {
            (self.mean, self.weight) = (0.0, 0.0);
            return;
        }
        // Of the time before the first call nothing is known, and it counts for nothing.
        let is_first = self.weight <= 0.0;
        let passed_s = if is_first { 0.0 } else { now.since(self.at).as_secs_f64() };
        let fade = libm::exp(-passed_s / config.demand_window_s);
        let kept = self.weight * fade;
        self.at = now;
        self.weight = (kept + 1.0 - fade).max(1e-9);
        self.mean = share + (self.mean - share) * (kept / self.weight);
    }

    /// Whether it is too much, for a fleet of which that has been said or not.
    pub(super) fn is_tight(&self, was_tight: bool, config: &SessionConfig) -> bool {
        self.mean > if was_tight { config.loose_share } else { config.tight_share }
    }

    /// Share of the waits in the settings that it justifies.
    pub(super) fn patience(&self) -> f64 {
        let above = 1.0 + (self.mean - FULL_PATIENCE_DEMAND) / PATIENCE_WIDTH;
        above.clamp(LEAST_PATIENCE, 1.0)
    }
}

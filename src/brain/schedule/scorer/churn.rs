//! How fast caches turn over.

use crate::{Slot, Time};
use std::ops::Range;
use std::time::Duration;

/// Decays are folded into the values before their factor grows beyond `exp` of this.
const REBASE_AT: f64 = 32.0;

/// Tokens that each endpoint was given to compute, and so to store, in the recent past,
/// exponentially weighted.
///
/// All values share one decay: what is stored is `value * exp((t - base) / window)`, so that
/// reading every endpoint takes one exponential, not one each.
#[derive(Debug, Clone)]
pub(super) struct Churn {
    window: Duration,
    base: Time,
    scaled: Vec<f64>,
}

impl Churn {
    pub(super) fn new(window: Duration) -> Self {
        Self { window, base: Time::ZERO, scaled: Vec::new() }
    }

    pub(super) fn add(&mut self, now: Time, slot: Slot, tokens: f64) {
        if self.exponent(now) > REBASE_AT {
            let faded = self.faded(now);
            self.scaled.iter_mut().for_each(|value| *value *= faded);
            self.base = now;
        }
        self.make_room(slot.index() + 1);
        self.scaled[slot.index()] += tokens * libm::exp(self.exponent(now));
    }

    /// There are so many slots now.
    pub(super) fn make_room(&mut self, slots: usize) {
        if self.scaled.len() < slots {
            self.scaled.resize(slots, 0.0);
        }
    }

    pub(super) fn clear(&mut self, slot: Slot) {
        if let Some(value) = self.scaled.get_mut(slot.index()) {
            *value = 0.0;
        }
    }

    /// What a value of [`scaled`](Self::scaled) is worth now, as a factor.
    pub(super) fn faded(&self, now: Time) -> f64 {
        libm::exp(-self.exponent(now))
    }

    /// The values of a run of slots that there is [room](Self::make_room) for, not yet faded.
    pub(super) fn scaled(&self, slots: Range<usize>) -> &[f64] {
        &self.scaled[slots]
    }

    fn exponent(&self, now: Time) -> f64 {
        now.since(self.base).as_secs_f64() / self.window.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::Churn;
    use crate::{Slot, Time};
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn it_equals_a_sum_over_the_history(
            history in prop::collection::vec((0_u64..100_000, 0_u32..4, 0.0_f64..1e6), 0..40),
        ) {
            let mut churn = Churn::new(Duration::from_secs(10));
            let mut past = Vec::new();
            let mut now = Time::ZERO;
            for (pause_ms, slot, tokens) in history {
                now = now + Duration::from_millis(pause_ms);
                churn.add(now, Slot(slot), tokens);
                past.push((now, slot, tokens));
            }
            let faded = churn.faded(now);
            churn.make_room(4);
            for slot in 0..4 {
                let of_slot = past.iter().filter(|(_, owner, _)| *owner == slot);
                let expected: f64 =
                    of_slot.map(|(at, _, tokens)| tokens * libm::exp(-now.millis_since(*at) / 1e4)).sum();
                let found = faded * churn.scaled(0..4)[slot as usize];
                prop_assert!((found - expected).abs() <= 1e-6 * expected.max(1.0));
            }
        }
    }
}

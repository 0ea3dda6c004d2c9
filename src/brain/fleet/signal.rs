//! What an engine reports about itself, and how old that is.

use crate::lanes::vectorised;
use crate::{Slot, Time};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

/// A reported value with its age.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Signal {
    value: f64,
    at: Option<Time>,
}

impl Signal {
    /// A value sampled at `at`; a value that is not finite is as if never reported.
    #[must_use]
    pub fn new(value: f64, at: Time) -> Self {
        Self { value, at: value.is_finite().then_some(at) }
    }

    /// The value, if it was reported within the last `max_age`.
    #[must_use]
    pub fn fresh(&self, now: Time, max_age: Duration) -> Option<f64> {
        self.at.filter(|&at| now.since(at) <= max_age).map(|_| self.value)
    }

    /// The value whatever its age.
    #[must_use]
    pub fn last(&self) -> Option<f64> {
        self.at.map(|_| self.value)
    }

    /// When it was sampled.
    #[must_use]
    pub fn at(&self) -> Option<Time> {
        self.at
    }
}

/// A reported value of every slot.
#[derive(Debug, Clone, Default)]
pub struct SignalColumn {
    /// NaN where it was never reported.
    values: Vec<f64>,
    at: Vec<Time>,
    newest: Option<Time>,
    /// No value is older than this. It lags, and is found again where a question turns on it.
    oldest: Cell<Time>,
}

impl SignalColumn {
    /// The value of one slot, as if never reported for a slot that there is not.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Signal {
        match (self.values.get(slot.index()), self.at.get(slot.index())) {
            (Some(&value), Some(&at)) => Signal::new(value, at),
            _ => Signal::default(),
        }
    }

    /// Whether any value may be [`fresh`](Signal::fresh).
    #[must_use]
    pub fn any_fresh(&self, now: Time, max_age: Duration) -> bool {
        self.newest.is_some_and(|newest| newest >= now.before(max_age))
    }

    /// The column, NaN where unknown, where no value is too old: the usual case, which costs no
    /// look at each age.
    #[must_use]
    pub fn all_fresh(&self, now: Time, max_age: Duration) -> Option<&[f64]> {
        let limit = now.before(max_age);
        if self.oldest.get() < limit {
            let known = self.values.iter().zip(&self.at).filter(|(value, _)| !value.is_nan());
            self.oldest.set(known.map(|(_, &at)| at).min().unwrap_or(Time::MAX));
        }
        (self.oldest.get() >= limit).then_some(&self.values)
    }

    /// Writes the values of a run of slots, NaN where they are not [`fresh`](Signal::fresh).
    pub fn fresh(&self, slots: Range<usize>, now: Time, max_age: Duration, out: &mut [f64]) {
        let limit = now.before(max_age);
        let (values, at) = (&self.values[slots.clone()], &self.at[slots]);
        vectorised(
            #[inline(always)]
            || {
                for ((out, &value), &at) in out.iter_mut().zip(values).zip(at) {
                    *out = if at >= limit { value } else { f64::NAN };
                }
            },
        );
    }

    pub(super) fn set(&mut self, slot: Slot, signal: Signal) {
        let (row, at) = (slot.index(), signal.at().unwrap_or_default());
        self.values[row] = signal.last().unwrap_or(f64::NAN);
        self.at[row] = at;
        self.newest = self.newest.max(signal.at());
        if signal.at().is_some() {
            self.oldest.set(self.oldest.get().min(at));
        }
    }

    pub(super) fn push_empty(&mut self) {
        self.values.push(f64::NAN);
        self.at.push(Time::ZERO);
    }
}

/// One reading of an engine's metrics page; `None` where the page does not say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSample {
    /// Requests in the engine's queue.
    pub waiting_requests: Option<f64>,
    /// Requests running.
    pub running_requests: Option<f64>,
    /// Share of the KV cache in use, 0 to 1.
    pub kv_usage: Option<f64>,
    /// Share of time the GPU was busy, 0 to 1.
    pub gpu_utilization: Option<f64>,
    /// GPU memory in use, bytes.
    pub gpu_memory_used_bytes: Option<f64>,
    /// KV cache blocks on the GPU.
    pub kv_blocks: Option<u64>,
    /// Tokens a block.
    pub block_size: Option<u32>,
    /// Prompt tokens looked up in the engine's prefix cache, since its start.
    pub prefix_cache_queries_tokens: Option<f64>,
    /// Prompt tokens found there, since its start.
    pub prefix_cache_hits_tokens: Option<f64>,
    /// Preemptions since its start.
    pub preemptions: Option<f64>,
    /// LoRA adapters running now.
    pub running_loras: Option<Vec<String>>,
    /// LoRA adapters with waiting requests.
    pub waiting_loras: Option<Vec<String>>,
    /// Most adapters that fit at once.
    pub max_loras: Option<u32>,
    /// When the engine's process started, seconds since the Unix epoch: a change is a restart.
    pub process_start_time_s: Option<f64>,
    /// Anything else that was asked for by name.
    pub other: BTreeMap<String, f64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_column_knows_what_each_signal_knows(
            history in prop::collection::vec(
                (0_u32..3, prop::option::of(0.0_f64..9.0), 0_u64..400, 0_u64..300),
                0..30,
            ),
        ) {
            let mut column = SignalColumn::default();
            (0..3).for_each(|_| column.push_empty());
            let mut now = Time::ZERO;
            for (slot, value, pause, max_age) in history {
                let signal = value.map_or_else(Signal::default, |value| Signal::new(value, now));
                column.set(Slot(slot), signal);
                now = now + Duration::from_nanos(pause);
                let max_age = Duration::from_nanos(max_age);
                let expected: Vec<Option<f64>> =
                    (0..3).map(|slot| column.get(Slot(slot)).fresh(now, max_age)).collect();
                let known = |value: &f64| (!value.is_nan()).then_some(*value);

                let mut fresh = vec![0.0; 3];
                column.fresh(0..3, now, max_age, &mut fresh);
                prop_assert_eq!(fresh.iter().map(known).collect::<Vec<_>>(), expected.clone());
                if let Some(all) = column.all_fresh(now, max_age) {
                    prop_assert_eq!(all.iter().map(known).collect::<Vec<_>>(), expected.clone());
                }
                let any = expected.iter().any(Option::is_some);
                prop_assert!(column.any_fresh(now, max_age) || !any);
            }
        }
    }
}

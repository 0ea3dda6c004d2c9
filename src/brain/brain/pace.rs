//! How fast requests are let go: for how long one that is turned away should stay away.

use crate::Time;

/// Requests over which the mean interval is taken.
const MEMORY_REQUESTS: f64 = 32.0;
/// The least and the most that is said, milliseconds.
const LEAST_MS: f64 = 100.0;
const MOST_MS: f64 = 60_000.0;
/// What is said before any two requests were let go, milliseconds.
const UNKNOWN_MS: f64 = 1_000.0;

/// The mean time between two requests that were let go.
#[derive(Debug, Clone, Default)]
pub(super) struct Pace {
    last: Option<Time>,
    interval_ms: Option<f64>,
}

impl Pace {
    /// A request was let go.
    pub(super) fn let_go(&mut self, now: Time) {
        if let Some(last) = self.last {
            // A pause in which nobody came says nothing.
            let interval_ms = now.millis_since(last).min(MOST_MS);
            let mean = self.interval_ms.get_or_insert(interval_ms);
            *mean += (interval_ms - *mean) / MEMORY_REQUESTS;
        }
        self.last = Some(now);
    }

    /// After how many milliseconds so many requests will have been let go, and one more.
    pub(super) fn after_ms(&self, waiting: usize) -> u64 {
        let of_all = self.interval_ms.map_or(UNKNOWN_MS, |ms| ms * (waiting as f64 + 1.0));
        of_all.clamp(LEAST_MS, MOST_MS) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_is_what_those_before_it_take() {
        let mut pace = Pace::default();
        assert_eq!(pace.after_ms(5), 1_000);
        for number in 0..100_u64 {
            pace.let_go(Time::from_nanos(number * 50_000_000));
        }
        assert_eq!(
            (pace.after_ms(0), pace.after_ms(19), pace.after_ms(9_999)),
            (100, 1_000, 60_000)
        );
    }
}

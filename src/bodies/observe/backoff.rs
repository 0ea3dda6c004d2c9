//! How long to wait before trying again.

use llmd_brain::rng::Rng;
use std::time::Duration;

/// Bounds of the waits.
#[derive(Debug, Clone)]
pub struct BackoffConfig {
    /// The first wait.
    pub initial: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for BackoffConfig {
    /// 0.1 s, doubled up to 10 s.
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

/// Exponential waits, each shortened by up to half at random, so that the subscribers of an engine
/// that comes back do not return at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    config: BackoffConfig,
    failures: u32,
    rng: Rng,
}

impl Backoff {
    pub fn new(config: BackoffConfig, seed: u64) -> Self {
        Self { config, failures: 0, rng: Rng::new(seed) }
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.wait(self.failures)
    }

    /// The wait after `failures` in a row.
    pub fn wait(&mut self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.config.initial.saturating_mul(1 << doublings).min(self.config.max);
        full.mul_f64(0.5 + 0.5 * self.rng.next_f64())
    }

    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_again() {
        let config =
            BackoffConfig { initial: Duration::from_millis(100), max: Duration::from_secs(1) };
        let mut backoff = Backoff::new(config, 7);
        for full_ms in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next_wait();
            let full = Duration::from_millis(full_ms);
            assert!(wait >= full / 2 && wait <= full, "{wait:?} for {full:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
    }

    #[test]
    fn waits_are_the_same_for_a_seed() {
        let waits = |seed| {
            let mut backoff = Backoff::new(BackoffConfig::default(), seed);
            (0..5).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }
}

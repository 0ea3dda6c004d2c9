//! Whether an engine is to be left alone: failures in a row eject it for a while that doubles, then
//! one more failure is enough to eject it again, and one success makes it as good as new.
//!
//! Not here: that not everybody may be ejected (see [`super::health`]).

use super::config::HealthConfig;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// How an engine has been doing.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    /// Failures since the last success.
    failures: u32,
    /// Ejections since the last success.
    ejections: u32,
    /// Until when it is left alone.
    until: Option<Instant>,
    /// Back after an ejection, and not yet proven.
    on_trial: bool,
}

/// What an engine is to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Good,
    /// Back after an ejection: the next answer decides.
    Trial,
    /// Left alone.
    Ejected,
}

impl Vigil {
    pub(super) fn standing(&self) -> Standing {
        let state = self.state.lock();
        match (state.until, state.on_trial) {
            (Some(_), _) => Standing::Ejected,
            (None, true) => Standing::Trial,
            (None, false) => Standing::Good,
        }
    }

    /// It answered. An answer of a request that was sent before an ejection says nothing about now.
    pub(super) fn succeeded(&self) {
        let mut state = self.state.lock();
        if state.until.is_none() {
            *state = State::default();
        }
    }

    /// It failed. Returns whether it has failed often enough to be ejected.
    pub(super) fn failed(&self, config: &HealthConfig) -> bool {
        let mut state = self.state.lock();
        if state.until.is_some() {
            return false;
        }
        state.failures = state.failures.saturating_add(1);
        state.on_trial || state.failures >= config.failures.max(1)
    }

    /// Leaves it alone from now on; returns for how long.
    pub(super) fn eject(&self, now: Instant, config: &HealthConfig) -> Duration {
        let mut state = self.state.lock();
        let doublings = state.ejections.min(20);
        let alone_ms =
            config.ejection_ms.saturating_mul(1 << doublings).min(config.max_ejection_ms);
        state.ejections = state.ejections.saturating_add(1);
        state.on_trial = false;
        state.until = Some(now + Duration::from_millis(alone_ms));
        Duration::from_millis(alone_ms)
    }

    /// Whether it was left alone for long enough to be asked how it is.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.state.lock().until.is_some_and(|until| now >= until)
    }

    /// It answered a probe: requests may try it.
    pub(super) fn try_again(&self) {
        let mut state = self.state.lock();
        state.until = None;
        state.failures = 0;
        state.on_trial = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_eject_and_each_time_for_longer() {
        let (vigil, config) = (Vigil::default(), HealthConfig::default());
        let now = Instant::now();
        assert!(!vigil.failed(&config) && !vigil.failed(&config));
        vigil.succeeded();
        assert!(!vigil.failed(&config) && !vigil.failed(&config) && vigil.failed(&config));
        let first = vigil.eject(now, &config);
        assert_eq!(first, Duration::from_millis(config.ejection_ms));
        assert_eq!(vigil.standing(), Standing::Ejected);
        assert!(!vigil.is_due(now) && vigil.is_due(now + first));
        vigil.try_again();
        assert_eq!(vigil.standing(), Standing::Trial);
        // On trial one failure is enough.
        assert!(vigil.failed(&config));
        assert_eq!(vigil.eject(now, &config), 2 * first);
        vigil.try_again();
        vigil.succeeded();
        assert_eq!(vigil.standing(), Standing::Good);
        assert_eq!(vigil.eject(now, &config), first);
    }

    #[test]
    fn a_late_answer_does_not_end_an_ejection() {
        let (vigil, config) = (Vigil::default(), HealthConfig::default());
        vigil.eject(Instant::now(), &config);
        vigil.succeeded();
        assert_eq!(vigil.standing(), Standing::Ejected);
    }

    #[test]
    fn the_longest_ejection_is_bounded() {
        let (vigil, config) = (Vigil::default(), HealthConfig::default());
        let longest = (0..100).map(|_| vigil.eject(Instant::now(), &config)).max().unwrap();
        assert_eq!(longest, Duration::from_millis(config.max_ejection_ms));
    }
}

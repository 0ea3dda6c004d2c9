//! Time for the brain: nanoseconds since the router was made, monotonic.

use llmd_brain::Time;
use std::time::Instant;

/// A monotonic clock whose origin is its own making.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that reads zero now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    /// The moment at which [`now`](Self::now) reads `time`.
    #[must_use]
    pub fn instant_of(&self, time: Time) -> Instant {
        self.origin + time.since(Time::ZERO)
    }
}

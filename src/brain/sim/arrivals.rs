//! When requests come.

/// How the sessions of a workload are played.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Each request at its time, whatever became of those before.
    Open {
        /// Mean rate to stretch or compress the trace to; `None` plays it as it was taken.
        requests_per_s: Option<f64>,
        /// Each request comes up to so much later, uniformly, at the trace's own speed: traces whose
        /// times are rounded come in bursts that nobody sent.
        jitter_ms: f64,
    },
    /// So many sessions at a time, each waiting for its answers.
    Closed {
        /// Sessions that are open at a time.
        sessions: u32,
        /// No turn is sent later.
        horizon_s: f64,
        /// Pauses are cut to this.
        think_cap_s: f64,
        /// A session that ended is replaced by the next one so much later.
        replace_after_s: f64,
        /// Of those that are open, so many are let in by a proxy before the routers; the others wait
        /// there, first come first served, until one that was let in ends. `None` lets in all.
        session_cap: Option<u32>,
    },
}

impl Arrivals {
    /// A trace stretched to a mean rate.
    #[must_use]
    pub fn at_rate(requests_per_s: f64, jitter_ms: f64) -> Self {
        Self::Open { requests_per_s: Some(requests_per_s), jitter_ms }
    }

    /// So many agent sessions for an hour, pauses of up to a minute.
    #[must_use]
    pub fn closed(sessions: u32) -> Self {
        Self::Closed {
            sessions,
            horizon_s: 3_600.0,
            think_cap_s: 60.0,
            replace_after_s: 1.0,
            session_cap: None,
        }
    }
}

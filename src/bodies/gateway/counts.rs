//! What became of requests, for the metrics page.

use super::Gateway;
use hyper::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since the gateway started.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Requests that asked an engine for something.
    pub(super) requests: AtomicU64,
    /// Of those, not answered to the end yet, held ones included.
    in_flight: AtomicU64,
    /// Answers that were passed on to their end.
    pub(super) completed: AtomicU64,
    /// Tokens in them, as far as told.
    pub(super) output_tokens: AtomicU64,
    /// Answers that an engine broke off.
    pub(super) cut_off: AtomicU64,
    /// Answers whose client went away.
    pub(super) client_left: AtomicU64,
    /// Connections whose TLS handshake failed or took too long.
    pub(super) failed_handshakes: AtomicU64,
    /// Connections that were closed because no request came on them.
    pub(super) silent_connections: AtomicU64,
    /// Second engines for streams whose first was slow.
    pub(super) hedges: AtomicU64,
    /// Of those, which were first.
    pub(super) hedges_won: AtomicU64,
    /// Second tries.
    pub(super) retries: AtomicU64,
    /// Second tries that the budget did not allow.
    pub(super) retries_denied: AtomicU64,
    /// Answers of our own by status: 400, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504.
    refusals: [AtomicU64; REFUSALS.len()],
}

const REFUSALS: [u16; 12] = [400, 401, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504];

impl Counts {
    pub(super) fn completed(&self, output_tokens: Option<u32>) {
        self.completed.fetch_add(1, Relaxed);
        self.output_tokens.fetch_add(output_tokens.unwrap_or_default().into(), Relaxed);
    }

    pub(super) fn cut_off(&self) {
        self.cut_off.fetch_add(1, Relaxed);
    }

    pub(super) fn client_left(&self) {
        self.client_left.fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self, status: StatusCode) {
        if let Some(at) = REFUSALS.iter().position(|&it| it == status.as_u16()) {
            self.refusals[at].fetch_add(1, Relaxed);
        }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight.load(Relaxed)
    }

    /// Refusals that there were, by status.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (u16, u64)> {
        REFUSALS.iter().zip(&self.refusals).map(|(status, count)| (*status, count.load(Relaxed)))
    }
}

/// A request that is not answered to the end yet.
pub(super) struct InFlight(Arc<Gateway>);

impl InFlight {
    pub(super) fn of(gateway: &Arc<Gateway>) -> Self {
        gateway.counts.in_flight.fetch_add(1, Relaxed);
        Self(Arc::clone(gateway))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counts.in_flight.fetch_sub(1, Relaxed);
    }
}

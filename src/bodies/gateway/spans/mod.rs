//! What became of a request and when, as OpenTelemetry spans: one for the request, and below it how
//! long it was held (`queue`), who was chosen and why (`route`), and each try at an engine (`decode leg`).
//! A client's `traceparent` is the parent of the first, and an engine gets its own try's.
//!
//! Sent as OTLP's JSON over HTTP by a task of its own. The OpenTelemetry SDK would bring forty crates, a
//! second HTTP client and a pipeline to configure, for what is two hundred lines here and a format that
//! has been stable since OTLP 1.0.
//!
//! Guaranteed: a request never waits for any of it. What a full queue does not take, and what the
//! collector does not, is dropped and counted. No span holds a prompt, an answer, a key or a message
//! that quotes one.

mod context;
mod export;
mod otlp;
mod settings;
mod trace;

pub(super) use context::TRACEPARENT;
pub(super) use export::export;
pub use settings::TracingConfig;
pub(super) use trace::{Leg, Trace};

use otlp::Span;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::mpsc;

/// Traces that wait to be sent: a second's, at some thousand requests a second.
const MAX_WAITING: usize = 4_096;
/// Longest that stopping waits for the collector.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// All spans of one request that was sampled.
pub(super) struct Finished {
    trace_id: u128,
    /// What came in `tracestate`, which is passed on as it is.
    state: String,
    spans: Vec<Span>,
}

/// Asks that all that waits be sent, and is told when it was.
type Flush = std::sync::mpsc::Sender<()>;

/// Where spans go from.
pub(super) struct Spans {
    finished: mpsc::Sender<Finished>,
    flush: mpsc::UnboundedSender<Flush>,
    /// Spans that the collector took.
    pub(super) exported: AtomicU64,
    /// Spans that were lost.
    pub(super) dropped: AtomicU64,
}

/// Where they come out, for [`export`].
pub(super) struct Waiting {
    finished: mpsc::Receiver<Finished>,
    flush: mpsc::UnboundedReceiver<Flush>,
}

impl Spans {
    pub(super) fn new() -> (Self, Waiting) {
        let (finished, to_send) = mpsc::channel(MAX_WAITING);
        let (flush, to_flush) = mpsc::unbounded_channel();
        let (exported, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        let spans = Self { finished, flush, exported, dropped };
        (spans, Waiting { finished: to_send, flush: to_flush })
    }

    fn finished(&self, finished: Finished) {
        let count = finished.spans.len() as u64;
        if self.finished.try_send(finished).is_err() {
            self.dropped.fetch_add(count, Relaxed);
        }
    }

    /// Sends what waits; blocks this thread until it is sent, or the collector takes too long.
    pub(super) fn flush(&self) {
        let (tell, told) = std::sync::mpsc::channel();
        if self.flush.send(tell).is_ok() && told.recv_timeout(FLUSH_TIMEOUT).is_err() {
            tracing::warn!("the collector did not take the last spans in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_queue_does_not_take_is_counted_and_nobody_waits() {
        let (spans, _waiting) = Spans::new();
        for trace_id in 0..MAX_WAITING as u128 + 10 {
            let span = otlp::Span {
                span_id: 1,
                parent: None,
                name: String::new(),
                kind: otlp::Kind::Server,
                start_ns: 0,
                end_ns: 0,
                attributes: Vec::new(),
                events: Vec::new(),
                error: None,
            };
            let state = String::new();
            spans.finished(Finished { trace_id, state, spans: vec![span.clone(), span] });
        }
        assert_eq!(spans.dropped.load(Relaxed), 20);
    }
}

//! One try at one engine: a connection, the request, and the head of its answer.

use super::booking::Booking;
use super::config::ms;
use super::headers::DP_RANK;
use super::http1::request_head;
use super::pool::{Lease, Unanswered};
use super::settings::Settings;
use super::spans::{Leg, TRACEPARENT, Trace};
use super::upstream::Upstream;
use super::worker::Worker;
use bytes::Bytes;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Response, StatusCode};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a try at one engine came to.
#[expect(clippy::large_enum_variant, reason = "the large one is the usual one, and moved twice")]
pub(super) enum Tried {
    Answered(Response<()>, Lease),
    /// Nothing of an answer came.
    Failed(Unanswered),
    /// It cannot take requests now, and said so.
    Declined(StatusCode),
}

impl Tried {
    /// Whether it may win over an engine that is still at work: an error of the engine's own may not.
    pub(super) fn is_worth_winning(&self) -> bool {
        let Self::Answered(answer, ..) = self else { return false };
        let status = answer.status();
        !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS
    }
}

/// A request and the engine that is to answer it.
pub(super) struct Turn {
    pub(super) booking: Booking,
    pub(super) upstream: Arc<Upstream>,
    /// The body as this engine gets it.
    body: Bytes,
    /// The first piece of the answer, where that was waited for.
    pub(super) first: Option<Bytes>,
    /// The span of this try.
    leg: Option<Leg>,
}

impl Turn {
    pub(super) fn new(
        booking: Booking,
        upstream: Arc<Upstream>,
        body: Bytes,
        attempt: usize,
        settings: &Settings,
        trace: &mut Option<Box<Trace>>,
    ) -> Self {
        let leg = trace.as_mut().map(|trace| {
            trace.placed(&booking, &settings.config);
            trace.leg(&upstream, attempt)
        });
        Self { booking, upstream, body, first: None, leg }
    }

    pub(super) fn leg_id(&self) -> Option<u64> {
        self.leg.as_ref().map(Leg::id)
    }
}

impl Worker {
    /// Sends a request to an engine, once more where an old connection turns out to be closed.
    pub(super) async fn attempt(&self, settings: &Settings, turn: &Turn, head: &Parts) -> Tried {
        let upstream = &*turn.upstream;
        upstream.counts.requests.fetch_add(1, Relaxed);
        let timeouts = &settings.config.timeouts;
        let mut lease = match self.pool.lease(upstream, settings).await {
            Ok(lease) => lease,
            Err(why) => return Tried::Failed(why),
        };
        loop {
            let sent = lease.send(head_to_engine(turn, head), turn.body.clone());
            let answer = tokio::time::timeout(ms(timeouts.first_byte_ms), sent).await;
            match answer {
                Ok(Ok(answer)) => {
                    let status = answer.status();
                    return match status {
                        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => {
                            Tried::Declined(status)
                        }
                        _ => Tried::Answered(answer, lease),
                    };
                }
                Ok(Err(_)) if lease.is_reused() => {
                    lease = match self.pool.connect(upstream, settings).await {
                        Ok(lease) => lease,
                        Err(why) => return Tried::Failed(why),
                    };
                }
                Ok(Err(why)) => return Tried::Failed(why),
                Err(_) => return Tried::Failed(Unanswered::Silent(timeouts.first_byte_ms)),
            }
        }
    }
}

/// The head of the request to an engine.
fn head_to_engine(turn: &Turn, head: &Parts) -> Bytes {
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rank = turn.booking.spec().dp_rank;
    let rank = (rank > 0).then(|| (DP_RANK, HeaderValue::from(rank)));
    let parent = turn.leg.as_ref().map(|leg| (TRACEPARENT, leg.header()));
    let ours: Vec<_> = rank.into_iter().chain(parent).collect();
    let upstream = &turn.upstream;
    request_head(
        &head.method,
        [upstream.prefix(), path],
        &upstream.authority,
        &head.headers,
        &ours,
        turn.body.len(),
    )
}

//! One try at one engine: a connection, the request, and the head of its answer.

use super::booking::Booking;
use super::config::ms;
use super::headers::DP_RANK;
use super::pool::{Lease, Unanswered};
use super::settings::Settings;
use super::spans::TRACEPARENT;
use super::upstream::Upstream;
use super::worker::Worker;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode};
use std::sync::atomic::Ordering::Relaxed;

/// What a try at one engine came to.
pub(super) enum Tried {
    Answered(Response<Incoming>, Lease),
    /// Nothing of an answer came.
    Failed(Unanswered),
    /// It cannot take requests now, and said so.
    Declined(StatusCode),
}

impl Worker {
    /// Sends a request to an engine, once more where an old connection turns out to be closed.
    pub(super) async fn attempt(
        &self,
        settings: &Settings,
        upstream: &Upstream,
        booking: &Booking,
        head: &Parts,
        body: &Bytes,
        traceparent: Option<&HeaderValue>,
    ) -> Tried {
        upstream.counts.requests.fetch_add(1, Relaxed);
        let timeouts = &settings.config.timeouts;
        let mut lease = match self.pool.lease(upstream, settings).await {
            Ok(lease) => lease,
            Err(why) => return Tried::Failed(why),
        };
        loop {
            let request = match to_engine(upstream, booking, head, body, traceparent) {
                Ok(request) => request,
                Err(error) => return Tried::Failed(Unanswered::Connect(error.to_string())),
            };
            let answer =
                tokio::time::timeout(ms(timeouts.first_byte_ms), lease.send(request)).await;
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

/// The request to an engine.
fn to_engine(
    upstream: &Upstream,
    booking: &Booking,
    head: &Parts,
    body: &Bytes,
    traceparent: Option<&HeaderValue>,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let root = PathAndQuery::from_static("/");
    let path = head.uri.path_and_query().unwrap_or(&root);
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = upstream.target(path)?;
    let mut headers = head.headers.clone();
    headers.insert(hyper::header::HOST, upstream.authority.clone());
    if booking.spec().dp_rank > 0 {
        headers.insert(DP_RANK, HeaderValue::from(booking.spec().dp_rank));
    }
    if let Some(traceparent) = traceparent {
        headers.insert(TRACEPARENT, traceparent.clone());
    }
    *request.headers_mut() = headers;
    Ok(request)
}

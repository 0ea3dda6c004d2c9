//! A request that an engine answers: read, placed, sent, sent elsewhere where that fails before the
//! first byte, and relayed.

use super::asked::Asked;
use super::body::AnswerBody;
use super::booking::Booking;
use super::config::{GatewayConfig, ms};
use super::counts::InFlight;
use super::headers::{self, DP_RANK, EXPLAIN};
use super::http1::request_head;
use super::keys::Key;
use super::pool::{Lease, Unanswered};
use super::refusal::Refusal;
use super::relay::{Relay, Route};
use super::settings::Settings;
use super::upstream::Upstream;
use super::worker::Worker;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode};
use llmd_brain::EndpointId;
use llmd_brain::fleet::Health;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// What a try at one engine came to.
enum Tried {
    Answered(Response<()>, Lease),
    /// Nothing of an answer came.
    Failed(Unanswered),
    /// It cannot take requests now, and said so.
    Declined(StatusCode),
}

impl Worker {
    /// Answers a request by an engine.
    pub(super) async fn generate(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let came = Instant::now();
        let in_flight = InFlight::of(&self.gateway);
        let settings = self.gateway.settings();
        let (mut head, body) = request.into_parts();
        // Before the body: a stranger's is not read.
        let key = settings.keys.identify(&head.headers)?;
        let body = read_body(body, &settings.config).await?;
        let find = |name: &str| self.gateway.fleet.find(name);
        let is_alias = |name: &str| self.gateway.live.is_alias(name);
        let mut asked = Asked::read(&head.headers, &body, find, is_alias, settings.config.hold_ms)?;
        self.admit(&settings, key.as_deref(), &mut asked)?;
        // After that: who has used up what they may have costs no tokenizer's time.
        settings.tokenizers.encode(&mut asked, &body).await;
        let is_explained = head.headers.get(EXPLAIN).is_some_and(|it| it == "1");
        headers::towards_engine(&mut head.headers);
        if key.is_some() {
            head.headers.remove(AUTHORIZATION);
        }
        settings.budget.earn();
        let mut tried: Vec<EndpointId> = Vec::new();
        loop {
            let booking = match Booking::make(&self.gateway.live, &mut asked).await {
                Ok(booking) => booking,
                // Those who are left cannot take it: what the last one said counts.
                Err(_) if !tried.is_empty() => {
                    return Err(Refusal::bad_engine(format!(
                        "{} engines failed before their first byte, and no other can take the request",
                        tried.len()
                    )));
                }
                Err(mut refusal) => {
                    if refusal.status == StatusCode::SERVICE_UNAVAILABLE
                        && let Some(obstacle) = self.gateway.fleet.obstacle()
                    {
                        let _ = write!(refusal.message, "; an engine has not joined: {obstacle}");
                    }
                    return Err(refusal);
                }
            };
            tried.push(booking.decision().endpoint);
            let may_retry = tried.len() < settings.config.retries.max_attempts as usize;
            let Some(upstream) = self.gateway.fleet.upstream(booking.spec()) else {
                // It left the configuration a moment ago.
                if may_retry && self.exclude(&mut asked, &tried) {
                    continue;
                }
                return Err(Refusal::unavailable("the engine has left the fleet"));
            };
            let body = asked.body_for_engine(&body);
            let came_to = self.attempt(&settings, &upstream, &booking, &head, &body).await;
            let refusal = match came_to {
                Tried::Answered(response, lease) => {
                    let route = Route {
                        lease,
                        booking,
                        upstream,
                        charged: key.and_then(|it| it.tokens()),
                        in_flight,
                        gateway: Arc::clone(&self.gateway),
                        idle: ms(settings.config.timeouts.idle_ms),
                    };
                    return Ok(relayed(response, route, is_explained.then_some(came)).await);
                }
                Tried::Failed(why) => {
                    self.gateway.fleet.failed(&upstream);
                    let message = format!("engine {} {why}", upstream.address);
                    tracing::debug!("{message}");
                    match why {
                        Unanswered::Silent(_) => return Err(Refusal::timeout(message)),
                        _ => Refusal::bad_engine(message),
                    }
                }
                Tried::Declined(status) => {
                    upstream.counts.failures.fetch_add(1, Relaxed);
                    Refusal::unavailable(format!("engine {} answered {status}", upstream.address))
                }
            };
            drop(booking);
            if !may_retry || !self.exclude(&mut asked, &tried) {
                return Err(refusal);
            }
            if !settings.budget.spend() {
                self.gateway.counts.retries_denied.fetch_add(1, Relaxed);
                return Err(refusal);
            }
            self.gateway.counts.retries.fetch_add(1, Relaxed);
        }
    }

    /// What a key allows, and what its tenant is kept apart by.
    fn admit(
        &self,
        settings: &Settings,
        key: Option<&Key>,
        asked: &mut Asked,
    ) -> Result<(), Refusal> {
        if let Some(key) = key {
            key.check_model(asked.read.model.as_deref(), asked.read.is_whole)?;
            key.admit(self.gateway.now_ns(), asked.read.prompt_tokens())?;
            asked.request.tenant = Some(key.tenant().to_owned());
            asked.request.priority = asked.request.priority.min(key.max_priority());
            asked.read.priority = asked.read.priority.map(|it| it.min(key.max_priority()));
        }
        let given = asked.read.cache_salt.as_deref();
        if let Some(salt) = settings.keys.salt(asked.request.tenant.as_deref(), given) {
            if !asked.read.is_whole {
                return Err(Refusal::invalid("invalid_json", "the body is no JSON object"));
            }
            asked.scope.cache_salt = Some(salt);
        }
        Ok(())
    }

    /// Sends a request to an engine, once more where an old connection turns out to be closed.
    async fn attempt(
        &self,
        settings: &Settings,
        upstream: &Upstream,
        booking: &Booking,
        head: &Parts,
        body: &Bytes,
    ) -> Tried {
        upstream.counts.requests.fetch_add(1, Relaxed);
        let timeouts = &settings.config.timeouts;
        let mut lease = match self.pool.lease(upstream, settings).await {
            Ok(lease) => lease,
            Err(why) => return Tried::Failed(why),
        };
        loop {
            let answer = lease
                .send(head_to_engine(upstream, booking, head, body.len()), body.clone())
                .await_within(ms(timeouts.first_byte_ms))
                .await;
            match answer {
                Some(Ok(answer)) => {
                    let status = answer.status();
                    return match status {
                        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => {
                            Tried::Declined(status)
                        }
                        _ => Tried::Answered(answer, lease),
                    };
                }
                Some(Err(_)) if lease.is_reused() => {
                    lease = match self.pool.connect(upstream, settings).await {
                        Ok(lease) => lease,
                        Err(why) => return Tried::Failed(why),
                    };
                }
                Some(Err(why)) => return Tried::Failed(why),
                None => return Tried::Failed(Unanswered::Silent(timeouts.first_byte_ms)),
            }
        }
    }

    /// Leaves those who failed out of the next choice. Returns whether anybody else is well.
    fn exclude(&self, asked: &mut Asked, tried: &[EndpointId]) -> bool {
        asked.request.excluded = tried.to_vec();
        let endpoints = self.gateway.live.endpoints();
        endpoints.iter().any(|view| view.health == Health::Ready && !tried.contains(&view.id))
    }
}

/// All of a client's body, within the limits.
async fn read_body(mut body: Incoming, config: &GatewayConfig) -> Result<Bytes, Refusal> {
    let limit = config.limits.max_body_bytes;
    let timeout = ms(config.timeouts.client_body_ms);
    let hint = body.size_hint();
    if hint.lower() > limit as u64 {
        return Err(Refusal::too_large(limit));
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let frame = match body.frame().await_within(timeout).await {
            Some(Some(Ok(frame))) => frame,
            Some(None) => break,
            Some(Some(Err(error))) => {
                let message = format!("the body of the request broke off: {error}");
                return Err(Refusal::invalid("incomplete_body", message));
            }
            None => {
                let message =
                    "the body of the request did not come in time (timeouts.client_body_ms)";
                let (kind, code) = ("invalid_request_error", "body_timeout");
                return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, kind, code, message));
            }
        };
        let Ok(piece) = frame.into_data() else { continue };
        if first.len() + all.len() + piece.len() > limit {
            return Err(Refusal::too_large(limit));
        }
        // One piece is the usual case, and is not copied.
        if first.is_empty() && all.is_empty() {
            first = piece;
            continue;
        }
        if all.is_empty() {
            all.reserve((hint.lower() as usize).max(2 * (first.len() + piece.len())));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The head of the request to an engine.
fn head_to_engine(
    upstream: &Upstream,
    booking: &Booking,
    head: &Parts,
    body_bytes: usize,
) -> Bytes {
    let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rank = booking.spec().dp_rank;
    let rank = (rank > 0).then(|| (DP_RANK, HeaderValue::from(rank)));
    request_head(
        &head.method,
        [upstream.prefix(), path],
        &upstream.authority,
        &head.headers,
        rank.as_slice(),
        body_bytes,
    )
}

/// The answer to the client. Where it is to be explained, `came` is when the request did.
async fn relayed(
    response: Response<()>,
    route: Route,
    came: Option<Instant>,
) -> Response<AnswerBody> {
    let (mut head, ()) = response.into_parts();
    let is_stream = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
    headers::towards_client(&mut head.headers);
    if let Some(came) = came {
        explain(&mut head.headers, &route.booking);
        let mut relay = Relay::new(is_stream, route);
        relay.wait_for_first().await;
        let ttft_ms = came.elapsed().as_secs_f64() * 1e3;
        insert(&mut head.headers, "x-llmd-ttft-ms", &format!("{ttft_ms:.1}"));
        return Response::from_parts(head, AnswerBody::Relay(Box::new(relay)));
    }
    let relay = Relay::new(is_stream, route);
    Response::from_parts(head, AnswerBody::Relay(Box::new(relay)))
}

/// Says how the request was placed.
fn explain(headers: &mut hyper::HeaderMap, booking: &Booking) {
    let decision = booking.decision();
    insert(headers, "x-llmd-endpoint", &booking.spec().address);
    insert(headers, "x-llmd-dp-rank", &booking.spec().dp_rank.to_string());
    insert(headers, "x-llmd-matched-tokens", &decision.matched_tokens.to_string());
    insert(headers, "x-llmd-match-source", decision.match_source.as_str());
    let predicted = &decision.predicted;
    if let Some(ttft_ms) = predicted.ttft_ms {
        insert(headers, "x-llmd-predicted-ttft-ms", &format!("{ttft_ms:.1}"));
    }
    if let Some(tpot_ms) = predicted.tpot_ms {
        insert(headers, "x-llmd-predicted-tpot-ms", &format!("{tpot_ms:.2}"));
    }
}

fn insert(headers: &mut hyper::HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// A future with an end.
trait Within: Future + Sized {
    /// What it comes to; `None` where it takes longer.
    async fn await_within(self, timeout: std::time::Duration) -> Option<Self::Output> {
        tokio::time::timeout(timeout, self).await.ok()
    }
}

impl<F: Future> Within for F {}

//! A request that an engine answers: read, placed, sent, sent elsewhere where that fails before the
//! first byte, and relayed.

use super::asked::Asked;
use super::attempt::{Tried, Turn};
use super::body::AnswerBody;
use super::booking::Booking;
use super::client_body::{ClientBody, read_body};
use super::config::ms;
use super::counts::InFlight;
use super::headers::{self, EXPLAIN};
use super::hedge::Hedged;
use super::keys::Key;
use super::pool::Unanswered;
use super::refusal::Refusal;
use super::relay::{Relay, Route};
use super::settings::Settings;
use super::spans::Trace;
use super::worker::Worker;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode};
use llmd_brain::EndpointId;
use llmd_brain::fleet::Health;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// What is answered token by token. Not streamed, an answer tells no first one; of everything else the
/// end is the end of its prefill.
const GENERATING: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/responses"];

impl Worker {
    /// Answers a request by an engine.
    pub(super) async fn generate(
        self: &Arc<Self>,
        request: Request<impl ClientBody>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let came = Instant::now();
        let settings = self.gateway.settings();
        let (mut head, body) = request.into_parts();
        let mut trace = Trace::begin(&self.gateway, &settings.config.tracing, &mut head, came);
        let answered = self.answer_by_engine(&settings, head, body, came, &mut trace).await;
        if let (Err(refusal), Some(trace)) = (&answered, trace) {
            trace.refused(refusal);
        }
        answered
    }

    async fn answer_by_engine(
        self: &Arc<Self>,
        settings: &Settings,
        mut head: Parts,
        body: impl ClientBody,
        came: Instant,
        trace: &mut Option<Box<Trace>>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let in_flight = InFlight::of(&self.gateway);
        // Before the body: a stranger's is not read.
        let key = settings.keys.identify(&head.headers)?;
        let body = read_body(body, &settings.config).await?;
        let find = |name: &str| self.gateway.fleet.find(name);
        let is_alias = |name: &str| self.gateway.live.is_alias(name);
        let mut asked = Asked::read(&head.headers, &body, find, is_alias, settings.config.hold_ms)?;
        asked.request.first_token_is_untold =
            !asked.read.is_stream && GENERATING.contains(&head.uri.path());
        self.admit(settings, key.as_deref(), &mut asked)?;
        if let Some(trace) = trace {
            trace.asked(&asked);
        }
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
            if let Some(trace) = trace {
                trace.choosing();
            }
            let booking = match Booking::make(&self.gateway.live, self.recent.as_ref(), &mut asked)
                .await
            {
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
            let may_retry =
                |tried: &[EndpointId]| tried.len() < settings.config.retries.max_attempts as usize;
            let Some(upstream) = self.gateway.fleet.upstream(booking.spec()) else {
                // It left the configuration a moment ago.
                booking.failed();
                if may_retry(&tried) && self.exclude(&mut asked, &tried) {
                    continue;
                }
                return Err(Refusal::unavailable("the engine has left the fleet"));
            };
            let sent = asked.body_for_engine(&body);
            let turn = Turn::new(booking, upstream, sent, tried.len(), settings, trace);
            let (turn, came_to) = if asked.read.is_stream && settings.config.hedge.is_on() {
                let (head, body, asked, tried) = (&head, &body, &mut asked, &mut tried);
                self.hedged(turn, Hedged { settings, head, body, asked, tried, trace }).await
            } else {
                let came_to = self.attempt(settings, &turn, &head).await;
                (turn, came_to)
            };
            let refusal = match came_to {
                Tried::Answered(response, lease) => {
                    if let Some(trace) = trace {
                        trace.answered(response.status());
                    }
                    let Turn { booking, upstream, first, .. } = turn;
                    let route = Route {
                        first,
                        lease,
                        booking,
                        upstream,
                        charged: key.and_then(|it| it.tokens()),
                        in_flight,
                        trace: trace.take(),
                        gateway: Arc::clone(&self.gateway),
                        idle: ms(settings.config.timeouts.idle_ms),
                    };
                    return Ok(relayed(response, route, is_explained.then_some(came)).await);
                }
                failed => self.failed(&turn, &failed, trace),
            };
            // Its load is gone before the next is placed.
            drop(turn);
            if refusal.status == StatusCode::GATEWAY_TIMEOUT {
                return Err(refusal);
            }
            if !may_retry(&tried) || !self.exclude(&mut asked, &tried) {
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

    /// A try came to nothing: what is remembered of its engine, and said where no other is asked.
    pub(super) fn failed(
        &self,
        turn: &Turn,
        came_to: &Tried,
        trace: &mut Option<Box<Trace>>,
    ) -> Refusal {
        turn.booking.failed();
        let address = &turn.upstream.address;
        let (status, refusal) = match came_to {
            Tried::Failed(why) => {
                self.gateway.fleet.failed(&turn.upstream);
                let message = format!("engine {address} {why}");
                let refusal = match why {
                    // It may be at work on it: no other is asked.
                    Unanswered::Silent(_) => Refusal::timeout(message),
                    _ => Refusal::bad_engine(message),
                };
                (None, refusal)
            }
            Tried::Declined(status) => declined(turn, *status),
            Tried::Answered(answer, ..) => declined(turn, answer.status()),
        };
        tracing::debug!("{}", refusal.message);
        if let (Some(trace), Some(leg)) = (trace, turn.leg_id()) {
            trace.leg_failed(leg, status, &refusal.message);
        }
        refusal
    }

    /// Leaves those who failed out of the next choice. Returns whether anybody else is well.
    pub(super) fn exclude(&self, asked: &mut Asked, tried: &[EndpointId]) -> bool {
        asked.request.excluded = tried.to_vec();
        let endpoints = self.gateway.live.endpoints();
        endpoints.iter().any(|view| view.health == Health::Ready && !tried.contains(&view.id))
    }
}

/// What an engine that answered by an error comes to.
fn declined(turn: &Turn, status: StatusCode) -> (Option<StatusCode>, Refusal) {
    turn.upstream.counts.failures.fetch_add(1, Relaxed);
    let message = format!("engine {} answered {status}", turn.upstream.address);
    (Some(status), Refusal::unavailable(message))
}

/// The answer to the client. Where it is to be explained, `came` is when the request did.
async fn relayed(
    response: Response<()>,
    route: Route,
    came: Option<Instant>,
) -> Response<AnswerBody> {
    let (mut head, ()) = response.into_parts();
    route.booking.answered(head.status);
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

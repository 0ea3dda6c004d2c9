//! The spans of a request that is under way.

use super::context::{Context, TRACEPARENT, TRACESTATE, random_id};
use super::otlp::{Kind, Span, Value};
use super::{Finished, TracingConfig};
use crate::gateway::Gateway;
use crate::gateway::asked::Asked;
use crate::gateway::booking::Booking;
use crate::gateway::config::GatewayConfig;
use crate::gateway::refusal::Refusal;
use crate::gateway::tally::Tally;
use crate::gateway::upstream::Upstream;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use hyper::http::request::Parts;
use llmd_brain::schedule::ProfileChoice;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A name that a client chose is kept to so many characters.
const LONGEST_NAME: usize = 256;

/// A sampled request. What it has is sent when it is dropped, also where the client went away.
pub(in crate::gateway) struct Trace {
    gateway: Arc<Gateway>,
    trace_id: u128,
    state: String,
    /// When it began, by the clock that everybody has and by the one that never jumps.
    began: (u64, Instant),
    root: Span,
    /// Since when a place is sought.
    choosing: Instant,
    /// The tries that are under way: one, or two that race.
    legs: Vec<Span>,
    spans: Vec<Span>,
    is_over: bool,
}

/// A try's span, as its engine is told of it.
pub(in crate::gateway) struct Leg(Context);

impl Leg {
    pub(in crate::gateway) fn id(&self) -> u64 {
        self.0.span_id
    }

    /// The `traceparent` that names it.
    pub(in crate::gateway) fn header(&self) -> HeaderValue {
        self.0.header()
    }
}

impl Trace {
    /// Begins one where this request is sampled. The head is that of the request to engines: where it
    /// is not, they are told so.
    pub(in crate::gateway) fn begin(
        gateway: &Arc<Gateway>,
        config: &TracingConfig,
        head: &mut Parts,
        came: Instant,
    ) -> Option<Box<Self>> {
        config.otlp_endpoint.as_ref()?;
        let parent = Context::read(&head.headers);
        if parent.is_none() {
            // It belongs to a parent that is not there.
            head.headers.remove(TRACESTATE);
        }
        let context = parent.unwrap_or_else(|| Context::begin(config.sample_percent));
        if !context.is_sampled {
            head.headers.insert(TRACEPARENT, context.header());
            return None;
        }
        // Each try has its own.
        head.headers.remove(TRACEPARENT);
        let states = head.headers.get_all(TRACESTATE).iter().filter_map(|it| it.to_str().ok());
        let state = states.collect::<Vec<_>>().join(",");
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let ago_ns = came.elapsed().as_nanos();
        let start_ns = u64::try_from(now_ns.saturating_sub(ago_ns)).unwrap_or(u64::MAX);
        let path = head.uri.path();
        let operation = match path {
            "/v1/chat/completions" | "/v1/responses" => "chat",
            "/v1/completions" => "text_completion",
            "/v1/embeddings" => "embeddings",
            other => other.trim_start_matches("/v1").trim_start_matches('/'),
        };
        let attributes = vec![
            ("http.request.method", text(head.method.as_str())),
            ("http.route", text(path)),
            ("url.path", text(path)),
            ("gen_ai.operation.name", text(operation)),
        ];
        let root = Span {
            span_id: random_id(),
            parent: parent.map(|it| it.span_id),
            name: format!("{} {path}", head.method),
            kind: Kind::Server,
            start_ns,
            end_ns: start_ns,
            attributes,
            events: Vec::new(),
            error: None,
        };
        Some(Box::new(Self {
            gateway: Arc::clone(gateway),
            trace_id: context.trace_id,
            state,
            began: (start_ns, came),
            root,
            choosing: came,
            legs: Vec::new(),
            spans: Vec::with_capacity(4),
            is_over: false,
        }))
    }

    fn at(&self, instant: Instant) -> u64 {
        let since_ns = instant.saturating_duration_since(self.began.1).as_nanos();
        self.began.0.saturating_add(u64::try_from(since_ns).unwrap_or(u64::MAX))
    }

    fn child(&self, name: &str, kind: Kind, from: Instant, until: Instant) -> Span {
        Span {
            span_id: random_id(),
            parent: Some(self.root.span_id),
            name: name.to_owned(),
            kind,
            start_ns: self.at(from),
            end_ns: self.at(until),
            attributes: Vec::new(),
            events: Vec::new(),
            error: None,
        }
    }

    /// It was read.
    pub(in crate::gateway) fn asked(&mut self, asked: &Asked) {
        let attributes = &mut self.root.attributes;
        if let Some(model) = &asked.read.model {
            let model: String = model.chars().take(LONGEST_NAME).collect();
            attributes.push(("gen_ai.request.model", Value::Text(model)));
        }
        if let Some(most) = asked.read.max_output_tokens {
            attributes.push(("gen_ai.request.max_tokens", Value::Whole(most.into())));
        }
    }

    /// It is to get a place.
    pub(in crate::gateway) fn choosing(&mut self) {
        self.choosing = Instant::now();
    }

    /// It got one.
    pub(in crate::gateway) fn placed(&mut self, booking: &Booking, config: &GatewayConfig) {
        let mut from = self.choosing;
        if let Some((held, until)) = booking.held() {
            let queue = self.child("queue", Kind::Internal, held, until);
            self.spans.push(queue);
            from = until;
        }
        let mut route = self.child("route", Kind::Internal, from, Instant::now());
        let (decision, spec) = (booking.decision(), booking.spec());
        let policy = match &config.router.schedule.profile {
            ProfileChoice::Named(name) => name,
            ProfileChoice::Inline(_) => "inline",
        };
        route.attributes = vec![
            ("llmd.policy", text(policy)),
            ("llmd.endpoint", text(&spec.address)),
            ("llmd.dp_rank", Value::Whole(spec.dp_rank.into())),
            ("llmd.matched_tokens", Value::Whole(decision.matched_tokens.into())),
            ("llmd.match_source", text(decision.match_source.as_str())),
        ];
        for (name, predicted) in [
            ("llmd.predicted_ttft_ms", decision.predicted.ttft_ms),
            ("llmd.predicted_tpot_ms", decision.predicted.tpot_ms),
        ] {
            route.attributes.extend(predicted.map(|ms| (name, Value::Real(ms))));
        }
        self.spans.push(route);
    }

    /// A try begins. Returns what the engine is to be told.
    pub(in crate::gateway) fn leg(&mut self, upstream: &Upstream, attempt: usize) -> Leg {
        let now = Instant::now();
        let mut leg = self.child("decode leg", Kind::Client, now, now);
        leg.attributes = vec![
            ("http.request.method", text("POST")),
            ("server.address", text(&upstream.host)),
            ("server.port", Value::Whole(upstream.port.into())),
        ];
        if attempt > 1 {
            let resent = i64::try_from(attempt - 1).unwrap_or(i64::MAX);
            leg.attributes.push(("http.request.resend_count", Value::Whole(resent)));
        }
        let context = Context { trace_id: self.trace_id, span_id: leg.span_id, is_sampled: true };
        self.legs.push(leg);
        Leg(context)
    }

    fn close(&mut self, id: u64) -> Option<&mut Span> {
        let at = self.legs.iter().position(|leg| leg.span_id == id)?;
        let mut leg = self.legs.remove(at);
        leg.end_ns = self.at(Instant::now());
        self.spans.push(leg);
        self.spans.last_mut()
    }

    /// Another try was first.
    pub(in crate::gateway) fn leg_lost(&mut self, id: u64) {
        if let Some(leg) = self.close(id) {
            leg.attributes.push(("llmd.cancelled", text("another engine was first")));
        }
    }

    /// The head of an answer came.
    pub(in crate::gateway) fn answered(&mut self, status: StatusCode) {
        let status = status.as_u16();
        let value = ("http.response.status_code", Value::Whole(status.into()));
        if let Some(leg) = self.legs.last_mut() {
            leg.attributes.push(value.clone());
            if status >= 400 {
                leg.error = Some(format!("status {status}"));
            }
        }
        self.root.attributes.push(value);
        // An error of the client's is none of the server's.
        if status >= 500 {
            self.root.error = Some(format!("status {status}"));
        }
    }

    /// A try ended without an answer that is passed on.
    pub(in crate::gateway) fn leg_failed(
        &mut self,
        id: u64,
        status: Option<StatusCode>,
        why: &str,
    ) {
        if let Some(leg) = self.close(id) {
            let status = status.map(|it| Value::Whole(it.as_u16().into()));
            leg.attributes.extend(status.map(|it| ("http.response.status_code", it)));
            leg.error = Some(why.to_owned());
        }
    }

    /// A piece of the answer came.
    pub(in crate::gateway) fn piece(&mut self) {
        if self.legs.last().is_some_and(|leg| leg.events.is_empty()) {
            let at = self.at(Instant::now());
            if let Some(leg) = self.legs.last_mut() {
                leg.events.push(("first byte", at));
            }
        }
    }

    /// The answer ended, as it should or not.
    pub(in crate::gateway) fn ended(mut self: Box<Self>, tally: &Tally, error: Option<&str>) {
        self.is_over = true;
        let tokens = [
            ("gen_ai.usage.input_tokens", tally.prompt_tokens()),
            ("gen_ai.usage.output_tokens", tally.tokens()),
        ];
        let tokens =
            || tokens.into_iter().filter_map(|(name, it)| Some((name, Value::Whole(it?.into()))));
        self.root.attributes.extend(tokens());
        if let Some(leg) = self.legs.last_mut() {
            leg.attributes.extend(tokens());
            leg.error = error.map(str::to_owned).or(leg.error.take());
        }
        self.root.error = error.map(str::to_owned).or(self.root.error.take());
    }

    /// It was refused: the code says why, the message may quote the client.
    pub(in crate::gateway) fn refused(mut self: Box<Self>, refusal: &Refusal) {
        self.is_over = true;
        let status = refusal.status.as_u16();
        let attributes = &mut self.root.attributes;
        attributes.push(("http.response.status_code", Value::Whole(status.into())));
        attributes.push(("error.type", text(refusal.code)));
        if status >= 500 {
            self.root.error = Some(refusal.code.to_owned());
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let now = self.at(Instant::now());
        if !self.is_over {
            let why = "the client went away";
            for span in std::iter::once(&mut self.root).chain(&mut self.legs) {
                span.error = Some(why.to_owned());
            }
        }
        self.root.end_ns = now;
        for mut leg in std::mem::take(&mut self.legs) {
            leg.end_ns = now;
            self.spans.push(leg);
        }
        let mut spans = std::mem::take(&mut self.spans);
        spans.push(self.root.clone());
        let state = std::mem::take(&mut self.state);
        self.gateway.spans.finished(Finished { trace_id: self.trace_id, state, spans });
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

//! An engine's answer on its way to the client.
//!
//! Pieces are passed on as they come, one at a time, and the next is asked for when the client has
//! taken the last: a slow client slows its engine, and memory stays bounded. On the way the brain
//! hears of the first token, of growth and of the end. Dropping a relay before the end closes the
//! connection to the engine, which aborts the request there.

use super::Gateway;
use super::allowance::Allowance;
use super::body::CutOff;
use super::booking::Booking;
use super::counts::InFlight;
use super::pool::Lease;
use super::spans::Trace;
use super::tally::Tally;
use super::upstream::Upstream;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// Tokens between two reports of growth: a lease is renewed and a load corrected, which a few tokens
/// do not need.
const TOKENS_BETWEEN_REPORTS: u32 = 32;

/// An answer under way.
pub(super) struct Relay {
    lease: Option<Lease>,
    booking: Option<Booking>,
    upstream: Arc<Upstream>,
    gateway: Arc<Gateway>,
    _in_flight: InFlight,
    trace: Option<Box<Trace>>,
    charged: Option<Arc<Allowance>>,
    tally: Tally,
    is_stream: bool,
    reported_tokens: u32,
    /// A piece that was waited for before the head was sent.
    ahead: Option<Bytes>,
    idle: Duration,
    last: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Flowing,
    /// It ended, well or not.
    Over,
}

/// What an answer has to do with.
pub(super) struct Route {
    pub(super) lease: Lease,
    pub(super) booking: Booking,
    pub(super) upstream: Arc<Upstream>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) in_flight: InFlight,
    pub(super) trace: Option<Box<Trace>>,
    /// The first piece, where it was waited for.
    pub(super) first: Option<Bytes>,
    /// What the tokens of the answer are charged to.
    pub(super) charged: Option<Arc<Allowance>>,
    pub(super) idle: Duration,
}

impl Relay {
    pub(super) fn new(is_stream: bool, route: Route) -> Self {
        let Route { lease, booking, upstream, gateway, in_flight, trace, first, charged, idle } =
            route;
        let mut relay = Self {
            lease: Some(lease),
            booking: Some(booking),
            upstream,
            gateway,
            _in_flight: in_flight,
            trace,
            charged,
            tally: Tally::default(),
            is_stream,
            reported_tokens: 0,
            ahead: None,
            idle,
            last: Instant::now(),
            timer: None,
            state: State::Before,
        };
        if let Some(first) = first {
            relay.pass(&first);
            relay.ahead = Some(first);
        }
        relay.end_if_over();
        relay
    }

    /// Waits for the first piece, so that it is known when it came before the head is sent.
    pub(super) async fn wait_for_first(&mut self) {
        if self.ahead.is_some() {
            return;
        }
        let piece = std::future::poll_fn(|context| self.poll(context)).await;
        // Whatever else it came to, polling says so again: it is over then.
        if let Some(Ok(frame)) = piece {
            self.ahead = frame.into_data().ok();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.state == State::Over && self.ahead.is_none()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.as_ref().map_or(0, |it| it.len() as u64);
        match self.lease.as_ref().map_or(Some(0), Lease::left) {
            Some(left) => SizeHint::with_exact(left + ahead),
            None => SizeHint::default(),
        }
    }

    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(Ok(Frame::data(ahead))));
        }
        let Some(lease) = self.lease.as_mut() else { return Poll::Ready(None) };
        match lease.poll_piece(context) {
            Poll::Ready(Some(Ok(piece))) => {
                self.pass(&piece);
                self.end_if_over();
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(self.cut_off(&error.to_string()))),
            Poll::Pending => self.poll_idle(context),
        }
    }

    /// The timer is set once and looked at when it rings, not set anew with every piece.
    fn poll_idle(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let (last, idle) = (self.last, self.idle);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until((last + idle).into())));
        while timer.as_mut().poll(context).is_ready() {
            if last.elapsed() >= idle {
                let why = format!("it sent nothing for {} ms (timeouts.idle_ms)", idle.as_millis());
                return Poll::Ready(Some(self.cut_off(&why)));
            }
            timer.as_mut().reset((last + idle).into());
        }
        Poll::Pending
    }

    fn pass(&mut self, piece: &[u8]) {
        self.last = Instant::now();
        if let Some(trace) = &mut self.trace {
            trace.piece();
        }
        self.tally.take(piece, self.is_stream);
        let Some(booking) = &self.booking else { return };
        let events = self.tally.events();
        if self.state == State::Before && (events > 0 || !self.is_stream) {
            self.state = State::Flowing;
            if self.is_stream {
                booking.first_token();
            }
        }
        if events >= self.reported_tokens + TOKENS_BETWEEN_REPORTS {
            self.reported_tokens = events;
            booking.progress(events);
        }
    }

    fn end_if_over(&mut self) {
        if self.lease.as_ref().is_some_and(Lease::is_over) {
            self.end();
        }
    }

    fn end(&mut self) {
        self.state = State::Over;
        self.upstream.vigil.succeeded();
        self.gateway.counts.completed(self.tally.tokens());
        if let Some(trace) = self.trace.take() {
            trace.ended(&self.tally, None);
        }
        if let Some(charged) = &self.charged {
            charged.charge(self.gateway.now_ns(), self.tally.tokens().unwrap_or_default().into());
        }
        if let Some(booking) = self.booking.take() {
            booking.finish(self.tally.tokens());
        }
        if let Some(lease) = self.lease.take() {
            lease.give_back();
        }
    }

    /// The engine failed in the middle. A stream says so in an event, which clients raise as an
    /// error, and ends; another answer's connection is closed.
    fn cut_off(&mut self, why: &str) -> Result<Frame<Bytes>, CutOff> {
        self.state = State::Over;
        self.gateway.counts.cut_off();
        self.gateway.fleet.failed(&self.upstream);
        if let Some(booking) = &self.booking {
            booking.failed();
        }
        // Cancels the booking, and closes the connection.
        drop((self.booking.take(), self.lease.take()));
        let message = format!("the engine failed in the middle of the answer: {why}");
        if let Some(trace) = self.trace.take() {
            trace.ended(&self.tally, Some(&message));
        }
        tracing::warn!(engine = %self.upstream.address, "{message}");
        if !self.is_stream {
            return Err(CutOff(message));
        }
        let event = serde_json::json!({
            "error": { "message": message, "type": "server_error", "param": null, "code": "engine_failed" }
        });
        Ok(Frame::data(Bytes::from(format!("data: {event}\n\n"))))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.state != State::Over {
            self.gateway.counts.client_left();
        }
    }
}

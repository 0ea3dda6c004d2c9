//! Ends that nobody tells of.
//!
//! A request that is [`untold`](crate::schedule::Request::end_is_untold) goes from its client to its engine
//! past this process (a proxy asked only where): no news of it comes. Two things tell all the same:
//!
//! - The latency model says when it is likely to be over: its first token, and so many decode steps as the
//!   client expects tokens, or as answers have on average, and no more than the client allows.
//! - The engine's page counts the requests that it has. Where we have more in flight than that, those have
//!   ended that were likely to first. As long as pages come, and nobody else is known to send there, nothing
//!   else ends: a request that takes longer than expected stays booked, and holds its place.
//!
//! A page does not show what was sent just before it: requests younger than [`SETTLING`] are not compared.
//! Where an endpoint has neither a model nor pages, leases end its requests.
//!
//! Nothing is learned from such an end. What is told all the same counts: an end that is told first is the
//! end.

use super::state::State;
use crate::fleet::Reservation;
use crate::schedule::Request;
use crate::{EndpointId, ReservationId, Slot, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

/// So long after it was sent, a request is on its engine's pages.
const SETTLING: Duration = Duration::from_millis(500);
/// No answer takes longer, whatever a model says.
const DAY_MS: f64 = 86_400_000.0;

/// Untold requests in flight. What ended otherwise is in here until it was likely to.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Of each slot, by when they are likely to end: how long each decodes.
    by_slot: Vec<BTreeMap<(Time, ReservationId), Duration>>,
    /// When to look at which of them.
    due: BinaryHeap<Reverse<(Time, Untold)>>,
}

/// Where one of them is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Untold {
    likely: Time,
    id: ReservationId,
    slot: Slot,
}

impl Ends {
    fn expect(&mut self, it: Untold, decode: Duration) {
        let slots = self.by_slot.len().max(it.slot.index() + 1);
        self.by_slot.resize_with(slots, BTreeMap::new);
        self.by_slot[it.slot.index()].insert((it.likely, it.id), decode);
        self.due.push(Reverse((it.likely, it)));
    }

    fn forget(&mut self, it: Untold) {
        if let Some(waiting) = self.by_slot.get_mut(it.slot.index()) {
            waiting.remove(&(it.likely, it.id));
        }
    }

    /// When the next of them is likely to be over.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }
}

impl State {
    /// A request was booked.
    pub(super) fn guess_end(&mut self, now: Time, id: ReservationId, request: &Request) {
        if request.end_is_untold
            && let Some(booked) = self.fleet.reservation(id)
        {
            let slot = booked.endpoint.slot;
            let lease = Duration::from_millis(self.fleet.config().lease_ms);
            let (prefill, decode) = self.likely(booked, request).unwrap_or((Duration::ZERO, lease));
            self.ends.expect(Untold { likely: now + prefill + decode, id, slot }, decode);
        }
    }

    /// How long a request is likely to wait for its first token, and for the rest of its answer.
    fn likely(&self, booked: &Reservation, request: &Request) -> Option<(Duration, Duration)> {
        let ms = |ms: f64| Duration::from_nanos((ms.clamp(0.0, DAY_MS) * 1e6) as u64);
        let tpot_ms = booked.predicted.tpot_ms?;
        let expected = request.expected_output_tokens.map(f64::from);
        let tokens = expected.unwrap_or_else(|| self.predictor.mean_output_tokens());
        let tokens = tokens.min(request.max_output_tokens.map_or(f64::INFINITY, f64::from));
        let ttft_ms = booked.predicted.ttft_ms;
        let ttft_ms = ttft_ms.unwrap_or_else(|| self.predictor.prefill_ms(booked));
        Some((ms(ttft_ms), ms((tokens - 1.0).max(0.0) * tpot_ms)))
    }

    /// Untold requests that are likely to be over by `now` are, unless pages would tell.
    pub(super) fn take_ends(&mut self, now: Time) {
        while let Some(&Reverse((at, it))) = self.ends.due.peek()
            && at <= now
        {
            self.ends.due.pop();
            let waiting = self.ends.by_slot.get(it.slot.index());
            let decode = waiting.and_then(|them| them.get(&(it.likely, it.id))).copied();
            let (Some(decode), Some(booked)) = (decode, self.fleet.reservation(it.id)) else {
                self.ends.forget(it);
                continue;
            };
            // A first token that was told of may have come at another time than thought, or be to come.
            let likely = match self.is_told_of_first_token(booked) {
                true => booked.first_token_at.unwrap_or(now) + decode,
                false => it.likely,
            };
            if likely > now {
                self.ends.forget(it);
                self.ends.expect(Untold { likely, ..it }, decode);
            } else if let Some(next) = self.fleet.next_page(now, it.slot) {
                self.ends.due.push(Reverse((next.max(now + SETTLING), it)));
            } else {
                self.ends.forget(it);
                self.end_untold(now, it.id);
            }
        }
    }

    /// A page of an endpoint was read: where it has fewer requests than we have there, others have ended.
    pub(super) fn take_page(&mut self, now: Time, endpoint: EndpointId) {
        let slot = endpoint.slot;
        let Some(shown) = self.fleet.requests_on_page(endpoint) else { return };
        let Some(waiting) = self.ends.by_slot.get(slot.index()).filter(|it| !it.is_empty()) else {
            return;
        };
        let untold: Vec<&Reservation> =
            waiting.keys().filter_map(|(_, id)| self.fleet.reservation(*id)).collect();
        let settled: Vec<ReservationId> =
            (untold.iter()).filter(|it| it.booked_at + SETTLING <= now).map(|it| it.id).collect();
        let told = (self.fleet.own_requests(slot) as usize).saturating_sub(untold.len());
        let ended = (told + settled.len()).saturating_sub(shown).min(settled.len());
        for id in &settled[..ended] {
            self.end_untold(now, *id);
        }
        if ended > 0
            && let Some(waiting) = self.ends.by_slot.get_mut(slot.index())
        {
            waiting.retain(|(_, id), _| self.fleet.reservation(*id).is_some());
        }
    }

    fn end_untold(&mut self, now: Time, id: ReservationId) {
        if let Some(ticket) = self.fleet.reservation(id).map(|it| it.ticket) {
            self.fleet.release(now, id);
            self.forget_routed(now, ticket);
            self.stats.guessed_ends += 1;
        }
    }
}

//! Turns of requests that wait: for an endpoint that can take them, for room for their session, or for
//! their turn (`turns.rs`).

use super::answers::IndexAnswers;
use super::state::State;
use super::{Action, RejectReason};
use crate::flow::{Admission, Held, Home, SessionId, Waiter, WhenHeldTooLong};
use crate::schedule::{ForeignScore, Request};
use crate::{BlockKey, EndpointId, ReservationId, Ticket, Time};
use std::cmp::Reverse;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Those who wait for room are asked again at least so often.
const ASKED_EVERY: Duration = Duration::from_millis(250);

/// A request without a place yet.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) keys: Vec<BlockKey>,
    pub(super) waits_for: WaitsFor,
}

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// An endpoint that can serve it at all.
    Endpoint,
    /// Room for its session in a KV cache.
    Room,
    /// Its turn: every engine that could take it has enough to do.
    Turn,
}

impl Waiting {
    /// As the sessions see it.
    pub(super) fn waiter(held: &Held<Self>) -> Waiter<'_> {
        Waiter {
            ticket: held.ticket,
            session: session_of(&held.payload.request),
            keys: &held.payload.keys,
            prompt_tokens: held.payload.request.prompt_tokens,
            since: held.since,
            may_wait: true,
        }
    }
}

/// The session that a request names.
pub(super) fn session_of(request: &Request) -> Option<SessionId> {
    request.session_id.as_ref().map(|name| SessionId(xxh3_64(name.as_bytes())))
}

/// A request that was sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routed {
    pub(super) reservation: ReservationId,
    pub(super) session: Option<SessionId>,
}

impl State {
    /// The session of a request, if it may change anything: where requests of it may wait, or the profile
    /// weighs what they evict. A published rule stays what it is.
    pub(super) fn tracked_session(&self, request: &Request) -> Option<SessionId> {
        let is_tracked = request.hold_ms > 0 || self.scheduler.weighs_evictions();
        session_of(request).filter(|_| is_tracked)
    }

    /// A request that has just come: its place, or a place in the queue.
    pub(super) fn route_or_hold(
        &mut self,
        now: Time,
        ticket: Ticket,
        request: &Request,
        keys: &[BlockKey],
        foreign: &[ForeignScore],
        answers: &mut IndexAnswers<'_>,
    ) -> Action {
        let (session, may_wait) = (self.tracked_session(request), request.hold_ms > 0);
        if let Some(session) = session {
            self.sessions.arrived(now, session, keys, may_wait);
        }
        let takes_turns = self.turns.arrives(now, request);
        let prompt_tokens = request.prompt_tokens;
        let waiter = Waiter { ticket, session, keys, prompt_tokens, since: now, may_wait };
        let admission = if self.sessions.is_of_sessions() && session.is_some() {
            self.admission(now, &waiter)
        } else {
            self.sessions.forget_past(now);
            Admission::Anywhere
        };
        let placed = match admission {
            Admission::Anywhere if takes_turns => {
                self.place_in_turn(now, ticket, request, keys, foreign, answers)
            }
            Admission::Anywhere => self.place(now, ticket, request, keys, foreign, answers),
            Admission::Among(homes) => {
                let narrowed = among(request, homes);
                let placed = self.place(now, ticket, &narrowed, keys, foreign, answers);
                match placed {
                    // Its labels or its own list keep it from where its session should be.
                    Err(_) if !may_wait => self.place(now, ticket, request, keys, foreign, answers),
                    placed => placed,
                }
            }
            Admission::Wait => Err(RejectReason::NoRoom),
        };
        let why = match placed {
            Ok(decision) => {
                let uncached = prompt_tokens.saturating_sub(decision.matched_tokens);
                let mean_output = self.predictor.mean_output_tokens();
                self.turns.went_at_once(request, uncached, mean_output);
                return Action::Route(Box::new(decision));
            }
            Err(why) => why,
        };
        let action = self.hold_or_reject(now, ticket, request, keys, why, answers);
        match (&action, session) {
            // At once: it may be worth more than others that wait.
            (Action::Hold(_), Some(_)) if self.sessions.is_of_sessions() => {
                self.asks_at = Some(now);
            }
            (Action::Reject { .. }, Some(session)) => self.sessions.given_up(now, session),
            _ => {}
        }
        action
    }

    /// Where a request that has just come may go, beside those who wait already.
    fn admission(&mut self, now: Time, waiter: &Waiter<'_>) -> Admission {
        let homes = self.homes();
        let parked = self.parked.iter().filter_map(|(_, ticket)| self.holding.get(*ticket));
        let mut waiting: Vec<Waiter<'_>> = parked.map(Waiting::waiter).collect();
        let others_wait = waiting.iter().any(|it| it.session.is_some());
        waiting.push(*waiter);
        self.sessions.update(now, &homes, &waiting);
        if !self.sessions.is_tight() {
            return Admission::Anywhere;
        }
        // Room goes to who is worth the most of those who wait, not to who came last.
        if others_wait && !self.sessions.is_at_home(waiter) {
            return self.sessions.without_room(now, waiter, &homes);
        }
        self.sessions.admit(now, waiter, &homes)
    }

    fn hold_or_reject(
        &mut self,
        now: Time,
        ticket: Ticket,
        request: &Request,
        keys: &[BlockKey],
        why: RejectReason,
        answers: &mut IndexAnswers<'_>,
    ) -> Action {
        if request.hold_ms == 0 {
            let contended = why.is_contention();
            return self.reject(ticket, why, contended);
        }
        let waits_for = match why {
            RejectReason::NoRoom => WaitsFor::Room,
            RejectReason::Saturated | RejectReason::NotBooked(_) => WaitsFor::Turn,
            _ => WaitsFor::Endpoint,
        };
        // An answer that is late is worth nothing.
        let hold_ms = request.deadline_ms.unwrap_or(u64::MAX).min(request.hold_ms);
        let held = Waiting { request: request.clone(), keys: keys.to_vec(), waits_for };
        if self.holding.is_full()
            && !self.holding.would_shed(request.priority)
            && let Some(last) = self.turns.makes_room_for(request)
            && let Some(last) = self.holding.take(last)
        {
            self.shed(now, &last);
        }
        match self.holding.push(now, ticket, request.priority, hold_ms, held) {
            Ok(pushed) => {
                self.stats.held += 1;
                if let Some(shed) = pushed.shed {
                    self.shed(now, &shed);
                }
                self.waits_from_now_on(now, ticket, answers);
                Action::Hold(ticket)
            }
            Err(refused) => {
                let not_held = RejectReason::NotHeld(refused.why.to_string());
                self.reject(ticket, not_held, why.is_contention())
            }
        }
    }

    /// A request that is in the queue is put where it will be asked.
    pub(super) fn waits_from_now_on(
        &mut self,
        now: Time,
        ticket: Ticket,
        answers: &mut IndexAnswers<'_>,
    ) {
        let Some(held) = self.holding.get(ticket) else { return };
        if held.payload.waits_for == WaitsFor::Turn {
            self.takes_its_turn(now, ticket, answers);
        } else {
            self.parked.insert((Reverse(held.priority), ticket));
        }
    }

    /// A request left the queue.
    pub(super) fn waits_no_more(&mut self, held: &Held<Waiting>) {
        self.turns.remove(held.ticket);
        self.parked.remove(&(Reverse(held.priority), held.ticket));
    }

    /// One that waited gave way.
    fn shed(&mut self, now: Time, held: &Held<Waiting>) {
        self.waits_no_more(held);
        if let Some(session) = session_of(&held.payload.request) {
            self.sessions.given_up(now, session);
        }
        self.stats.shed += 1;
        let why = RejectReason::Shed(self.holding.len());
        let action = self.reject(held.ticket, why, true);
        self.unsaid.push(action);
    }

    /// Turns a request away.
    fn reject(&mut self, ticket: Ticket, why: RejectReason, contended: bool) -> Action {
        self.stats.rejected += 1;
        let retry_after_ms = contended.then(|| self.pace.after_ms(self.holding.len()));
        Action::Reject { ticket, why, retry_after_ms }
    }

    /// Asks every request that waits for an endpoint or for room once whether it has a place now.
    pub(super) fn ask_again(
        &mut self,
        now: Time,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) {
        self.asks_at = None;
        if self.parked.is_empty() {
            return;
        }
        // The queue is taken out while its requests are placed, which needs the rest of the state.
        let mut holding = std::mem::take(&mut self.holding);
        let homes = self.homes();
        let parked = self.parked.iter().filter_map(|(_, ticket)| holding.get(*ticket));
        let mut waiting: Vec<Waiter<'_>> = parked.map(Waiting::waiter).collect();
        self.sessions.update(now, &homes, &waiting);
        if self.sessions.is_tight() {
            self.sessions.order(now, &mut waiting);
        }
        let tickets: Vec<Ticket> = waiting.iter().map(|it| it.ticket).collect();
        let takes_turns = self.turns.takes_turns(now);
        let (mut waits_for_room, mut wait_for_their_turn) = (false, Vec::new());
        for ticket in tickets {
            let Some(held) = holding.get(ticket).filter(|held| held.deadline > now) else {
                continue;
            };
            let Waiting { request, keys, .. } = &held.payload;
            let placed = match self.sessions.admit(now, &Waiting::waiter(held), &homes) {
                Admission::Anywhere if takes_turns => {
                    self.place_in_turn(now, ticket, request, keys, &[], answers)
                }
                Admission::Anywhere => self.place(now, ticket, request, keys, &[], answers),
                Admission::Among(homes) => {
                    self.place(now, ticket, &among(request, homes), keys, &[], answers)
                }
                Admission::Wait => Err(RejectReason::NoRoom),
            };
            let parked = (Reverse(held.priority), ticket);
            match placed {
                Ok(decision) => {
                    holding.take(ticket);
                    self.parked.remove(&parked);
                    actions.push(Action::Release(Box::new(decision)));
                }
                Err(RejectReason::Saturated | RejectReason::NotBooked(_)) => {
                    self.parked.remove(&parked);
                    wait_for_their_turn.push(ticket);
                    if let Some(waiting) = holding.payload_mut(ticket) {
                        waiting.waits_for = WaitsFor::Turn;
                    }
                }
                Err(why) => {
                    waits_for_room |= session_of(request).is_some();
                    let is_for_room = matches!(why, RejectReason::NoRoom);
                    if let Some(waiting) = holding.payload_mut(ticket) {
                        waiting.waits_for =
                            if is_for_room { WaitsFor::Room } else { WaitsFor::Endpoint };
                    }
                }
            }
        }
        self.holding = holding;
        for ticket in wait_for_their_turn {
            self.waits_from_now_on(now, ticket, answers);
        }
        if waits_for_room && self.sessions.is_of_sessions() {
            self.asks_at = Some(now + ASKED_EVERY);
        }
    }

    /// A request was held as long as it may be.
    pub(super) fn held_too_long(
        &mut self,
        now: Time,
        ticket: Ticket,
        waiting: &Waiting,
        answers: &mut IndexAnswers<'_>,
    ) -> Action {
        let Waiting { request, keys, waits_for } = waiting;
        let due_ms = request.deadline_ms.filter(|due_ms| *due_ms <= request.hold_ms);
        if due_ms.is_none()
            && self.flow.when_held_too_long == WhenHeldTooLong::Dispatch
            && let Ok(decision) = self.place(now, ticket, request, keys, &[], answers)
        {
            return Action::Release(Box::new(decision));
        }
        if let Some(session) = session_of(request) {
            self.sessions.given_up(now, session);
        }
        let too_long = RejectReason::HoldExpired(request.hold_ms);
        let why = due_ms.map_or(too_long, RejectReason::DeadlinePassed);
        self.reject(ticket, why, *waits_for != WaitsFor::Endpoint)
    }

    /// A request is no longer anywhere. Says what it had booked.
    pub(super) fn forget_routed(&mut self, now: Time, ticket: Ticket) -> Option<ReservationId> {
        let Routed { reservation, session } = self.routed.remove(&ticket)?;
        if let Some(session) = session {
            self.sessions.ended(now, session);
        }
        Some(reservation)
    }

    /// Endpoints that take requests, and what their KV holds.
    fn homes(&self) -> Vec<Home> {
        let columns = self.fleet.columns();
        let ready = |id: &EndpointId| columns.health[id.slot.index()].is_schedulable();
        let capacity = |id: EndpointId| (id, columns.kv_capacity_tokens[id.slot.index()]);
        self.fleet.ids().filter(ready).map(capacity).collect()
    }
}

/// The request, for some endpoints only.
pub(super) fn among(request: &Request, mut homes: Vec<EndpointId>) -> Request {
    if let Some(allowed) = &request.allowed {
        homes.retain(|home| allowed.contains(home));
    }
    Request { allowed: Some(homes), ..request.clone() }
}

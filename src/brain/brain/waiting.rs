//! Turns of requests that wait: for an endpoint that can take them, or for room for their session.

use super::answers::IndexAnswers;
use super::state::{Routed, State, Waiting, session_of};
use super::{Action, RejectReason};
use crate::flow::{Admission, Home, Waiter, WhenHeldTooLong};
use crate::schedule::{ForeignScore, Request};
use crate::{BlockKey, EndpointId, ReservationId, Ticket, Time};
use std::time::Duration;

/// Those who wait for room are asked again at least so often.
const ASKED_EVERY: Duration = Duration::from_millis(250);

impl State {
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
        let session = session_of(request);
        if let Some(session) = session {
            self.sessions.arrived(now, session, keys);
        }
        let prompt_tokens = request.prompt_tokens;
        let waiter = Waiter { ticket, session, keys, prompt_tokens, since: now };
        let admission = if self.sessions.is_of_sessions() && request.hold_ms > 0 {
            self.admission(now, &waiter)
        } else {
            self.sessions.judge(now);
            Admission::Anywhere
        };
        let placed = match admission {
            Admission::Anywhere => self.place(now, ticket, request, keys, foreign, answers),
            Admission::Among(homes) => {
                let request = among(request, homes);
                self.place(now, ticket, &request, keys, foreign, answers)
            }
            Admission::Wait => Err(RejectReason::NoRoom),
        };
        let why = match placed {
            Ok(decision) => return Action::Route(Box::new(decision)),
            Err(why) => why,
        };
        let action = self.hold_or_reject(now, ticket, request, keys, why);
        match (&action, session) {
            // At once: it may be worth more than others that wait.
            (Action::Hold(_), Some(_)) => self.asks_at = Some(now),
            (Action::Reject { .. }, Some(session)) => self.sessions.given_up(session, ticket),
            _ => {}
        }
        action
    }

    /// Where a request that has just come may go, beside those who wait already.
    fn admission(&mut self, now: Time, waiter: &Waiter<'_>) -> Admission {
        let homes = self.homes();
        let mut waiting: Vec<Waiter<'_>> = self.holding.iter().map(Waiting::waiter).collect();
        let others_wait = waiting.iter().any(|it| it.session.is_some());
        waiting.push(*waiter);
        self.sessions.update(now, &homes, &waiting);
        if !self.sessions.is_tight() {
            return Admission::Anywhere;
        }
        // Room goes to who is worth the most of those who wait, not to who came last.
        if others_wait && !self.sessions.is_at_home(waiter) {
            return Admission::Wait;
        }
        self.sessions.admit(now, waiter, &homes)
    }

    /// Asks every request that waits once whether it has a place now.
    pub(super) fn ask_again(
        &mut self,
        now: Time,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) {
        self.asks_at = None;
        if self.holding.is_empty() {
            return;
        }
        // The queue is taken out while its requests are placed, which needs the rest of the state.
        let mut holding = std::mem::take(&mut self.holding);
        let homes = self.homes();
        let open = holding.iter().filter(|held| held.deadline > now);
        let mut waiting: Vec<Waiter<'_>> = open.map(Waiting::waiter).collect();
        self.sessions.update(now, &homes, &waiting);
        if self.sessions.is_tight() {
            self.sessions.order(now, &mut waiting);
        }
        let tickets: Vec<Ticket> = waiting.iter().map(|it| it.ticket).collect();
        for ticket in tickets {
            let Some(held) = holding.get(ticket) else { continue };
            let Waiting { request, keys } = &held.payload;
            let placed = match self.sessions.admit(now, &Waiting::waiter(held), &homes) {
                Admission::Anywhere => self.place(now, ticket, request, keys, &[], answers),
                Admission::Among(homes) => {
                    self.place(now, ticket, &among(request, homes), keys, &[], answers)
                }
                Admission::Wait => continue,
            };
            if let Ok(decision) = placed {
                holding.cancel(ticket);
                actions.push(Action::Release(Box::new(decision)));
            }
        }
        let waits_for_room = holding.iter().any(|held| held.payload.request.session_id.is_some());
        self.holding = holding;
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
        let Waiting { request, keys } = waiting;
        if self.flow.when_held_too_long == WhenHeldTooLong::Dispatch
            && let Ok(decision) = self.place(now, ticket, request, keys, &[], answers)
        {
            return Action::Release(Box::new(decision));
        }
        if let Some(session) = session_of(request) {
            self.sessions.given_up(session, ticket);
        }
        self.stats.rejected += 1;
        Action::Reject { ticket, why: RejectReason::HoldExpired(request.hold_ms) }
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
fn among(request: &Request, mut homes: Vec<EndpointId>) -> Request {
    if let Some(allowed) = &request.allowed {
        homes.retain(|home| allowed.contains(home));
    }
    Request { allowed: Some(homes), ..request.clone() }
}

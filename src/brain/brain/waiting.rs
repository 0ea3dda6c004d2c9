//! Turns of requests that wait: for an endpoint that can take them, or for room for their session.

use super::answers::IndexAnswers;
use super::state::{Routed, State, Waiting, session_of};
use super::{Action, RejectReason};
use crate::flow::{Admission, Attempt, Home, Waiter, WhenHeldTooLong};
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
        let admission = if self.sessions.is_of_sessions() && session.is_some() {
            self.admission(now, &waiter)
        } else {
            self.sessions.forget_past(now);
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
            (Action::Reject { .. }, Some(session)) => self.sessions.given_up(now, session, ticket),
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
        let mut waiting: Vec<Waiter<'_>> = holding.iter().map(Waiting::waiter).collect();
        self.sessions.update(now, &homes, &waiting);
        if self.sessions.is_tight() {
            self.sessions.order(now, &mut waiting);
        }
        let tickets: Vec<Ticket> = waiting.iter().map(|it| it.ticket).collect();
        let placed = holding.pop_in_order(now, &tickets, |held| {
            let (ticket, Waiting { request, keys }) = (held.ticket, &held.payload);
            let placed = match self.sessions.admit(now, &Waiting::waiter(held), &homes) {
                Admission::Anywhere => self.place(now, ticket, request, keys, &[], answers),
                Admission::Among(homes) => {
                    self.place(now, ticket, &among(request, homes), keys, &[], answers)
                }
                Admission::Wait => return Attempt::Keep,
            };
            placed.map_or(Attempt::Keep, Attempt::Placed)
        });
        actions.extend(placed.into_iter().map(|(_, decision)| Action::Release(Box::new(decision))));
        let waits_for_room = holding.iter().any(|held| session_of(&held.payload.request).is_some());
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
            self.sessions.given_up(now, session, ticket);
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

#[cfg(test)]
mod tests {
    use crate::brain::{Action, Brain, BrainConfig, EndpointChange, Input};
    use crate::fleet::{Capacity, EndpointSpec};
    use crate::index::Matches;
    use crate::rng::Rng;
    use crate::schedule::Request;
    use crate::{BlockKey, EndpointId, ReservationId, Ticket, Time};
    use std::collections::BTreeMap;
    use std::time::Duration;

    const SESSIONS: u64 = 60;

    /// What a caller knows of its requests.
    #[derive(Default)]
    struct Caller {
        waiting: BTreeMap<Ticket, u64>,
        running: BTreeMap<Ticket, (ReservationId, EndpointId, u64)>,
        answered: u64,
        turned_away: u64,
        cancelled: u64,
        longest_queue: usize,
    }

    impl Caller {
        fn hear(&mut self, session: Option<u64>, actions: Vec<Action>) {
            for action in actions {
                match action {
                    Action::Route(it) => {
                        let sent = (it.reservation, it.endpoint, session.unwrap());
                        assert!(self.running.insert(it.ticket, sent).is_none());
                    }
                    Action::Hold(ticket) => {
                        assert!(self.waiting.insert(ticket, session.unwrap()).is_none());
                    }
                    Action::Release(it) => {
                        let session = self.waiting.remove(&it.ticket).expect("it waited");
                        let sent = (it.reservation, it.endpoint, session);
                        assert!(self.running.insert(it.ticket, sent).is_none());
                    }
                    Action::Reject { ticket, .. } => {
                        self.waiting.remove(&ticket);
                        self.turned_away += 1;
                    }
                    Action::Cancel { ticket, .. } => {
                        self.cancelled += u64::from(self.running.remove(&ticket).is_some());
                    }
                    Action::Joined(_) | Action::Left(_) | Action::Resync(_) => {}
                }
            }
            self.longest_queue = self.longest_queue.max(self.waiting.len());
        }

        fn any(&self, rng: &mut Rng) -> Option<(Ticket, ReservationId)> {
            let at = rng.below(self.running.len().max(1) as u64) as usize;
            self.running.iter().nth(at).map(|(ticket, sent)| (*ticket, sent.0))
        }
    }

    fn keys(session: u64, blocks: u64) -> Vec<BlockKey> {
        (0..blocks).map(|at| BlockKey(Rng::new(session << 20 | at).next_u64())).collect()
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_name() {
        let refusal = |set: fn(&mut crate::flow::SessionConfig)| {
            let mut config = BrainConfig::default();
            set(&mut config.flow.sessions);
            Brain::new(config).err().expect("refused").to_string()
        };
        let message = refusal(|it| it.quantum_s = 0.0);
        assert!(message.contains("flow.sessions.quantum_s = 0"), "{message}");
        let message = refusal(|it| it.patience_s = 1.0);
        assert!(message.contains("patience_s = 1") && message.contains("300"), "{message}");
        assert!(refusal(|it| it.tight_share = f64::NAN).contains("tight_share"));
    }

    /// Sessions that are too many for the KV, clients that go away, endpoints that come and go:
    /// every request ends once, in one way, and nothing stays booked.
    #[test]
    fn nothing_is_lost_or_booked_twice_while_sessions_wait() {
        for seed in 0..4 {
            let mut rng = Rng::new(seed);
            let mut config = BrainConfig::default();
            config.flow.sessions.age_s = 20.0;
            config.flow.sessions.patience_s = 40.0;
            let brain = Brain::new(config).unwrap();
            let mut caller = Caller::default();
            let mut now = Time::ZERO;
            let mut joined = 0;
            let mut endpoints: Vec<EndpointId> = Vec::new();
            let mut turns = vec![0_u64; SESSIONS as usize];
            let mut arrived = 0;
            for step in 0..12_000 {
                now = now + Duration::from_millis(rng.below(60));
                if endpoints.len() < 3 || rng.below(3_000) == 0 {
                    joined += 1;
                    let mut spec = EndpointSpec::new(format!("http://{joined}"), "");
                    spec.capacity =
                        Capacity { kv_blocks: 600, block_size: 16, ..Capacity::default() };
                    let actions = brain.step(now, Input::Join(spec)).unwrap();
                    endpoints.extend(actions.iter().filter_map(|action| match action {
                        Action::Joined(id) => Some(*id),
                        _ => None,
                    }));
                    caller.hear(None, actions);
                }
                match rng.below(1_000) {
                    0..450 if caller.running.len() + caller.waiting.len() < SESSIONS as usize => {
                        let session = rng.below(SESSIONS);
                        let busy = caller.waiting.values().any(|other| *other == session)
                            || caller.running.values().any(|it| it.2 == session);
                        if busy {
                            continue;
                        }
                        turns[session as usize] += 1;
                        let keys = keys(session, 30 + 2 * turns[session as usize].min(60));
                        let request = Request {
                            prompt_tokens: keys.len() as u32 * 16,
                            block_tokens: 16,
                            session_id: Some(session.to_string()),
                            hold_ms: 60_000 + rng.below(60_000),
                            ..Request::default()
                        };
                        let mut matches = Matches::new();
                        brain.matches(now, &keys, &mut matches);
                        arrived += 1;
                        let action = brain.decide(now, &request, &keys, &matches, &[]);
                        caller.hear(Some(session), vec![action]);
                    }
                    0..800 => {
                        if let Some((ticket, reservation)) = caller.any(&mut rng) {
                            caller.hear(None, brain.first_token(now, reservation));
                            caller.hear(None, brain.finished(now, reservation, 20));
                            caller.running.remove(&ticket);
                            caller.answered += 1;
                        }
                    }
                    800..830 => {
                        let held = caller.waiting.keys().next().copied();
                        if let Some(ticket) = held.or_else(|| caller.any(&mut rng).map(|it| it.0)) {
                            caller.cancelled += u64::from(caller.waiting.remove(&ticket).is_some());
                            caller.hear(None, brain.cancelled(now, ticket));
                        }
                    }
                    830 if endpoints.len() > 2 => {
                        let gone = endpoints.remove(rng.below(3) as usize % endpoints.len());
                        let change = if step % 2 == 0 {
                            Input::Leave(gone)
                        } else {
                            Input::Change(gone, EndpointChange::Drain)
                        };
                        caller.hear(None, brain.step(now, change).unwrap());
                    }
                    _ => caller.hear(None, brain.tick(now)),
                }
                let stats = brain.stats();
                assert_eq!(stats.holding_now, caller.waiting.len() as u64);
            }
            assert!(caller.longest_queue > 5, "they wait: {}", caller.longest_queue);
            while let Some((ticket, reservation)) = caller.any(&mut rng) {
                caller.hear(None, brain.finished(now, reservation, 5));
                caller.running.remove(&ticket);
                caller.answered += 1;
            }
            now = now + Duration::from_secs(200);
            caller.hear(None, brain.tick(now));
            while let Some((ticket, reservation)) = caller.any(&mut rng) {
                caller.hear(None, brain.finished(now, reservation, 5));
                caller.running.remove(&ticket);
                caller.answered += 1;
            }
            assert!(caller.waiting.is_empty());
            assert_eq!(arrived, caller.answered + caller.turned_away + caller.cancelled);
            assert!(brain.own_totals().is_empty(), "nothing stays booked");
        }
    }
}

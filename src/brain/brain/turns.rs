//! Turns of requests that wait while every engine that could take them has enough to do.

use super::Action;
use super::RejectReason;
use super::answers::IndexAnswers;
use super::state::State;
use super::waiting::{Waiting, WaitsFor, among, session_of};
use crate::flow::{PoolId, Room, room};
use crate::schedule::{Ask, Decision, ForeignScore, Request};
use crate::{BlockKey, EndpointId, Ticket, Time};
use std::cmp::Reverse;
use std::time::Duration;

/// Between two looks whether an engine has room, where nothing else happens, at least and at most.
const LEAST_PAUSE_MS: f64 = 5.0;
const MOST_PAUSE_MS: f64 = 250.0;
/// Most queues of requests that are looked at in one turn of the brain; the others come next.
const MOST_POOLS: usize = 32;

/// Whom requests that wait for their turn may go to now.
struct Open {
    ids: Vec<EndpointId>,
    /// Whether that is everybody who takes requests.
    is_all: bool,
    /// Until another may have room, milliseconds.
    pause_ms: f64,
}

/// What became of the request whose turn it was.
enum Tried {
    Placed(Box<Decision>),
    /// No engine that could take it has room: nor for those behind it.
    Blocked,
    /// It waits for something else than its turn.
    Parked(WaitsFor),
}

impl State {
    /// A place for a request that has just come, if it is its turn at once.
    pub(super) fn place_in_turn(
        &mut self,
        now: Time,
        ticket: Ticket,
        request: &Request,
        keys: &[BlockKey],
        foreign: &[ForeignScore],
        answers: &mut IndexAnswers<'_>,
    ) -> Result<Decision, RejectReason> {
        if self.turns.waits(PoolId::of(request)) {
            return Err(RejectReason::Saturated);
        }
        let open = self.open(now);
        self.place_where_open(now, ticket, request, keys, foreign, answers, &open)
    }

    /// A request of the queue waits for its turn from now on.
    pub(super) fn takes_its_turn(
        &mut self,
        now: Time,
        ticket: Ticket,
        answers: &mut IndexAnswers<'_>,
    ) {
        let Some(held) = self.holding.get(ticket) else { return };
        let Waiting { request, keys, .. } = &held.payload;
        let matches = answers.matches(now, keys);
        let held_blocks = matches.depth_blocks.iter().copied().max().unwrap_or_default();
        let matched = held_blocks.saturating_mul(request.block_tokens);
        let uncached = request.prompt_tokens.saturating_sub(matched).max(1);
        let mean_output = self.predictor.mean_output_tokens();
        self.turns.push(ticket, held.since, request, uncached, mean_output);
        if self.opens_at.is_none() {
            self.opens_at = Some(after(now, self.open(now).pause_ms));
        }
    }

    /// Lets those go whose turn it is, while engines have room. What happened may have made some.
    pub(super) fn let_go(
        &mut self,
        now: Time,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) {
        self.opens_at = None;
        if self.turns.is_empty() {
            return;
        }
        let mut open = self.open(now);
        for pool in self.turns.look(MOST_POOLS) {
            while !open.ids.is_empty()
                && let Some(ticket) = self.turns.next(now, pool)
            {
                match self.try_turn(now, ticket, answers, &open) {
                    Tried::Placed(decision) => {
                        self.holding.take(ticket);
                        self.turns.served(ticket);
                        actions.push(Action::Release(decision));
                        open = self.open(now);
                    }
                    Tried::Blocked => break,
                    Tried::Parked(waits_for) => self.park(now, ticket, waits_for),
                }
            }
        }
        if !self.turns.is_empty() {
            self.opens_at = Some(after(now, open.pause_ms));
        }
    }

    fn try_turn(
        &mut self,
        now: Time,
        ticket: Ticket,
        answers: &mut IndexAnswers<'_>,
        open: &Open,
    ) -> Tried {
        // Taken out while it is placed, which needs the rest of the state.
        let holding = std::mem::take(&mut self.holding);
        let tried = match holding.get(ticket) {
            // The next tick gives it up, or sends it whoever has room.
            Some(held) if held.deadline <= now => Tried::Parked(WaitsFor::Turn),
            None => Tried::Parked(WaitsFor::Turn),
            Some(held) => {
                let Waiting { request, keys, .. } = &held.payload;
                if session_of(request).is_some() && self.sessions.is_tight() {
                    Tried::Parked(WaitsFor::Room)
                } else {
                    match self.place_where_open(now, ticket, request, keys, &[], answers, open) {
                        Ok(decision) => Tried::Placed(Box::new(decision)),
                        Err(RejectReason::Saturated | RejectReason::NotBooked(_)) => Tried::Blocked,
                        Err(_) => Tried::Parked(WaitsFor::Endpoint),
                    }
                }
            }
        };
        self.holding = holding;
        tried
    }

    /// A request waits for something else than its turn.
    fn park(&mut self, now: Time, ticket: Ticket, waits_for: WaitsFor) {
        self.turns.remove(ticket);
        if let Some(waiting) = self.holding.payload_mut(ticket) {
            waiting.waits_for = waits_for;
            let priority = waiting.request.priority;
            self.parked.insert((Reverse(priority), ticket));
            if waits_for == WaitsFor::Room {
                self.asks_at = Some(now);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "those of `place`, and where")]
    fn place_where_open(
        &mut self,
        now: Time,
        ticket: Ticket,
        request: &Request,
        keys: &[BlockKey],
        foreign: &[ForeignScore],
        answers: &mut IndexAnswers<'_>,
        open: &Open,
    ) -> Result<Decision, RejectReason> {
        if open.is_all {
            return self.place(now, ticket, request, keys, foreign, answers);
        }
        if open.ids.is_empty() {
            let nobody = self.scheduler.candidates(request, &self.fleet).err();
            return Err(nobody.map_or(RejectReason::Saturated, RejectReason::from));
        }
        let narrowed = among(request, open.ids.clone());
        let placed = self.place(now, ticket, &narrowed, keys, foreign, answers);
        if !matches!(placed, Err(RejectReason::NoCandidate(_))) {
            return placed;
        }
        // Could it go to anybody if all had room?
        let (ask, matches) = (Ask { request, keys }, answers.matches(now, keys));
        let chosen =
            self.scheduler.explain(now, ask, &self.fleet, &self.predictor, matches, foreign);
        Err(chosen.err().map_or(RejectReason::Saturated, RejectReason::from))
    }

    /// Who takes requests and has room.
    fn open(&self, now: Time) -> Open {
        let mut open = Open { ids: Vec::new(), is_all: true, pause_ms: MOST_PAUSE_MS };
        let columns = self.fleet.columns();
        for id in self.fleet.ids() {
            if !columns.health[id.slot.index()].is_schedulable() {
                continue;
            }
            match room(self.turns.config(), now, &self.fleet, &self.predictor, id.slot) {
                Room::Open => open.ids.push(id),
                Room::QueueOver(ms) => {
                    open.is_all = false;
                    open.pause_ms = open.pause_ms.min(ms);
                }
                Room::Full => open.is_all = false,
            }
        }
        open
    }
}

fn after(now: Time, pause_ms: f64) -> Time {
    now + Duration::from_secs_f64(pause_ms.clamp(LEAST_PAUSE_MS, MOST_PAUSE_MS) / 1e3)
}

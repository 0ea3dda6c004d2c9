//! What the brain's mutex guards, and the turns that change it.

use super::answers::IndexAnswers;
use super::ends::Ends;
use super::guesses::{Guesses, is_begun_untold};
use super::pace::Pace;
use super::waiting::{Routed, Waiting, session_of};
use super::{Action, BrainConfig, BrainError, BrainStats, Input, LogEntry, LogSink, RejectReason};
use crate::fleet::{
    Booking, EndpointChange, EndpointSpec, Fleet, FleetError, KvSource, MetricsSample,
};
use crate::flow::{FlowConfig, HeldBands, Holding, Sessions, Turns};
use crate::index::{Matches, Source};
use crate::predict::{EngineProfile, Predictor, SavedModels};
use crate::scale::Demand;
use crate::schedule::{
    Ask, Choice, Decision, Features, ForeignScore, Leg, Phase, Request, Scheduler,
};
use crate::{BlockKey, EndpointId, ReservationId, Ticket, Time};
use smallvec::smallvec;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

/// Label by which an endpoint's owner names the engine profile that its latency models start from.
const ENGINE_PROFILE_LABEL: &str = "engine-profile";

/// How far behind the latest a turn's time may be before the clock is said to have gone back: a
/// body reads its clock before it has the brain's lock, and may lose the processor in between.
const RACE: Duration = Duration::from_secs(1);

pub(super) struct State {
    latest: Time,
    next_ticket: u64,
    pub(super) fleet: Fleet,
    pub(super) predictor: Predictor,
    pub(super) scheduler: Scheduler,
    pub(super) flow: FlowConfig,
    pub(super) holding: Holding<Waiting>,
    pub(super) sessions: Sessions,
    /// Those who wait for their turn; all others who wait are `parked`, in the order of `holding`.
    pub(super) turns: Turns,
    pub(super) parked: BTreeSet<(Reverse<i32>, Ticket)>,
    /// When those who wait for room are asked again.
    pub(super) asks_at: Option<Time>,
    /// When an engine may have room for those who wait for their turn.
    pub(super) opens_at: Option<Time>,
    pub(super) pace: Pace,
    pub(super) guesses: Guesses,
    pub(super) ends: Ends,
    /// What is to be said of others than the one whose turn it was: with the next turn.
    pub(super) unsaid: Vec<Action>,
    /// Which reservation a routed request has; bounded as the ledger is. Never iterated.
    pub(super) routed: HashMap<Ticket, Routed>,
    pub(super) stats: BrainStats,
    pub(super) demand: Demand,
    log: Option<LogSink>,
}

impl State {
    pub(super) fn new(config: &BrainConfig) -> Result<Self, BrainError> {
        Ok(Self {
            latest: Time::ZERO,
            next_ticket: 0,
            fleet: Fleet::new(config.fleet.clone()),
            predictor: Predictor::new(config.predict.clone())?,
            scheduler: Scheduler::new(&config.schedule, config.seed)?,
            flow: config.flow.clone(),
            holding: Holding::new(&config.flow),
            sessions: Sessions::new(config.flow.sessions, config.block_size),
            turns: Turns::new(&config.flow.turns),
            parked: BTreeSet::new(),
            asks_at: None,
            opens_at: None,
            pace: Pace::default(),
            guesses: Guesses::default(),
            ends: Ends::default(),
            unsaid: Vec::new(),
            routed: HashMap::new(),
            stats: BrainStats::default(),
            demand: Demand::default(),
            log: None,
        })
    }

    /// Changes whenever who may be a candidate does: scores made for another version are stale.
    pub(super) fn version(&self) -> u64 {
        self.fleet.roster()
    }

    pub(super) fn holding_now(&self) -> u64 {
        self.holding.len() as u64
    }

    pub(super) fn held_by_band(&self) -> HeldBands {
        self.holding.bands()
    }

    pub(super) fn record(&mut self, sink: Option<LogSink>) {
        self.log = sink;
    }

    pub(super) fn next_wakeup(&self) -> Option<Time> {
        let at_once = (!self.unsaid.is_empty()).then_some(self.latest);
        let waits =
            [self.holding.next_deadline(), self.asks_at, self.opens_at, self.ends.next_due()];
        let times = waits.into_iter().chain([self.fleet.next_expiry(), at_once]);
        times.flatten().min()
    }

    /// Any turn, logged.
    pub(super) fn turn(
        &mut self,
        now: Time,
        input: Input,
        answers: &mut IndexAnswers<'_>,
    ) -> Result<Vec<Action>, BrainError> {
        if let Input::Arrive { request, keys, foreign } = &input {
            return Ok(vec![self.arrive(now, request, keys, foreign, answers)]);
        }
        let now = self.clamp(now);
        let actions = self.carry_out(now, &input, answers)?;
        if let Some(log) = &mut self.log {
            let matches = answers.take_asked();
            log(LogEntry { now, input, matches, actions: actions.clone() });
        }
        Ok(actions)
    }

    /// A request arrives: the hot turn, logged.
    pub(super) fn arrive(
        &mut self,
        now: Time,
        request: &Request,
        keys: &[BlockKey],
        foreign: &[ForeignScore],
        answers: &mut IndexAnswers<'_>,
    ) -> Action {
        let now = self.clamp(now);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        answers.remember(self.log.is_some());
        let action = self.route_or_hold(now, ticket, request, keys, foreign, answers);
        if let Some(log) = &mut self.log {
            let input = Input::Arrive {
                request: request.clone(),
                keys: keys.to_vec(),
                foreign: foreign.to_vec(),
            };
            log(LogEntry {
                now,
                input,
                matches: answers.take_asked(),
                actions: vec![action.clone()],
            });
        }
        action
    }

    pub(super) fn features(
        &mut self,
        now: Time,
        request: &Request,
        keys: &[BlockKey],
        matches: &Matches,
    ) -> Result<(u64, Features), RejectReason> {
        let now = now.max(self.latest);
        self.scheduler
            .features(now, Ask { request, keys }, &self.fleet, &self.predictor, matches)
            .map(|features| (self.version(), features))
            .map_err(RejectReason::from)
    }

    pub(super) fn explain(
        &mut self,
        now: Time,
        request: &Request,
        keys: &[BlockKey],
        matches: &Matches,
        foreign: &[ForeignScore],
    ) -> Result<Choice, RejectReason> {
        let now = now.max(self.latest);
        self.scheduler
            .explain(now, Ask { request, keys }, &self.fleet, &self.predictor, matches, foreign)
            .map_err(RejectReason::from)
    }

    /// Time never goes back: an earlier `now` is taken as the latest.
    fn clamp(&mut self, now: Time) -> Time {
        if self.latest.since(now) > RACE {
            self.stats.clock_went_back += 1;
        }
        self.latest = self.latest.max(now);
        self.latest
    }

    fn carry_out(
        &mut self,
        now: Time,
        input: &Input,
        answers: &mut IndexAnswers<'_>,
    ) -> Result<Vec<Action>, BrainError> {
        answers.remember(self.log.is_some());
        let mut actions = std::mem::take(&mut self.unsaid);
        match input {
            Input::Arrive { .. } | Input::KvEvents(..) | Input::KvLost(_) => {}
            Input::FirstToken(reservation) => {
                if self.progress(now, *reservation, 1) {
                    self.let_go(now, answers, &mut actions);
                }
            }
            Input::Progress(reservation, output_tokens) => {
                if self.progress(now, *reservation, *output_tokens) {
                    self.let_go(now, answers, &mut actions);
                }
            }
            Input::Finished(reservation, output_tokens) => {
                self.finish(now, *reservation, *output_tokens, answers, &mut actions)?;
            }
            Input::Cancelled(ticket) => self.cancel(now, *ticket, answers, &mut actions)?,
            Input::Metrics(endpoint, sample) => {
                self.metrics(now, *endpoint, sample, answers, &mut actions)?;
            }
            Input::Join(spec) => self.join(now, spec, answers, &mut actions)?,
            Input::Change(endpoint, change) => {
                self.change(now, *endpoint, *change, answers, &mut actions)?;
            }
            Input::Leave(endpoint) => self.leave(now, *endpoint, answers, &mut actions)?,
            Input::PeerTotals(totals) => self.peer_totals(now, totals)?,
            Input::LearnedModels(saved) => {
                self.predictor.restore(SavedModels::clone(saved), &self.fleet);
            }
            Input::Tick => self.tick(now, answers, &mut actions)?,
            Input::Schedule(config) => self.scheduler.switch(config)?,
        }
        Ok(actions)
    }

    /// Chooses an endpoint and books its load, in one step.
    pub(super) fn place(
        &mut self,
        now: Time,
        ticket: Ticket,
        request: &Request,
        keys: &[BlockKey],
        foreign: &[ForeignScore],
        answers: &mut IndexAnswers<'_>,
    ) -> Result<Decision, RejectReason> {
        self.fleet.settle_others(now);
        self.take_guesses(now);
        self.take_ends(now);
        let matches = answers.matches(now, keys);
        let choice = self
            .scheduler
            .choose(now, Ask { request, keys }, &self.fleet, &self.predictor, matches, foreign)
            .map_err(RejectReason::from)?;
        let booking = Booking {
            ticket,
            prompt_tokens: request.prompt_tokens,
            uncached_tokens: request.prompt_tokens.saturating_sub(choice.matched_tokens),
            predicted: choice.predicted,
            objective_tpot_ms: request.slo.tpot_ms,
            expected_output_tokens: request.expected_output_tokens,
            first_token_is_untold: is_begun_untold(request),
        };
        let reservation = self
            .fleet
            .book(now, choice.endpoint, &booking)
            .map_err(|why| RejectReason::NotBooked(why.to_string()))?;
        self.guess_first_token(now, reservation);
        self.guess_end(now, reservation, request);
        self.count_demand(request, &choice);
        self.scheduler.committed(now, request, &choice);
        let session = self.tracked_session(request);
        self.routed.insert(ticket, Routed { reservation, session });
        if let Some(session) = session {
            self.sessions.placed(now, session, choice.endpoint, keys);
        }
        answers.book(now, choice.endpoint, request, keys);
        self.pace.let_go(now);
        self.stats.decisions += 1;
        self.stats.fallbacks += u64::from(choice.reasons.fallback().is_some());
        self.stats.matched_tokens += u64::from(choice.matched_tokens);
        self.stats.prompt_tokens += u64::from(request.prompt_tokens);
        Ok(Decision {
            ticket,
            endpoint: choice.endpoint,
            legs: smallvec![Leg {
                phase: Phase::Aggregated,
                endpoints: smallvec![choice.endpoint],
            }],
            matched_tokens: choice.matched_tokens,
            match_source: choice.match_source,
            predicted: choice.predicted,
            reservation,
            reasons: choice.reasons,
        })
    }

    /// News of a request; whether it was of its first token. What is no longer in the ledger is late,
    /// and ignored.
    fn progress(&mut self, now: Time, reservation: ReservationId, output_tokens: u32) -> bool {
        match self.fleet.progress(now, reservation, output_tokens) {
            Ok(true) => {
                if let Some(booked) = self.fleet.reservation(reservation) {
                    self.predictor.first_token(self.fleet.columns(), booked);
                }
                true
            }
            Ok(false) => false,
            Err(_) => {
                self.stats.late_news += 1;
                false
            }
        }
    }

    pub(super) fn generated_by(&self, now: Time, id: ReservationId) -> u32 {
        let tokens = || {
            let slot = self.fleet.reservation(id)?.endpoint.slot;
            let (rates, it) = (self.predictor.rates(slot)?, self.fleet.in_flight_one(id)?);
            let step_ms = rates.step_ms(self.fleet.columns(), slot);
            Some(rates.generated_tokens(now, &it, step_ms))
        };
        tokens().map_or(1, |tokens| tokens.max(1.0) as u32)
    }

    fn finish(
        &mut self,
        now: Time,
        reservation: ReservationId,
        output_tokens: u32,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), BrainError> {
        let Some(booked) = self.fleet.reservation(reservation) else {
            self.stats.late_news += 1;
            return Ok(());
        };
        let (ticket, endpoint, predicted) = (booked.ticket, booked.endpoint, booked.predicted);
        // Of an answer that came all at once, the end is not when it began.
        let is_begun = booked.first_token_at.is_some();
        // An answer without tokens (a failure, a prefill-only request) teaches nothing.
        if output_tokens > 0 {
            self.predictor.answered(output_tokens);
        }
        // Nor does one of which nobody knows when it began.
        if self.is_told_of_first_token(booked) {
            if output_tokens == 1 || (is_begun && output_tokens > 0) {
                self.progress(now, reservation, output_tokens);
            }
            if let Some(decode) = self.fleet.decode_window(now, reservation) {
                self.predictor.output(endpoint.slot, &decode, &predicted);
            }
        }
        self.fleet.release(now, reservation);
        self.forget_routed(now, ticket);
        self.stats.finished += 1;
        self.leave_where_drained(now, answers, actions)?;
        if self.asks_at.is_some() {
            self.ask_again(now, answers, actions);
        }
        self.let_go(now, answers, actions);
        Ok(())
    }

    fn cancel(
        &mut self,
        now: Time,
        ticket: Ticket,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), BrainError> {
        if let Some(held) = self.holding.take(ticket) {
            self.waits_no_more(&held);
            if let Some(session) = session_of(&held.payload.request) {
                self.sessions.given_up(now, session);
            }
            self.stats.cancelled += 1;
            return Ok(());
        }
        let reservation = self.forget_routed(now, ticket);
        let Some(booked) = reservation.and_then(|id| self.fleet.reservation(id)) else {
            self.stats.late_news += 1;
            return Ok(());
        };
        let (id, endpoint) = (booked.id, booked.endpoint);
        self.fleet.release(now, id);
        self.stats.cancelled += 1;
        actions.push(Action::Cancel { ticket, endpoint });
        self.leave_where_drained(now, answers, actions)?;
        self.let_go(now, answers, actions);
        Ok(())
    }

    fn metrics(
        &mut self,
        now: Time,
        endpoint: EndpointId,
        sample: &MetricsSample,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), BrainError> {
        let observed = self.fleet.observe(now, endpoint, sample)?;
        let rates = self.predictor.rates(endpoint.slot);
        self.fleet.estimate_others(now, endpoint, |tokens, pairs| {
            Some(rates?.prefills_ms(1.0, tokens, pairs))
        })?;
        self.take_page(now, endpoint);
        if let (Some(capacity), Some(index)) = (observed.capacity_learned, answers.index()) {
            index.set_capacity(endpoint, capacity.kv_blocks);
        }
        if observed.restarted {
            self.stats.restarts += 1;
            self.admit_to_predictor(endpoint);
            actions.push(Action::Resync(endpoint));
        }
        Ok(())
    }

    fn join(
        &mut self,
        now: Time,
        spec: &EndpointSpec,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), BrainError> {
        profile_of(spec)?;
        let endpoint = self.fleet.join(now, spec.clone())?;
        self.admit_to_predictor(endpoint);
        if let Some(index) = answers.index() {
            let source = match spec.kv_source {
                KvSource::Events => Source::Events,
                KvSource::Approximate => {
                    Source::Approximate { capacity_blocks: spec.capacity.kv_blocks }
                }
            };
            index.join(endpoint, &spec.model, source);
        }
        actions.push(Action::Joined(endpoint));
        self.ask_again(now, answers, actions);
        Ok(())
    }

    /// Starts the latency models of an endpoint afresh.
    fn admit_to_predictor(&mut self, endpoint: EndpointId) {
        let Some(spec) = self.fleet.spec(endpoint) else { return };
        let profile = profile_of(spec).unwrap_or_default();
        let model = self.fleet.columns().model[endpoint.slot.index()];
        self.predictor.admit(endpoint.slot, model, profile.as_ref());
        self.predictor.recall(endpoint, &self.fleet);
    }

    fn change(
        &mut self,
        now: Time,
        endpoint: EndpointId,
        change: EndpointChange,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), BrainError> {
        self.fleet.change(now, endpoint, change)?;
        match change {
            EndpointChange::Uncordon | EndpointChange::Reachable => {
                self.ask_again(now, answers, actions);
            }
            EndpointChange::Drain => self.leave_where_drained(now, answers, actions)?,
            EndpointChange::Cordon | EndpointChange::Unreachable => {}
        }
        Ok(())
    }

    fn leave(
        &mut self,
        now: Time,
        endpoint: EndpointId,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), BrainError> {
        for lost in self.fleet.leave(now, endpoint)? {
            self.forget_routed(now, lost.ticket);
            self.stats.lost_with_endpoint += 1;
            actions.push(Action::Cancel { ticket: lost.ticket, endpoint });
        }
        self.sessions.left(endpoint);
        self.scheduler.left(endpoint.slot);
        self.predictor.reset(endpoint.slot);
        if let Some(index) = answers.index() {
            index.leave(endpoint);
        }
        actions.push(Action::Left(endpoint));
        Ok(())
    }

    /// Endpoints that were drained and are idle now leave.
    fn leave_where_drained(
        &mut self,
        now: Time,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), BrainError> {
        loop {
            let Some(idle) = self.fleet.drained().next() else { return Ok(()) };
            self.leave(now, idle, answers, actions)?;
        }
    }

    fn tick(
        &mut self,
        now: Time,
        answers: &mut IndexAnswers<'_>,
        actions: &mut Vec<Action>,
    ) -> Result<(), BrainError> {
        for lost in self.fleet.expire(now) {
            self.forget_routed(now, lost.ticket);
            self.stats.expired_leases += 1;
        }
        self.take_guesses(now);
        self.take_ends(now);
        for late in self.holding.expire(now) {
            self.waits_no_more(&late);
            actions.push(self.held_too_long(now, late.ticket, &late.payload, answers));
        }
        self.leave_where_drained(now, answers, actions)?;
        self.let_go(now, answers, actions);
        if self.asks_at.is_some_and(|at| at <= now) {
            self.ask_again(now, answers, actions);
        }
        Ok(())
    }
}

/// The engine profile that an endpoint's owner names by a label.
fn profile_of(spec: &EndpointSpec) -> Result<Option<EngineProfile>, FleetError> {
    let Some(name) = spec.labels.get(ENGINE_PROFILE_LABEL) else { return Ok(None) };
    EngineProfile::of_label(name).map(Some).ok_or_else(|| FleetError::Invalid {
        address: spec.address.clone(),
        field: "labels.engine-profile",
        value: name.clone(),
        remedy: "leave it out, name a profile of the predict room (EngineProfile::names), or say custom:a,b,c,d,e,f",
    })
}

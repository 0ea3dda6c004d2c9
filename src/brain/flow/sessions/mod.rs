//! Sessions that come back, and who of them may have KV where it is short.
//!
//! An agent's turn repeats all that came before it. While the KV of all live sessions fits the fleet,
//! nothing has to be done. When it does not, every policy that places at once thrashes: each turn
//! evicts another session's cache, which then has to be computed again. So sessions are admitted as
//! working sets (Denning, "The working set model for program behavior", 1968): a *resident* has a home
//! whose KV its blocks are counted in, and goes there; others wait until a home has room.
//!
//! - *Whether traffic is of sessions* is learned: of the answers that were given more than 90 s ago, at
//!   least half were followed within 90 s by a prompt that repeats at least half of the previous one.
//! - *Tight* is a fleet whose residents and waiting sessions have asked for more than `tight_share` of
//!   its KV over the last `demand_window_s`, until they ask for less than `loose_share`. Below that,
//!   and for as long as a peak lasts, evictions cost less than waits do.
//! - *A home's footprint* is the distinct blocks of its residents, each once, and some room for each
//!   to grow.
//! - *Room* is taken up to `fill_share` of the KV. A home that has grown beyond `overflow_share` lets
//!   its longest-served resident wait again at its next turn.
//! - *Order of those who wait*: `(wait + 1 s) * (100k / tokens)^short_first`, the highest first: a
//!   short session costs little room.
//! - *Nobody starves*: who has waited for `age_s` gets a home kept, each their own, the one that can
//!   make room the soonest. There residents that have been served for `quantum_s` give way, the
//!   longest-served first and those between two turns at once; the longer the wait, the less they need
//!   to have been served, and after `patience_s` it is any. Where less room is lacking both waits are
//!   shorter: somebody gives way sooner anyhow.
//! - *A session is over* when it has been silent for longer than nearly all pauses (the 99.5th
//!   percentile of recent ones, and 2 s).
//!
//! NOTE(perf): tried on agent sessions that are too many for 8 caches. Homes kept one at a time: waits of
//! 1,100 s. Shorter quanta for longer sessions, homes filled to 1.05 of the KV, sheds only above 1.2 of
//! it: more is computed again, 2 to 10 % fewer turns in time. Larger quanta: more turns, longer waits.
//! Waiting from a demand of 1.05 on, at once: 1 % more turns where demand stays above 1.3, up to 6 % fewer
//! where it peaks there. Sessions that only stay at home between 1.0 and 1.25, without waiting: 1 to 7 %
//! fewer. Quanta of a wait over the lack, `250 s / (demand - 1)`: 10 % fewer where demand is 1.6. Homes
//! filled to 1.2 for who has waited long: 4 % fewer there.
//!
//! Limits: the fleet is taken as one, whatever models it serves.
//!
//! Not here: which of several homes with room is best; the scheduler chooses among them.

mod detect;
mod footprint;

use self::detect::Detector;
use self::footprint::Footprint;
use crate::{BlockKey, EndpointId, Ticket, Time};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// When sessions wait for room. Shares are of the endpoints' KV capacity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Whether any may; only requests that may be held do.
    pub admission: bool,
    /// Demand above which the fleet is tight.
    pub tight_share: f64,
    /// Time over which demand is averaged, seconds.
    pub demand_window_s: f64,
    /// Demand below which it no longer is.
    pub loose_share: f64,
    /// Up to here a home is filled.
    pub fill_share: f64,
    /// Above this a home sheds residents.
    pub overflow_share: f64,
    /// Tokens by which a resident is taken to grow.
    pub growth_tokens: u32,
    /// How much shorter sessions come first.
    pub short_first: f64,
    /// Who has waited so long may take the place of any resident, seconds.
    pub patience_s: f64,
    /// Who has waited so long gets a home reserved, seconds.
    pub age_s: f64,
    /// Who has been served so long gives way there, seconds.
    pub quantum_s: f64,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            admission: true,
            tight_share: 1.25,
            demand_window_s: 240.0,
            loose_share: 1.1,
            fill_share: 1.0,
            overflow_share: 1.1,
            growth_tokens: 2_048,
            short_first: 1.0,
            patience_s: 450.0,
            age_s: 300.0,
            quantum_s: 1_200.0,
        }
    }
}

/// Demand at which waits are as long as they may be, the width below it in which they become so, and
/// the least share of them.
const FULL_PATIENCE_DEMAND: f64 = 1.4;
const PATIENCE_WIDTH: f64 = 0.15;
const LEAST_PATIENCE: f64 = 0.4;
/// What a token that has to be computed again counts, seconds.
const LOSS_S_PER_TOKEN: f64 = 1.2e-4;
/// Tokens of the session against which others are long or short.
const REFERENCE_TOKENS: f64 = 100_000.0;

/// What is known of a session.
#[derive(Debug, Clone, Default)]
struct Session {
    home: Option<EndpointId>,
    /// Blocks of its latest prompt.
    keys: Vec<BlockKey>,
    in_flight: u32,
    held: u32,
    last_end: Option<Time>,
    /// When it came home.
    since: Time,
}

/// A request that waits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Waiter<'a> {
    pub(crate) ticket: Ticket,
    /// Its session; requests without one do not wait for room.
    pub(crate) session: Option<SessionId>,
    /// The keys of its full blocks.
    pub(crate) keys: &'a [BlockKey],
    pub(crate) prompt_tokens: u32,
    pub(crate) since: Time,
}

/// The home that is kept for who waited too long, and the room that it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reserved {
    ticket: Ticket,
    home: EndpointId,
    tokens: f64,
    waits_since: Time,
}

/// A session's name, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// Where a request may go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Admission {
    /// Wherever the scheduler likes.
    Anywhere,
    /// To one of these.
    Among(Vec<EndpointId>),
    /// Nowhere now.
    Wait,
}

/// An endpoint and the tokens that its KV holds.
pub(crate) type Home = (EndpointId, f64);

/// All sessions of a router.
#[derive(Debug)]
pub(crate) struct Sessions {
    config: SessionConfig,
    block_tokens: f64,
    /// Never iterated.
    known: HashMap<SessionId, Session>,
    footprints: Vec<Footprint>,
    detector: Detector,
    is_tight: bool,
    /// What live sessions ask for over the fleet's KV, averaged up to `demand_at`.
    demand: f64,
    demand_at: Time,
    /// Of the time that it is an average over; 1 for long.
    demand_weight: f64,
    /// Share of the waits in `config` that demand justifies.
    patience: f64,
    /// When it was last seen who is silent.
    looked_at: Time,
    /// The homes that are kept for those who waited too long.
    reserved: Vec<Reserved>,
    /// Since when a session that lost its home waits.
    requeued: HashMap<Ticket, Time>,
}

impl Sessions {
    pub(crate) fn new(config: SessionConfig, block_size: u32) -> Self {
        Self {
            config,
            block_tokens: block_size.into(),
            known: HashMap::new(),
            footprints: Vec::new(),
            detector: Detector::default(),
            is_tight: false,
            demand: 0.0,
            demand_at: Time::ZERO,
            demand_weight: 0.0,
            patience: 1.0,
            looked_at: Time::ZERO,
            reserved: Vec::new(),
            requeued: HashMap::new(),
        }
    }

    /// Whether requests wait for room now.
    pub(crate) fn is_tight(&self) -> bool {
        self.is_tight
    }

    /// Whether traffic is of sessions, so that it matters where they are at home.
    pub(crate) fn is_of_sessions(&self) -> bool {
        self.config.admission && self.detector.is_of_sessions()
    }

    /// Forgets sessions that are over: their homes have room again.
    pub(crate) fn forget_past(&mut self, now: Time) {
        self.judge(now);
        self.drop_silent(now);
    }

    /// Judges old answers, and forgets sessions without a home that did not come back.
    fn judge(&mut self, now: Time) {
        for (ended, id) in self.detector.mature(now) {
            let is_over = |it: &Session| {
                it.home.is_none() && it.in_flight == 0 && it.held == 0 && it.last_end == Some(ended)
            };
            if self.known.get(&id).is_some_and(is_over) {
                self.known.remove(&id);
            }
        }
    }

    /// A request of a session arrives, and waits until it is placed or given up.
    pub(crate) fn arrived(&mut self, now: Time, id: SessionId, keys: &[BlockKey]) {
        let session = self.known.entry(id).or_default();
        if session.in_flight == 0
            && session.held == 0
            && let Some(ended) = session.last_end
        {
            let same =
                session.keys.iter().zip(keys).take_while(|(one, other)| one == other).count();
            let repeats = session.keys.len() >= 2 && same * 2 >= session.keys.len();
            self.detector.came_back(now, id, ended, repeats);
        }
        session.held += 1;
        if session.home.is_none() {
            session.keys.clear();
            session.keys.extend_from_slice(keys);
        }
    }

    /// A request of a session no longer waits, and was not placed.
    pub(crate) fn given_up(&mut self, now: Time, id: SessionId, ticket: Ticket) {
        self.requeued.remove(&ticket);
        let Some(session) = self.known.get_mut(&id) else { return };
        session.held = session.held.saturating_sub(1);
        // With an answer that is still to be judged, or a home, it is forgotten there.
        let is_over = session.home.is_none() && session.in_flight == 0 && session.held == 0;
        if is_over && session.last_end.is_none_or(|ended| Detector::is_mature(now, ended)) {
            self.known.remove(&id);
        }
    }

    /// A request of a session was sent to an endpoint, which is its home from now on.
    pub(crate) fn placed(
        &mut self,
        now: Time,
        id: SessionId,
        ticket: Ticket,
        endpoint: EndpointId,
        keys: &[BlockKey],
    ) {
        let session = self.known.entry(id).or_default();
        session.held = session.held.saturating_sub(1);
        session.in_flight += 1;
        self.requeued.remove(&ticket);
        if !self.detector.is_of_sessions() {
            // Where it is at home matters to nobody.
            session.keys.clear();
            session.keys.extend_from_slice(keys);
        } else if session.home != Some(endpoint) {
            self.leave_home(id);
            let footprint = self.footprint_mut(endpoint);
            footprint.enter(id, keys);
            let session = self.known.entry(id).or_default();
            session.home = Some(endpoint);
            session.since = now;
            session.keys.clear();
            session.keys.extend_from_slice(keys);
        } else {
            let old = std::mem::take(&mut session.keys);
            self.footprint_mut(endpoint).exchange(&old, keys);
            let session = self.known.entry(id).or_default();
            session.keys = old;
            session.keys.clear();
            session.keys.extend_from_slice(keys);
        }
    }

    /// A request of a session was answered, or failed.
    pub(crate) fn ended(&mut self, now: Time, id: SessionId) {
        if let Some(session) = self.known.get_mut(&id) {
            session.in_flight = session.in_flight.saturating_sub(1);
            session.last_end = Some(now);
            self.detector.answered(now, id);
        }
    }

    /// An endpoint left: its residents have no home.
    pub(crate) fn left(&mut self, endpoint: EndpointId) {
        let Some(footprint) = self.footprints.get_mut(endpoint.slot.index()) else { return };
        for id in footprint.empty() {
            if let Some(session) = self.known.get_mut(&id) {
                session.home = None;
            }
        }
        self.reserved.retain(|kept| kept.home != endpoint);
    }

    /// Brings everything up to `now`: who is over, whether the fleet is tight, and for whom a home is
    /// reserved.
    pub(crate) fn update(&mut self, now: Time, homes: &[Home], waiting: &[Waiter<'_>]) {
        self.forget_past(now);
        let capacity: f64 = homes.iter().map(|(_, capacity)| capacity).sum();
        let resident: f64 = homes.iter().map(|(home, _)| self.footprint(*home)).sum();
        let asked = waiting.iter().filter(|it| self.home_of(it).is_none());
        let asked = asked.map(|it| f64::from(it.prompt_tokens)).sum::<f64>();
        self.average_demand(now, (resident + asked) / capacity);
        let above = if self.is_tight { self.config.loose_share } else { self.config.tight_share };
        self.is_tight =
            self.config.admission && self.detector.is_of_sessions() && self.demand > above;
        let above = 1.0 + (self.demand - FULL_PATIENCE_DEMAND) / PATIENCE_WIDTH;
        self.patience = above.clamp(LEAST_PATIENCE, 1.0);
        if self.is_tight {
            self.reserve(now, homes, waiting);
            self.make_room(now, homes);
        } else {
            self.reserved.clear();
        }
    }

    /// Demand has been `share` of the KV since the last call.
    fn average_demand(&mut self, now: Time, share: f64) {
        // An unknown capacity is NaN, none at all is infinite: neither is ever tight.
        if !share.is_finite() {
            (self.demand, self.demand_weight) = (0.0, 0.0);
            return;
        }
        // Of the time before the first call nothing is known, and it counts for nothing.
        let is_first = self.demand_weight <= 0.0;
        let passed_s = if is_first { 0.0 } else { now.since(self.demand_at).as_secs_f64() };
        let fade = libm::exp(-passed_s / self.config.demand_window_s);
        let kept = self.demand_weight * fade;
        self.demand_at = now;
        self.demand_weight = (kept + 1.0 - fade).max(1e-9);
        self.demand = share + (self.demand - share) * (kept / self.demand_weight);
    }

    /// The order in which those who wait are asked: residents first, as they came, then others by
    /// what they are worth.
    pub(crate) fn order(&self, now: Time, waiting: &mut [Waiter<'_>]) {
        let worth = |it: &Waiter<'_>| {
            let wait_s = now.since(self.waits_since(it)).as_secs_f64() + 1.0;
            let size = REFERENCE_TOKENS / f64::from(it.prompt_tokens.max(1));
            wait_s * libm::pow(size, self.config.short_first)
        };
        waiting.sort_by(|one, other| {
            let (home, others) = (self.home_of(one).is_some(), self.home_of(other).is_some());
            others.cmp(&home).then_with(|| match home {
                true => one.since.cmp(&other.since),
                false => worth(other).total_cmp(&worth(one)),
            })
        });
    }

    /// Whether a request's session has a home.
    pub(crate) fn is_at_home(&self, it: &Waiter<'_>) -> bool {
        self.home_of(it).is_some()
    }

    /// Where a request that waits may go now.
    pub(crate) fn admit(&mut self, now: Time, it: &Waiter<'_>, homes: &[Home]) -> Admission {
        let Some(id) = it.session.filter(|_| self.is_tight) else { return Admission::Anywhere };
        if let Some(home) = self.home_of(it) {
            let stays = homes.iter().find(|(at, _)| *at == home);
            let gives_way = |it: &Home| self.gives_way(now, id, home, it.1);
            match stays.map(gives_way) {
                Some(false) => return Admission::Among(vec![home]),
                Some(true) => {
                    self.leave_home(id);
                    self.requeued.insert(it.ticket, now);
                    return Admission::Wait;
                }
                // It takes no requests now.
                None => self.leave_home(id),
            }
        }
        let room = |(home, capacity): &&Home| {
            let kept = self.reserved.iter().find(|kept| kept.home == *home);
            if kept.is_some_and(|kept| kept.ticket != it.ticket) {
                return false;
            }
            self.residents(*home).is_empty()
                || self.fits(*home, it.keys, self.config.fill_share * capacity)
        };
        let fitting: Vec<EndpointId> = homes.iter().filter(room).map(|(home, _)| *home).collect();
        if fitting.is_empty() { Admission::Wait } else { Admission::Among(fitting) }
    }

    /// Whether a resident's next turn waits like anybody's: its home has to make room for who waited
    /// too long, or has grown over and this one was served the longest.
    fn gives_way(&self, now: Time, id: SessionId, home: EndpointId, capacity: f64) -> bool {
        let Some(session) = self.known.get(&id).filter(|it| it.in_flight == 0) else {
            return false;
        };
        let footprint = self.footprint(home);
        let served = self.served(now, session);
        if let Some(kept) = self.reserved.iter().find(|kept| kept.home == home)
            && served > self.claim(now, kept)
            && footprint + kept.tokens > self.config.fill_share * capacity
        {
            return true;
        }
        let residents = self.residents(home);
        let is_longest = |other: &SessionId| {
            self.known.get(other).is_none_or(|other| self.served(now, other) <= served)
        };
        footprint > self.config.overflow_share * capacity
            && residents.len() > 1
            && residents.iter().all(is_longest)
    }

    /// How long a session has been served, in quanta.
    fn served(&self, now: Time, session: &Session) -> f64 {
        now.since(session.since).as_secs_f64() / self.config.quantum_s
    }

    /// Quanta after which a resident gives way to a waiter: one, and less the longer it waits.
    fn claim(&self, now: Time, kept: &Reserved) -> f64 {
        let waited_s = now.since(kept.waits_since).as_secs_f64() / self.patience;
        let late_s = waited_s - self.config.age_s;
        1.0 - late_s / (self.config.patience_s - self.config.age_s).max(1.0)
    }

    /// Keeps homes for those who have waited too long, one each, longest waiting first.
    fn reserve(&mut self, now: Time, homes: &[Home], waiting: &[Waiter<'_>]) {
        let mut kept = std::mem::take(&mut self.reserved);
        kept.retain(|kept| {
            let waits = waiting.iter().find(|it| it.ticket == kept.ticket);
            waits.is_some_and(|it| self.home_of(it).is_none())
                && homes.iter().any(|(home, _)| *home == kept.home)
        });
        let is_aged = |it: &&Waiter<'_>| {
            it.session.is_some()
                && self.home_of(it).is_none()
                && now.since(self.waits_since(it)).as_secs_f64() > self.config.age_s * self.patience
                && kept.iter().all(|kept| kept.ticket != it.ticket)
        };
        let mut aged: Vec<&Waiter<'_>> = waiting.iter().filter(is_aged).collect();
        aged.sort_by_key(|it| self.waits_since(it));
        for it in aged {
            let open = homes.iter().filter(|home| kept.iter().all(|kept| kept.home != home.0));
            let costed = open.map(|home| (self.room_in(now, home, it.keys), home.0));
            let soonest = costed.min_by(|one, other| one.0.total_cmp(&other.0));
            let Some((_, home)) = soonest else { break };
            kept.push(Reserved {
                ticket: it.ticket,
                home,
                tokens: self.marginal(home, it.keys),
                waits_since: self.waits_since(it),
            });
        }
        self.reserved = kept;
    }

    /// Residents between two turns, of whom it is known already that they would give way, do so now.
    fn make_room(&mut self, now: Time, homes: &[Home]) {
        for kept in self.reserved.clone() {
            let Some((_, capacity)) = homes.iter().find(|(home, _)| *home == kept.home) else {
                continue;
            };
            let limit = self.config.fill_share * capacity;
            while self.footprint(kept.home) + kept.tokens > limit {
                let claim = self.claim(now, &kept);
                let idle = self.residents(kept.home).iter().filter_map(|id| {
                    let it = self.known.get(id).filter(|it| it.in_flight == 0 && it.held == 0)?;
                    Some((self.served(now, it), *id))
                });
                let longest = idle.max_by(|one, other| one.0.total_cmp(&other.0));
                let Some((_, id)) = longest.filter(|(served, _)| *served > claim) else { break };
                self.leave_home(id);
            }
        }
    }

    /// Seconds until a home can have made room, and a little for what its residents lose.
    fn room_in(&self, now: Time, (home, capacity): &Home, keys: &[BlockKey]) -> f64 {
        // What it shares with residents is not looked for: this only compares homes.
        let need = self.footprint(*home) + keys.len() as f64 * self.block_tokens
            - self.config.fill_share * capacity;
        let mut going: Vec<(f64, f64)> = self
            .residents(*home)
            .iter()
            .filter_map(|id| self.known.get(id))
            .map(|it| {
                let tokens = it.keys.len() as f64 * self.block_tokens;
                ((1.0 - self.served(now, it)).max(0.0) * self.config.quantum_s, tokens)
            })
            .collect();
        going.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)));
        let (mut freed, mut cost_s) = (0.0, 0.0);
        for (left_s, tokens) in going {
            if freed >= need {
                break;
            }
            freed += tokens;
            cost_s = left_s + freed * LOSS_S_PER_TOKEN;
        }
        cost_s
    }

    fn drop_silent(&mut self, now: Time) {
        if now.since(self.looked_at).as_secs_f64() < 1.0 {
            return;
        }
        self.looked_at = now;
        let silent = self.detector.silent_after();
        for at in 0..self.footprints.len() {
            let over: Vec<SessionId> = self.footprints[at]
                .residents()
                .iter()
                .filter(|id| {
                    self.known.get(id).is_none_or(|it| {
                        let quiet = it.last_end.is_some_and(|end| now.since(end) > silent);
                        it.in_flight == 0 && it.held == 0 && quiet
                    })
                })
                .copied()
                .collect();
            for id in over {
                self.leave_home(id);
                self.known.remove(&id);
            }
        }
    }

    fn leave_home(&mut self, id: SessionId) {
        let Some(session) = self.known.get_mut(&id) else { return };
        if let Some(home) = session.home.take()
            && let Some(footprint) = self.footprints.get_mut(home.slot.index())
        {
            footprint.leave(id, &session.keys);
        }
    }

    fn home_of(&self, it: &Waiter<'_>) -> Option<EndpointId> {
        self.known.get(&it.session?)?.home
    }

    fn waits_since(&self, it: &Waiter<'_>) -> Time {
        self.requeued.get(&it.ticket).copied().unwrap_or(it.since)
    }

    fn residents(&self, home: EndpointId) -> &[SessionId] {
        self.footprints.get(home.slot.index()).map_or(&[], Footprint::residents)
    }

    /// Tokens that a home's residents take, with room to grow.
    fn footprint(&self, home: EndpointId) -> f64 {
        let Some(footprint) = self.footprints.get(home.slot.index()) else { return 0.0 };
        let growth = f64::from(self.config.growth_tokens) * footprint.residents().len() as f64;
        footprint.blocks() as f64 * self.block_tokens + growth
    }

    /// Whether one more resident stays within so many tokens.
    fn fits(&self, home: EndpointId, keys: &[BlockKey], tokens: f64) -> bool {
        let room = tokens - self.footprint(home) - f64::from(self.config.growth_tokens);
        let blocks = (room / self.block_tokens).floor();
        blocks >= 0.0
            && self
                .footprints
                .get(home.slot.index())
                .is_none_or(|it| it.marginal_is_within(keys, blocks as usize))
    }

    /// Tokens that one more resident would take.
    fn marginal(&self, home: EndpointId, keys: &[BlockKey]) -> f64 {
        let footprint = self.footprints.get(home.slot.index());
        let blocks = footprint.map_or(keys.len(), |it| it.marginal(keys));
        blocks as f64 * self.block_tokens + f64::from(self.config.growth_tokens)
    }

    fn footprint_mut(&mut self, home: EndpointId) -> &mut Footprint {
        let at = home.slot.index();
        if self.footprints.len() <= at {
            self.footprints.resize_with(at + 1, Footprint::default);
        }
        &mut self.footprints[at]
    }
}

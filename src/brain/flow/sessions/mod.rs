//! Sessions that come back, and who of them may have KV where it is short.
//!
//! An agent's turn repeats all that came before it. While the KV of all live sessions fits the fleet,
//! nothing has to be done. When it does not, every policy that places at once thrashes: each turn
//! evicts another session's cache, which then has to be computed again. So sessions are admitted as
//! working sets (Denning, "The working set model for program behavior", 1968): a *resident* has a home
//! whose KV its blocks are counted in, and goes there; others wait until a home has room (`admission`),
//! and who may not wait is a *guest* of endpoints that are nobody's home (`guests`). Who has been
//! without a home for too long takes the place of a resident (`claims`).
//!
//! - *Whether traffic is of sessions* is learned: of the answers that were given more than 90 s ago, at
//!   least half were followed within 90 s by a prompt that repeats at least half of the previous one.
//! - *Tight* is a fleet whose residents, guests and waiting sessions have asked for more than
//!   `tight_share` of its KV over the last `demand_window_s`, until they ask for less than
//!   `loose_share`. Below that, and for as long as a peak lasts, evictions cost less than waits do.
//! - *A home's footprint* is the distinct blocks of its residents, each once, and some room for each
//!   to grow.
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

mod admission;
mod claims;
mod config;
mod demand;
mod detect;
mod footprint;
mod guests;
#[cfg(test)]
mod tests;

pub use self::config::SessionConfig;

use self::claims::Reserved;
use self::demand::Demand;
use self::detect::Detector;
use self::footprint::Footprint;
use self::guests::Guests;
use crate::{BlockKey, EndpointId, Ticket, Time};
use std::collections::HashMap;

/// What is known of a session.
#[derive(Debug, Clone, Default)]
struct Session {
    place: Place,
    /// Blocks of its latest prompt, where they are counted in a footprint.
    keys: Vec<BlockKey>,
    /// Of its latest prompt that was placed.
    mark: Option<Mark>,
    in_flight: u32,
    held: u32,
    last_end: Option<Time>,
    /// When it came home.
    since: Time,
    /// Since when it has been without a home, of those that want one.
    homeless_since: Option<Time>,
    /// Whether its requests may be held.
    may_wait: bool,
}

/// Where a session's blocks are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Nowhere,
    Home(EndpointId),
    /// With all guests.
    Guest,
}

impl Session {
    fn home(&self) -> Option<EndpointId> {
        match self.place {
            Place::Home(home) => Some(home),
            Place::Nowhere | Place::Guest => None,
        }
    }

    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.held == 0
    }

    /// Whether its end would be noticed by nobody.
    fn is_over(&self) -> bool {
        self.place == Place::Nowhere && self.is_idle()
    }
}

/// What it takes to tell whether a prompt repeats at least half of another: a key says what came
/// before it, too.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// How many blocks half of the prompt are.
    blocks: usize,
    last_of_them: BlockKey,
}

impl Mark {
    /// None of a prompt of less than two blocks, which is nothing to repeat.
    fn of(keys: &[BlockKey]) -> Option<Self> {
        let blocks = keys.len().div_ceil(2);
        let last_of_them = *keys.get(blocks.checked_sub(1)?)?;
        (keys.len() >= 2).then_some(Self { blocks, last_of_them })
    }

    fn is_repeated_by(&self, keys: &[BlockKey]) -> bool {
        keys.get(self.blocks - 1) == Some(&self.last_of_them)
    }
}

/// A request that wants a place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Waiter<'a> {
    pub(crate) ticket: Ticket,
    /// Its session; requests without one do not wait for room.
    pub(crate) session: Option<SessionId>,
    /// The keys of its full blocks.
    pub(crate) keys: &'a [BlockKey],
    pub(crate) prompt_tokens: u32,
    pub(crate) since: Time,
    /// Whether it may be held.
    pub(crate) may_wait: bool,
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
    guests: Guests,
    detector: Detector,
    is_tight: bool,
    demand: Demand,
    /// When it was last seen who is silent.
    looked_at: Time,
    /// The homes that are kept for those who have been without one for too long.
    reserved: Vec<Reserved>,
}

impl Sessions {
    pub(crate) fn new(config: SessionConfig, block_size: u32) -> Self {
        Self {
            config,
            block_tokens: block_size.into(),
            known: HashMap::new(),
            footprints: Vec::new(),
            guests: Guests::default(),
            detector: Detector::default(),
            is_tight: false,
            demand: Demand::default(),
            looked_at: Time::ZERO,
            reserved: Vec::new(),
        }
    }

    /// Whether the KV is too little for all, now.
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
            let is_over = |it: &Session| it.is_over() && it.last_end == Some(ended);
            if self.known.get(&id).is_some_and(is_over) {
                self.known.remove(&id);
            }
        }
    }

    /// A request of a session arrives, and waits until it is placed or given up.
    pub(crate) fn arrived(&mut self, now: Time, id: SessionId, keys: &[BlockKey], may_wait: bool) {
        let session = self.known.entry(id).or_default();
        if session.is_idle()
            && let Some(ended) = session.last_end
        {
            let repeats = session.mark.is_some_and(|mark| mark.is_repeated_by(keys));
            self.detector.came_back(now, id, ended, repeats);
        }
        session.held += 1;
        session.may_wait = may_wait;
        if session.home().is_none() {
            session.homeless_since.get_or_insert(now);
        }
    }

    /// A request of a session no longer waits, and was not placed.
    pub(crate) fn given_up(&mut self, now: Time, id: SessionId) {
        let Some(session) = self.known.get_mut(&id) else { return };
        session.held = session.held.saturating_sub(1);
        if session.held == 0 && session.place == Place::Nowhere {
            session.homeless_since = None;
        }
        // With an answer that is still to be judged, or a home, it is forgotten there.
        if session.is_over() && session.last_end.is_none_or(|ended| Detector::is_mature(now, ended))
        {
            self.known.remove(&id);
        }
    }

    /// A request of a session was sent to an endpoint, which is its home from now on, or that of nobody.
    pub(crate) fn placed(
        &mut self,
        now: Time,
        id: SessionId,
        endpoint: EndpointId,
        keys: &[BlockKey],
    ) {
        let session = self.known.entry(id).or_default();
        session.held = session.held.saturating_sub(1);
        session.in_flight += 1;
        session.mark = Mark::of(keys);
        let is_guest = self.guests.are_at(endpoint);
        if !is_guest {
            session.homeless_since = None;
        }
        let place = match self.detector.is_of_sessions() {
            // Where it is at home matters to nobody.
            false => Place::Nowhere,
            true if is_guest => Place::Guest,
            true => Place::Home(endpoint),
        };
        if session.place != place {
            self.leave(id);
            self.enter(now, id, place, keys);
        } else if place != Place::Nowhere {
            let mut held = std::mem::take(&mut session.keys);
            if let Some(footprint) = self.counted_at(place) {
                footprint.exchange(&held, keys);
            }
            held.clear();
            held.extend_from_slice(keys);
            self.known.entry(id).or_default().keys = held;
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
        self.reserved.retain(|kept| kept.home != endpoint);
        self.guests.left(endpoint);
        let Some(footprint) = self.footprints.get_mut(endpoint.slot.index()) else { return };
        for id in footprint.empty() {
            if let Some(session) = self.known.get_mut(&id) {
                session.place = Place::Nowhere;
                session.keys.clear();
            }
        }
    }

    fn drop_silent(&mut self, now: Time) {
        if now.since(self.looked_at).as_secs_f64() < 1.0 {
            return;
        }
        self.looked_at = now;
        let silent = self.detector.silent_after();
        let is_over = |id: &&SessionId| {
            self.known.get(id).is_none_or(|it| {
                it.is_idle() && it.last_end.is_some_and(|end| now.since(end) > silent)
            })
        };
        let counted = self.footprints.iter().chain([self.guests.footprint()]);
        let over: Vec<SessionId> =
            counted.flat_map(|it| it.residents().iter().filter(is_over)).copied().collect();
        for id in over {
            self.leave(id);
            self.known.remove(&id);
        }
    }

    /// A session's blocks are counted somewhere from now on.
    fn enter(&mut self, now: Time, id: SessionId, place: Place, keys: &[BlockKey]) {
        let Some(footprint) = self.counted_at(place) else { return };
        footprint.enter(id, keys);
        let session = self.known.entry(id).or_default();
        (session.place, session.keys, session.since) = (place, keys.to_vec(), now);
    }

    /// A session's blocks are counted nowhere any longer.
    fn leave(&mut self, id: SessionId) {
        let Some(session) = self.known.get_mut(&id) else { return };
        let keys = std::mem::take(&mut session.keys);
        let place = std::mem::take(&mut session.place);
        if let Some(footprint) = self.counted_at(place) {
            footprint.leave(id, &keys);
        }
    }

    fn counted_at(&mut self, place: Place) -> Option<&mut Footprint> {
        match place {
            Place::Nowhere => None,
            Place::Guest => Some(self.guests.footprint_mut()),
            Place::Home(endpoint) => {
                let at = endpoint.slot.index();
                if self.footprints.len() <= at {
                    self.footprints.resize_with(at + 1, Footprint::default);
                }
                self.footprints.get_mut(at)
            }
        }
    }

    fn home_of(&self, it: &Waiter<'_>) -> Option<EndpointId> {
        self.known.get(&it.session?)?.home()
    }

    /// Since when a request's session has been without a home.
    fn waits_since(&self, it: &Waiter<'_>) -> Time {
        let session = it.session.and_then(|id| self.known.get(&id));
        session.and_then(|session| session.homeless_since).unwrap_or(it.since)
    }

    fn residents(&self, home: EndpointId) -> &[SessionId] {
        self.footprints.get(home.slot.index()).map_or(&[], Footprint::residents)
    }

    /// Tokens that a home's residents take, with room to grow.
    fn footprint(&self, home: EndpointId) -> f64 {
        self.footprints.get(home.slot.index()).map_or(0.0, |it| self.tokens(it))
    }

    fn tokens(&self, footprint: &Footprint) -> f64 {
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
}

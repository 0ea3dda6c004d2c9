//! Sessions for which no home has room and that may not wait.
//!
//! They have to run somewhere, and wherever that is they evict what others come back for. So they share
//! endpoints that are nobody's home: there each turn computes its whole prompt again, and the residents
//! of all other endpoints are left alone. Spread over all, the same excess makes every turn of every
//! session a miss.
//!
//! The home with the smallest footprint is shared first, its residents are guests from then on; another
//! one for as long as the guests ask for more than `crowd_share` of the shared KV, but for the last. What is
//! shared is given back as a home once the guests fit what else is shared, with some slack, or one home.
//!
//! On 40 agent sessions on 8 caches, `crowd_share` of 4, 6 and 8: 86, 88 and 91 % of the turns in time, the
//! longest wait of a turn 355, 485 and 590 s (two seeds, as what follows). NOTE(perf): tight from 1.1 on:
//! 12 % more turns in time of agents with short prompts, 8 % fewer of 40 sessions with long ones. From 1.35
//! on: 2 to 14 % fewer.
//!
//! Not here: who of the guests gets a home that has to make room (`claims`).

use super::footprint::Footprint;
use super::{Admission, Home, Place, SessionId, Sessions};
use crate::{EndpointId, Time};

/// Share of `crowd_share` below which guests are taken to do with one endpoint less.
const SLACK: f64 = 0.8;

/// Who has no home, and where they are.
#[derive(Debug, Default)]
pub(super) struct Guests {
    shared: Vec<EndpointId>,
    footprint: Footprint,
}

impl Guests {
    pub(super) fn are_at(&self, endpoint: EndpointId) -> bool {
        self.shared.contains(&endpoint)
    }

    pub(super) fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    pub(super) fn footprint_mut(&mut self) -> &mut Footprint {
        &mut self.footprint
    }

    pub(super) fn left(&mut self, endpoint: EndpointId) {
        self.shared.retain(|at| *at != endpoint);
    }

    pub(super) fn share_nothing(&mut self) {
        self.shared.clear();
    }
}

impl Sessions {
    /// Where a guest may go.
    pub(super) fn as_guest(&mut self, now: Time, homes: &[Home]) -> Admission {
        if self.guests.shared.is_empty() {
            self.share_another(now, homes);
        }
        match self.guests.shared.is_empty() {
            true => Admission::Anywhere,
            false => Admission::Among(self.guests.shared.clone()),
        }
    }

    /// As many endpoints are shared as guests need.
    pub(super) fn share_enough(&mut self, now: Time, homes: &[Home]) {
        self.guests.shared.retain(|at| homes.iter().any(|(home, _)| home == at));
        // One is left to those who wait.
        self.guests.shared.truncate(homes.len().saturating_sub(1));
        let asked = self.tokens(self.guests.footprint());
        let capacity = |sessions: &Self| -> f64 {
            let shared = homes.iter().filter(|(home, _)| sessions.guests.are_at(*home));
            shared.map(|(_, capacity)| capacity).sum()
        };
        while !self.guests.shared.is_empty()
            && asked > self.config.crowd_share * capacity(self)
            && self.share_another(now, homes)
        {}
        let Some(last) = self.guests.shared.last().copied() else { return };
        let kept: f64 = capacity(self)
            - homes.iter().filter(|(home, _)| *home == last).map(|(_, it)| it).sum::<f64>();
        let may_ask = match self.guests.shared.len() {
            1 => self.config.fill_share * capacity(self),
            _ => SLACK * self.config.crowd_share * kept,
        };
        if asked <= may_ask {
            self.guests.shared.pop();
        }
    }

    /// Shares the home with the smallest footprint, unless it is the last.
    fn share_another(&mut self, now: Time, homes: &[Home]) -> bool {
        if self.guests.shared.len() + 1 >= homes.len() {
            return false;
        }
        let left = homes.iter().filter(|(home, _)| !self.guests.are_at(*home));
        let sized = left.map(|(home, _)| (self.footprint(*home), *home));
        let Some((_, home)) = sized.min_by(|one, other| one.0.total_cmp(&other.0)) else {
            return false;
        };
        self.guests.shared.push(home);
        self.reserved.retain(|kept| kept.home != home);
        for id in self.residents(home).to_vec() {
            self.evict(now, id);
        }
        true
    }

    /// A resident has no home any more, through no doing of its own.
    pub(super) fn evict(&mut self, now: Time, id: SessionId) {
        let Some(session) = self.known.get_mut(&id) else { return };
        let may_wait = session.may_wait;
        // Who may wait does so from its next turn on.
        session.homeless_since = (!may_wait).then_some(now);
        let keys = session.keys.clone();
        self.leave(id);
        if !may_wait {
            self.enter(now, id, Place::Guest, &keys);
        }
    }
}

//! Residents that give way to who has been without a home for too long.
//!
//! *Nobody starves*: who has waited for `age_s` gets a home kept, each their own, the one that can make
//! room the soonest. There residents that have been served for `quantum_s` give way, the
//! longest-served first and those between two turns at once; the longer the wait, the less they need
//! to have been served, and after `patience_s` it is any. Where less room is lacking both waits are
//! shorter: somebody gives way sooner anyhow.
//!
//! A guest is served, so nothing is kept for it: after `age_s` its turn takes the place of residents that
//! have been served for `quantum_s`, if any are between two turns. NOTE(perf): homes kept for guests
//! stand half empty until somebody gives way, 15 to 45 % fewer turns in time.

use super::{Home, Session, SessionId, Sessions, Waiter};
use crate::{BlockKey, EndpointId, Time};

/// What a token that has to be computed again counts, seconds.
const LOSS_S_PER_TOKEN: f64 = 1.2e-4;

/// The home that is kept for who waited too long, and the room that it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reserved {
    pub(super) session: SessionId,
    pub(super) home: EndpointId,
    tokens: f64,
    waits_since: Time,
}

impl Sessions {
    /// Whether a resident's next turn waits like anybody's: its home has to make room for who waited
    /// too long, or has grown over and this one was served the longest.
    pub(super) fn gives_way(
        &self,
        now: Time,
        id: SessionId,
        home: EndpointId,
        capacity: f64,
    ) -> bool {
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
        let waited_s = now.since(kept.waits_since).as_secs_f64() / self.demand.patience();
        let late_s = waited_s - self.config.age_s;
        1.0 - late_s / (self.config.patience_s - self.config.age_s).max(1.0)
    }

    /// Keeps homes for those who have waited too long, one each, longest waiting first.
    pub(super) fn reserve(&mut self, now: Time, homes: &[Home], waiting: &[Waiter<'_>]) {
        let mut kept = std::mem::take(&mut self.reserved);
        kept.retain(|kept| {
            let waits = waiting.iter().find(|it| it.session == Some(kept.session));
            waits.is_some_and(|it| self.home_of(it).is_none())
                && homes.iter().any(|(home, _)| *home == kept.home)
        });
        let age_s = self.config.age_s * self.demand.patience();
        let is_aged = |it: &&Waiter<'_>| {
            it.may_wait
                && self.home_of(it).is_none()
                && now.since(self.waits_since(it)).as_secs_f64() > age_s
        };
        let mut aged: Vec<&Waiter<'_>> = waiting.iter().filter(is_aged).collect();
        aged.sort_by_key(|it| self.waits_since(it));
        for it in aged {
            let Some(session) = it.session else { continue };
            if kept.iter().any(|kept| kept.session == session) {
                continue;
            }
            let is_open = |home: EndpointId| {
                kept.iter().all(|kept| kept.home != home) && !self.guests.are_at(home)
            };
            let open = homes.iter().filter(|home| is_open(home.0));
            let costed = open.map(|home| (self.room_in(now, home, it.keys), home.0));
            let soonest = costed.min_by(|one, other| one.0.total_cmp(&other.0));
            let Some((_, home)) = soonest else { break };
            kept.push(Reserved {
                session,
                home,
                tokens: self.marginal(home, it.keys),
                waits_since: self.waits_since(it),
            });
        }
        self.reserved = kept;
    }

    /// Residents between two turns, of whom it is known already that they would give way, do so now.
    pub(super) fn make_room(&mut self, now: Time, homes: &[Home]) {
        for kept in self.reserved.clone() {
            let Some((_, capacity)) = homes.iter().find(|(home, _)| *home == kept.home) else {
                continue;
            };
            let limit = self.config.fill_share * capacity;
            while self.footprint(kept.home) + kept.tokens > limit {
                let claim = self.claim(now, &kept);
                let Some((served, id)) = self.longest_served(now, kept.home) else { break };
                if served <= claim {
                    break;
                }
                self.evict(now, id);
            }
        }
    }

    /// A home that has room for a guest now, after residents between two turns that have been served for
    /// a quantum gave way to it.
    pub(super) fn takes_over(
        &mut self,
        now: Time,
        it: &Waiter<'_>,
        homes: &[Home],
    ) -> Option<EndpointId> {
        let waited_s = now.since(self.waits_since(it)).as_secs_f64();
        if waited_s <= self.config.age_s * self.demand.patience() {
            return None;
        }
        let is_open = |home: EndpointId| {
            self.reserved.iter().all(|kept| kept.home != home) && !self.guests.are_at(home)
        };
        let open = homes.iter().filter(|(home, _)| is_open(*home));
        let longest = open.filter_map(|home| Some((self.longest_served(now, home.0)?.0, *home)));
        let (_, (home, capacity)) = longest.max_by(|one, other| one.0.total_cmp(&other.0))?;
        let limit = self.config.fill_share * capacity;
        while !self.fits(home, it.keys, limit) {
            let (served, id) = self.longest_served(now, home)?;
            if served <= 1.0 {
                return None;
            }
            self.evict(now, id);
        }
        Some(home)
    }

    /// Of a home's residents between two turns the one that has been served the longest, and how many
    /// quanta.
    fn longest_served(&self, now: Time, home: EndpointId) -> Option<(f64, SessionId)> {
        let idle = self.residents(home).iter().filter_map(|id| {
            let it = self.known.get(id).filter(|it| it.is_idle())?;
            Some((self.served(now, it), *id))
        });
        idle.max_by(|one, other| one.0.total_cmp(&other.0))
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
}

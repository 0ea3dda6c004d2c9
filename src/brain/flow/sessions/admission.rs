//! Who may go where while the KV is too little for all.
//!
//! - *Room* is taken up to `fill_share` of the KV. A home that has grown beyond `overflow_share` lets
//!   its longest-served resident go at its next turn.
//! - *Order of those who wait*: `(wait + 1 s) * (100k / tokens)^short_first`, the highest first: a
//!   short session costs little room.

use super::{Admission, Home, Sessions, Waiter};
use crate::{EndpointId, Time};

/// Tokens of the session against which others are long or short.
const REFERENCE_TOKENS: f64 = 100_000.0;

impl Sessions {
    /// Brings everything up to `now`: who is over, whether the fleet is tight, what is shared, and for
    /// whom a home is reserved.
    pub(crate) fn update(&mut self, now: Time, homes: &[Home], waiting: &[Waiter<'_>]) {
        self.forget_past(now);
        let capacity: f64 = homes.iter().map(|(_, capacity)| capacity).sum();
        let resident: f64 = homes.iter().map(|(home, _)| self.footprint(*home)).sum();
        let guests = self.tokens(self.guests.footprint());
        let asked = waiting.iter().filter(|it| it.may_wait && self.home_of(it).is_none());
        let asked = asked.map(|it| f64::from(it.prompt_tokens)).sum::<f64>();
        self.demand.observe(now, (resident + guests + asked) / capacity, &self.config);
        self.is_tight = self.is_of_sessions() && self.demand.is_tight(self.is_tight, &self.config);
        if self.is_tight {
            self.share_enough(now, homes);
            self.reserve(now, homes, waiting);
            self.make_room(now, homes);
        } else {
            self.reserved.clear();
            self.guests.share_nothing();
        }
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

    /// Where a request may go now.
    pub(crate) fn admit(&mut self, now: Time, it: &Waiter<'_>, homes: &[Home]) -> Admission {
        let Some(id) = it.session.filter(|_| self.is_tight) else { return Admission::Anywhere };
        if let Some(home) = self.home_of(it) {
            let stays = homes.iter().find(|(at, _)| *at == home);
            let gives_way = |it: &Home| self.gives_way(now, id, home, it.1);
            match stays.map(gives_way) {
                Some(false) => return Admission::Among(vec![home]),
                Some(true) => {
                    self.leave(id);
                    if let Some(session) = self.known.get_mut(&id) {
                        session.homeless_since = Some(now);
                    }
                    return self.without_room(now, it, homes);
                }
                // It takes no requests now.
                None => self.leave(id),
            }
        }
        let room = |(home, capacity): &&Home| {
            let kept = self.reserved.iter().find(|kept| kept.home == *home);
            if kept.is_some_and(|kept| kept.session != id) || self.guests.are_at(*home) {
                return false;
            }
            self.residents(*home).is_empty()
                || self.fits(*home, it.keys, self.config.fill_share * capacity)
        };
        let fitting: Vec<EndpointId> = homes.iter().filter(room).map(|(home, _)| *home).collect();
        match fitting.is_empty() {
            true => self.without_room(now, it, homes),
            false => Admission::Among(fitting),
        }
    }

    /// What becomes of a request for whose session no home has room.
    pub(crate) fn without_room(&mut self, now: Time, it: &Waiter<'_>, homes: &[Home]) -> Admission {
        match it.may_wait {
            true => Admission::Wait,
            false => match self.takes_over(now, it, homes) {
                Some(home) => Admission::Among(vec![home]),
                None => self.as_guest(now, homes),
            },
        }
    }
}

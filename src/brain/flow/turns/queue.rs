//! Those who wait for the same endpoints, in the order of their turns.

use super::TenantId;
use super::start_times::StartTimes;
use crate::{Ticket, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A request that waits for its turn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Turn {
    pub(crate) ticket: Ticket,
    pub(crate) priority: i32,
    pub(crate) tenant: TenantId,
    /// Its place among those of its tenant: the least is first, of equals the lower ticket.
    pub(crate) rank: u64,
    /// Tokens that it costs, over its tenant's weight.
    pub(crate) cost: f64,
    pub(crate) since: Time,
}

/// Those of one priority.
#[derive(Debug, Clone, Default)]
struct Band {
    tenants: StartTimes,
    waiting: BTreeMap<TenantId, BTreeSet<(u64, Ticket)>>,
}

/// A queue: bands strictly by priority, tenants fairly within a band, requests by rank within a
/// tenant; and every `aged_every`-th turn is that of whoever has waited the longest, if that is
/// longer than `age`. Every operation takes `O(log n)`.
///
/// Nobody starves: who waits with `k` older ones before it goes at the latest with the
/// `aged_every * (k + 1)`-th turn after it has waited for `age`.
#[derive(Debug, Clone)]
pub(super) struct FairQueue {
    age: Duration,
    aged_every: u32,
    bands: BTreeMap<Reverse<i32>, Band>,
    by_age: BTreeSet<(Time, Ticket)>,
    turns: BTreeMap<Ticket, Turn>,
    /// Turns since one was that of the longest waiting.
    since_aged: u32,
}

impl FairQueue {
    pub(super) fn new(age: Duration, aged_every: u32) -> Self {
        Self {
            age,
            aged_every,
            bands: BTreeMap::new(),
            by_age: BTreeSet::new(),
            turns: BTreeMap::new(),
            since_aged: 0,
        }
    }

    /// One more waits. Its ticket is nobody else's.
    pub(super) fn push(&mut self, turn: Turn) {
        let band = self.bands.entry(Reverse(turn.priority)).or_default();
        band.tenants.waits(turn.tenant);
        band.waiting.entry(turn.tenant).or_default().insert((turn.rank, turn.ticket));
        self.by_age.insert((turn.since, turn.ticket));
        self.turns.insert(turn.ticket, turn);
    }

    /// Whose turn it is.
    pub(super) fn next(&self, now: Time) -> Option<Ticket> {
        if self.since_aged + 1 >= self.aged_every
            && let Some(&(since, oldest)) = self.by_age.first()
            && now.since(since) > self.age
        {
            return Some(oldest);
        }
        let band = self.bands.values().next()?;
        let waiting = band.waiting.get(&band.tenants.next()?)?;
        waiting.first().map(|&(_, ticket)| ticket)
    }

    /// One of those who wait was let go.
    pub(super) fn served(&mut self, ticket: Ticket) -> Option<Turn> {
        let was_oldest = self.by_age.first().is_some_and(|&(_, oldest)| oldest == ticket);
        let turn = *self.turns.get(&ticket)?;
        if let Some(band) = self.bands.get_mut(&Reverse(turn.priority)) {
            band.tenants.served(turn.tenant, turn.cost);
        }
        self.since_aged = if was_oldest { 0 } else { self.since_aged.saturating_add(1) };
        self.remove(ticket)
    }

    /// One that did not wait was let go while others of its priority do: its tenant pays too.
    pub(super) fn went_at_once(&mut self, priority: i32, tenant: TenantId, cost: f64) {
        if let Some(band) = self.bands.get_mut(&Reverse(priority)) {
            band.tenants.served(tenant, cost);
        }
    }

    /// One waits no longer, and was not let go.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Turn> {
        let turn = self.turns.remove(&ticket)?;
        self.by_age.remove(&(turn.since, ticket));
        let band = self.bands.get_mut(&Reverse(turn.priority))?;
        if let Some(waiting) = band.waiting.get_mut(&turn.tenant) {
            waiting.remove(&(turn.rank, ticket));
            if waiting.is_empty() {
                band.waiting.remove(&turn.tenant);
                band.tenants.waits_no_more(turn.tenant);
            }
        }
        if band.waiting.is_empty() {
            self.bands.remove(&Reverse(turn.priority));
        }
        Some(turn)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }
}

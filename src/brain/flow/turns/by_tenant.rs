//! How many of each tenant wait: so that one that floods fills no queue for the others.
//!
//! Where too many wait the longest queue gives way, as in McKenney, "Stochastic Fairness Queueing"
//! (INFOCOM 1990).

use super::{TenantId, Turn};
use crate::Ticket;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Those who wait, by tenant. Every operation takes `O(log n)`.
#[derive(Debug, Clone, Default)]
pub(super) struct ByTenant {
    waiting: BTreeMap<TenantId, BTreeSet<(Reverse<i32>, Ticket)>>,
    by_count: BTreeSet<(usize, TenantId)>,
}

impl ByTenant {
    pub(super) fn push(&mut self, turn: &Turn) {
        self.change(turn.tenant, |waiting| {
            waiting.insert((Reverse(turn.priority), turn.ticket));
        });
    }

    pub(super) fn remove(&mut self, turn: &Turn) {
        self.change(turn.tenant, |waiting| {
            waiting.remove(&(Reverse(turn.priority), turn.ticket));
        });
    }

    fn change(
        &mut self,
        tenant: TenantId,
        change: impl FnOnce(&mut BTreeSet<(Reverse<i32>, Ticket)>),
    ) {
        let waiting = self.waiting.entry(tenant).or_default();
        self.by_count.remove(&(waiting.len(), tenant));
        change(waiting);
        match waiting.len() {
            0 => drop(self.waiting.remove(&tenant)),
            count => drop(self.by_count.insert((count, tenant))),
        }
    }

    /// See [`super::Turns::makes_room_for`].
    pub(super) fn makes_room_for(&self, newcomer: TenantId, priority: i32) -> Option<Ticket> {
        let &(most, tenant) = self.by_count.last()?;
        let own = self.waiting.get(&newcomer).map_or(0, BTreeSet::len);
        let &(Reverse(least), last) = self.waiting.get(&tenant)?.last()?;
        (most >= own + 2 && least <= priority).then_some(last)
    }
}

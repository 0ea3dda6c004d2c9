//! The queue of held requests.

use super::FlowConfig;
use crate::{Ticket, Time};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A request that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Held<T> {
    /// Its name.
    pub ticket: Ticket,
    /// Higher is let go first.
    pub priority: i32,
    /// When it came.
    pub since: Time,
    /// When it is given up.
    pub deadline: Time,
    /// What the caller needs to place it.
    pub payload: T,
}

/// What became of an attempt to place a held request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt<R> {
    /// It has its place, and leaves the queue.
    Placed(R),
    /// Nobody can take it now; those behind it may have more luck.
    Keep,
    /// Nobody can take anything now; the rest is not tried.
    Stop,
}

/// A request that was not held, with its payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request {} is not held: {why}", .ticket.0)]
pub struct HoldRefused<T> {
    /// Which.
    pub ticket: Ticket,
    /// Why.
    pub why: RefusedWhy,
    /// As it was given.
    pub payload: T,
}

/// Why a request was not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedWhy {
    /// The queue is at its bound.
    #[error("{0} requests are held already, the limit (max_held_requests)")]
    Full(usize),
    /// A request of this ticket waits already.
    #[error("one with this ticket is held already: cancel it first")]
    Duplicate,
}

/// Order of the queue: priority, then arrival.
type Place = (Reverse<i32>, u64);

/// Requests that wait for an endpoint. Push, cancel and each expiry cost `O(log n)`.
#[derive(Debug, Clone)]
pub struct Holding<T> {
    limit: usize,
    arrivals: u64,
    queue: BTreeMap<Place, Held<T>>,
    by_ticket: BTreeMap<Ticket, Place>,
    by_deadline: BTreeSet<(Time, Place)>,
}

impl<T> Default for Holding<T> {
    fn default() -> Self {
        Self::new(&FlowConfig::default())
    }
}

impl<T> Holding<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(config: &FlowConfig) -> Self {
        Self {
            limit: config.max_held_requests,
            arrivals: 0,
            queue: BTreeMap::new(),
            by_ticket: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
        }
    }

    /// Holds a request for at most `hold_ms`. Returns its deadline.
    ///
    /// # Errors
    /// [`HoldRefused`] with the payload when the queue is full or has the ticket already.
    pub fn push(
        &mut self,
        now: Time,
        ticket: Ticket,
        priority: i32,
        hold_ms: u64,
        payload: T,
    ) -> Result<Time, HoldRefused<T>> {
        let why = if self.by_ticket.contains_key(&ticket) {
            Some(RefusedWhy::Duplicate)
        } else if self.queue.len() >= self.limit {
            Some(RefusedWhy::Full(self.queue.len()))
        } else {
            None
        };
        if let Some(why) = why {
            return Err(HoldRefused { ticket, why, payload });
        }
        let place = (Reverse(priority), self.arrivals);
        self.arrivals += 1;
        let deadline = now + Duration::from_millis(hold_ms);
        self.by_ticket.insert(ticket, place);
        self.by_deadline.insert((deadline, place));
        self.queue.insert(place, Held { ticket, priority, since: now, deadline, payload });
        Ok(deadline)
    }

    /// Offers the held requests to `place`, in order, once each, and returns those that it placed
    /// with what it said. Requests at or past their deadline are left for [`expire`](Self::expire).
    ///
    /// ```
    /// use llmd_brain::flow::{Attempt, FlowConfig, Holding};
    /// use llmd_brain::{Ticket, Time};
    ///
    /// let mut holding = Holding::new(&FlowConfig::default());
    /// holding.push(Time::ZERO, Ticket(1), 0, 100, "long").unwrap();
    /// holding.push(Time::ZERO, Ticket(2), 5, 100, "urgent").unwrap();
    /// let mut room = 1;
    /// let placed = holding.pop_ready(Time::ZERO, |_| {
    ///     if room == 0 {
    ///         return Attempt::Stop;
    ///     }
    ///     room -= 1;
    ///     Attempt::Placed(())
    /// });
    /// assert_eq!(placed[0].0.payload, "urgent");
    /// assert_eq!(holding.len(), 1);
    /// ```
    pub fn pop_ready<R>(
        &mut self,
        now: Time,
        place: impl FnMut(&Held<T>) -> Attempt<R>,
    ) -> Vec<(Held<T>, R)> {
        let order: Vec<Ticket> = self.queue.values().map(|held| held.ticket).collect();
        self.pop_in_order(now, &order, place)
    }

    /// As [`pop_ready`](Self::pop_ready), in an order of the caller's; who is not in it is not asked.
    pub fn pop_in_order<R>(
        &mut self,
        now: Time,
        order: &[Ticket],
        mut place: impl FnMut(&Held<T>) -> Attempt<R>,
    ) -> Vec<(Held<T>, R)> {
        let mut placed = Vec::new();
        for at in order.iter().filter_map(|ticket| self.by_ticket.get(ticket)) {
            let Some(held) = self.queue.get(at).filter(|held| held.deadline > now) else {
                continue;
            };
            match place(held) {
                Attempt::Placed(result) => placed.push((*at, result)),
                Attempt::Keep => {}
                Attempt::Stop => break,
            }
        }
        let remove = |(at, result)| Some((self.remove(at)?, result));
        placed.into_iter().filter_map(remove).collect()
    }

    /// Gives up every request whose deadline has come, the earliest deadline first.
    pub fn expire(&mut self, now: Time) -> Vec<Held<T>> {
        let mut expired = Vec::new();
        while let Some(&(deadline, at)) = self.by_deadline.first() {
            if deadline > now {
                break;
            }
            expired.extend(self.remove(at));
        }
        expired
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        self.by_deadline.first().map(|&(deadline, _)| deadline)
    }

    /// Takes a request back; `None` where it does not wait (any more).
    pub fn cancel(&mut self, ticket: Ticket) -> Option<Held<T>> {
        let at = *self.by_ticket.get(&ticket)?;
        self.remove(at)
    }

    /// Whether a request waits.
    #[must_use]
    pub fn contains(&self, ticket: Ticket) -> bool {
        self.by_ticket.contains_key(&ticket)
    }

    /// Number of requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Who waits, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Held<T>> {
        self.queue.values()
    }

    fn remove(&mut self, at: Place) -> Option<Held<T>> {
        let held = self.queue.remove(&at)?;
        self.by_ticket.remove(&held.ticket);
        self.by_deadline.remove(&(held.deadline, at));
        Some(held)
    }
}

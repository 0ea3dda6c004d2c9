//! All held requests, by ticket, deadline, priority and arrival.

use super::FlowConfig;
use crate::{Ticket, Time};
use serde::{Deserialize, Serialize};
use std::cmp::{Ordering, Reverse};
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

/// What came of holding one more.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed<T> {
    /// When it is given up.
    pub deadline: Time,
    /// Who gave way to it.
    pub shed: Option<Held<T>>,
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

/// How many wait, by what their priority says of them. A number for each priority could be made to
/// grow by whoever sends them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBands {
    /// Of a priority above 0.
    pub above_normal: u64,
    /// Of priority 0.
    pub normal: u64,
    /// Of a priority below 0: those that may be shed.
    pub below_normal: u64,
}

impl HeldBands {
    fn of(&mut self, priority: i32) -> &mut u64 {
        match priority.cmp(&0) {
            Ordering::Greater => &mut self.above_normal,
            Ordering::Equal => &mut self.normal,
            Ordering::Less => &mut self.below_normal,
        }
    }
}

/// Order of the queue: priority, then arrival.
type Place = (Reverse<i32>, u64);

/// Requests that wait, in order of priority and arrival. Each operation on one costs `O(log n)`.
#[derive(Debug, Clone)]
pub struct Holding<T> {
    limit: usize,
    arrivals: u64,
    queue: BTreeMap<Place, Held<T>>,
    by_ticket: BTreeMap<Ticket, Place>,
    by_deadline: BTreeSet<(Time, Place)>,
    bands: HeldBands,
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
            bands: HeldBands::default(),
        }
    }

    /// Holds a request for at most `hold_ms`. Where the queue is full, the least important one that
    /// may be shed (of a priority below 0; of equals the one that came last) gives way to one that
    /// is more important.
    ///
    /// ```
    /// use llmd_brain::flow::{FlowConfig, Holding};
    /// use llmd_brain::{Ticket, Time};
    ///
    /// let config = FlowConfig { max_held_requests: 1, ..FlowConfig::default() };
    /// let mut holding = Holding::new(&config);
    /// holding.push(Time::ZERO, Ticket(1), -1, 100, "batch job").unwrap();
    /// let pushed = holding.push(Time::ZERO, Ticket(2), 0, 100, "chat").unwrap();
    /// assert_eq!(pushed.shed.unwrap().payload, "batch job");
    /// assert!(holding.push(Time::ZERO, Ticket(3), 9, 100, "urgent").is_err(), "nobody may be shed");
    /// ```
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
    ) -> Result<Pushed<T>, HoldRefused<T>> {
        if self.by_ticket.contains_key(&ticket) {
            return Err(HoldRefused { ticket, why: RefusedWhy::Duplicate, payload });
        }
        let mut shed = None;
        if self.is_full() {
            shed = self.sheddable(priority).and_then(|place| self.remove(place));
            if shed.is_none() {
                let why = RefusedWhy::Full(self.queue.len());
                return Err(HoldRefused { ticket, why, payload });
            }
        }
        let place = (Reverse(priority), self.arrivals);
        self.arrivals += 1;
        let deadline = now + Duration::from_millis(hold_ms);
        self.by_ticket.insert(ticket, place);
        self.by_deadline.insert((deadline, place));
        *self.bands.of(priority) += 1;
        self.queue.insert(place, Held { ticket, priority, since: now, deadline, payload });
        Ok(Pushed { deadline, shed })
    }

    /// Whether one more has to wait for another to go.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.limit
    }

    /// Whether one of a priority would make another go where it is full.
    #[must_use]
    pub fn would_shed(&self, priority: i32) -> bool {
        self.sheddable(priority).is_some()
    }

    fn sheddable(&self, priority: i32) -> Option<Place> {
        let (least, _) = self.queue.last_key_value()?;
        (least.0.0 < 0 && least.0.0 < priority).then_some(*least)
    }

    /// One that waits.
    #[must_use]
    pub fn get(&self, ticket: Ticket) -> Option<&Held<T>> {
        self.queue.get(self.by_ticket.get(&ticket)?)
    }

    /// What the caller keeps of one that waits.
    pub fn payload_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.queue.get_mut(self.by_ticket.get(&ticket)?).map(|held| &mut held.payload)
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

    /// Takes a request out: it was let go, or its client went away. `None` where it does not wait
    /// (any more).
    pub fn take(&mut self, ticket: Ticket) -> Option<Held<T>> {
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

    /// Of those, how many are of which importance.
    #[must_use]
    pub fn bands(&self) -> HeldBands {
        self.bands
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
        *self.bands.of(held.priority) -= 1;
        self.by_ticket.remove(&held.ticket);
        self.by_deadline.remove(&(held.deadline, at));
        Some(held)
    }
}

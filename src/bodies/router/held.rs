//! Requests that the brain holds, and who waits for them.
//!
//! The brain may let a held request go in a turn of another thread, before the one that was told
//! to hold it has said whom to wake: such an outcome is kept until it does.

use llmd_brain::Ticket;
use llmd_brain::brain::Rejected;
use llmd_brain::schedule::Decision;
use parking_lot::Mutex;
use std::collections::HashMap;

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It has its place.
    Placed(Box<Decision>),
    /// It cannot be served.
    Rejected(Rejected),
    /// The router was closed.
    Closed,
}

/// Called once with what became of a held request; must not block.
pub type Waiter = Box<dyn FnOnce(Outcome) + Send>;

enum Entry {
    Waiting(Waiter),
    Decided(Outcome),
}

/// Who waits for which held request. Bounded by the brain's own bound on held requests.
#[derive(Default)]
pub struct HeldRequests {
    entries: Mutex<HashMap<Ticket, Entry>>,
}

impl HeldRequests {
    /// Has `waiter` called with what becomes of `ticket`, at once where that is known already.
    pub fn wait(&self, ticket: Ticket, waiter: Waiter) {
        let mut entries = self.entries.lock();
        match entries.remove(&ticket) {
            Some(Entry::Decided(outcome)) => {
                drop(entries);
                waiter(outcome);
            }
            _ => {
                entries.insert(ticket, Entry::Waiting(waiter));
            }
        }
    }

    /// Tells whoever waits for `ticket`.
    pub fn decide(&self, ticket: Ticket, outcome: Outcome) {
        let mut entries = self.entries.lock();
        match entries.remove(&ticket) {
            Some(Entry::Waiting(waiter)) => {
                drop(entries);
                waiter(outcome);
            }
            _ => {
                entries.insert(ticket, Entry::Decided(outcome));
            }
        }
    }

    /// Nobody waits for `ticket` any more. Returns what had been decided without being told.
    pub fn forget(&self, ticket: Ticket) -> Option<Outcome> {
        match self.entries.lock().remove(&ticket)? {
            Entry::Decided(outcome) => Some(outcome),
            Entry::Waiting(_) => None,
        }
    }

    /// Tells everybody who still waits.
    pub fn decide_all(&self, outcome: &Outcome) {
        let entries = std::mem::take(&mut *self.entries.lock());
        for entry in entries.into_values() {
            if let Entry::Waiting(waiter) = entry {
                waiter(outcome.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llmd_brain::brain::RejectReason;
    use std::sync::mpsc;

    fn rejected() -> Outcome {
        Outcome::Rejected(RejectReason::EmptyFleet.into())
    }

    #[test]
    fn a_waiter_is_told_whether_it_came_before_or_after_the_outcome() {
        let held = HeldRequests::default();
        let (told, outcomes) = mpsc::channel();
        for (ticket, first) in [(Ticket(1), true), (Ticket(2), false)] {
            let told = told.clone();
            let waiter: Waiter = Box::new(move |outcome| told.send((ticket, outcome)).unwrap());
            if first {
                held.wait(ticket, waiter);
                held.decide(ticket, rejected());
            } else {
                held.decide(ticket, rejected());
                held.wait(ticket, waiter);
            }
        }
        let told: Vec<_> = outcomes.try_iter().collect();
        assert_eq!(told, [(Ticket(1), rejected()), (Ticket(2), rejected())]);
    }

    #[test]
    fn nobody_is_told_after_forgetting() {
        let held = HeldRequests::default();
        held.wait(Ticket(1), Box::new(|_| panic!("forgotten")));
        assert_eq!(held.forget(Ticket(1)), None);
        held.decide(Ticket(1), rejected());
        assert_eq!(held.forget(Ticket(1)), Some(rejected()));
        assert_eq!(held.forget(Ticket(1)), None);
    }
}

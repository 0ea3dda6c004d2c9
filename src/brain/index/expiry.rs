//! When the next belief of any endpoint expires.

use super::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::Time;

/// A lower bound of the first expiry, kept without locks by those who book and made tight again by
/// whoever has the turn to expire.
#[derive(Debug)]
pub(super) struct Expiry {
    /// Nothing expires before this, in nanoseconds.
    next: AtomicU64,
    /// The first expiry that was booked since the turn began.
    booked: AtomicU64,
    turn: Mutex<()>,
}

/// The exclusive right to look through all endpoints and say what expires next.
pub(super) struct Turn<'a> {
    expiry: &'a Expiry,
    _exclusive: MutexGuard<'a, ()>,
}

impl Expiry {
    pub(super) fn new() -> Self {
        Self {
            next: AtomicU64::new(u64::MAX),
            booked: AtomicU64::new(u64::MAX),
            turn: Mutex::new(()),
        }
    }

    pub(super) fn next(&self) -> Option<Time> {
        let nanos = self.next.load(Ordering::SeqCst);
        (nanos != u64::MAX).then(|| Time::from_nanos(nanos))
    }

    pub(super) fn is_due(&self, now: Time) -> bool {
        self.next.load(Ordering::SeqCst) <= now.as_nanos()
    }

    /// A belief expires at `first`, and is where whoever has the turn will find it.
    pub(super) fn note(&self, first: Option<Time>) {
        if let Some(first) = first {
            self.booked.fetch_min(first.as_nanos(), Ordering::SeqCst);
            self.next.fetch_min(first.as_nanos(), Ordering::SeqCst);
        }
    }

    pub(super) fn turn(&self) -> Turn<'_> {
        Turn::begin(self, self.turn.lock())
    }

    /// `None` while somebody else has it.
    pub(super) fn try_turn(&self) -> Option<Turn<'_>> {
        Some(Turn::begin(self, self.turn.try_lock()?))
    }
}

impl<'a> Turn<'a> {
    fn begin(expiry: &'a Expiry, exclusive: MutexGuard<'a, ()>) -> Self {
        expiry.booked.store(u64::MAX, Ordering::SeqCst);
        Self { expiry, _exclusive: exclusive }
    }

    /// `next` is the first expiry that was seen. A booking may have come after its endpoint was
    /// looked at: one that noted itself in `next` before the store below is in `booked` already.
    pub(super) fn finish(self, next: Option<Time>) {
        let seen = next.map_or(u64::MAX, Time::as_nanos);
        self.expiry.next.store(seen, Ordering::SeqCst);
        self.expiry.next.fetch_min(self.expiry.booked.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_booking_during_a_turn_is_not_lost() {
        let expiry = Expiry::new();
        expiry.note(Some(Time::from_nanos(10)));
        let turn = expiry.turn();
        assert!(expiry.try_turn().is_none());

        expiry.note(Some(Time::from_nanos(30)));
        turn.finish(Some(Time::from_nanos(50)));

        assert_eq!(expiry.next(), Some(Time::from_nanos(30)));
        assert!(!expiry.is_due(Time::from_nanos(29)) && expiry.is_due(Time::from_nanos(30)));
    }
}
